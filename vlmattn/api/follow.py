"""A given answer instead of a generated one: the same prompt with the answer's tokens appended, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vlmattn.adapters import Adapter, Encoded
from vlmattn.adapters.encoded import TYPE_KEYS, left_padded, pad_id_of, repeated_rows, right_padded
from vlmattn.core.errors import PromptError
from vlmattn.core.layout import extend_layout


def with_answers(
    adapter: Adapter, encoded: Encoded, answers: Sequence[str | Sequence[int]]
) -> tuple[Encoded, list[np.ndarray]]:
    """The batch with one answer appended to each prompt, and the answers' token ids.

    Token ids are taken as they are. Text is tokenised on its own, with a space before it where the prompt does not end
    in white space, as the model would have written it.

    Raises:
        PromptError: an empty answer, one that holds a picture placeholder, token ids that do not exist, or more tokens
            than the model has positions.
    """
    written = [
        _answer_ids(adapter, layout.text, answer) for layout, answer in zip(encoded.layouts, answers, strict=True)
    ]
    if any((ids == adapter.image_token_id).any() for ids in written):
        raise PromptError(
            f"the given answer holds the picture placeholder {adapter.image_token!r}, which stands for pixels"
        )
    for layout, ids in zip(encoded.layouts, written, strict=True):
        # Before anything is decoded, which takes long for a long text.
        count = len(layout) - layout.memory + len(ids)
        if adapter.max_tokens is not None and count > adapter.max_tokens:
            raise PromptError(
                f"question and given answer have {count} tokens, more than the model's "
                f"{adapter.max_tokens} positions: shorten the answer"
            )
    layouts = [
        extend_layout(layout, ids, *adapter.decode_answer(ids))
        for layout, ids in zip(encoded.layouts, written, strict=True)
    ]
    inputs, pads = _longer(adapter, encoded, [layout.input_ids[layout.memory :] for layout in layouts])
    return replace(encoded, inputs=inputs, layouts=tuple(layouts), pad_left=pads), written


def _answer_ids(adapter: Adapter, prompt: str, answer: str | Sequence[int]) -> np.ndarray:
    if not isinstance(answer, str):
        return _checked_ids(adapter, answer)
    if not answer.strip():
        raise PromptError("the given answer is empty")
    lead = "" if prompt[-1:].isspace() or answer[:1].isspace() else " "
    try:
        answer.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the given answer is not valid Unicode text: {error.reason}") from error
    tokens = adapter.tokenizer(lead + answer, add_special_tokens=False)["input_ids"]
    return np.asarray(tokens, dtype=np.int64)


def _checked_ids(adapter: Adapter, answer: Sequence[int]) -> np.ndarray:
    given = np.asarray(answer).reshape(-1)
    if not len(given):
        raise PromptError("the given answer has no tokens")
    table = adapter.model.get_input_embeddings()
    # Some models hold tokens that were added to the vocabulary in a second table.
    known = table.weight.shape[0] + int(getattr(table, "num_additional_embeddings", 0))
    if given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= known:
        raise PromptError(f"a given answer is text, or token ids from 0 to {known - 1}; got {str(answer)[:80]}")
    return given.astype(np.int64)


def _longer(adapter: Adapter, encoded: Encoded, rows: Sequence[np.ndarray]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The inputs with longer rows of tokens: what is told per token is told of the answer too."""
    old = encoded.inputs
    if adapter.answers_apart:
        where = old["decoder_input_ids"].device
        return dict(old) | {"decoder_input_ids": right_padded(rows, 0).to(where)}, encoded.pad_left
    types = {name: old[name].cpu().numpy() for name in TYPE_KEYS if name in old}
    extra: dict[str, list[np.ndarray]] = {name: [] for name in types}
    for name, told in types.items():
        for line, (row, pad) in enumerate(zip(rows, encoded.pad_left, strict=True)):
            answer = np.full(len(row) - (told.shape[1] - pad), adapter.answer_types.get(name, 0))
            extra[name].append(np.concatenate([told[line, pad:], answer]))
    inputs, pads = left_padded(list(rows), extra, pad_id_of(adapter.tokenizer))
    for name in adapter.rows_of_tokens:
        inputs[name] = repeated_rows(old[name], encoded.pad_left, pads, [len(row) for row in rows])
    where = old["input_ids"].device
    return dict(old) | {name: value.to(where) for name, value in inputs.items()}, pads
