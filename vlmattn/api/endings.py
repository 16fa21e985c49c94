"""Where each written answer ends, by the very settings that ``generate`` was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def setting(model: Any, options: Mapping[str, Any], name: str) -> Any:
    """What ``model.generate(**options)`` takes for a setting: the option itself, else the given generation config's,
    else the model's own; None where nobody says."""
    if name in options:
        return options[name]
    for config in (options.get("generation_config"), getattr(model, "generation_config", None)):
        value = getattr(config, name, None)
        if value is not None:
            return value
    return None


def end_tokens(model: Any, options: Mapping[str, Any]) -> NDArray[np.int64]:
    """Ids of the tokens that end an answer; empty if none does."""
    value = setting(model, options, "eos_token_id")
    if value is None:
        return np.empty(0, dtype=np.int64)
    return np.atleast_1d(np.asarray(value, dtype=np.int64))


def written_answers(
    model: Any, tokenizer: Any, sequences: Any, prompt: int, options: Mapping[str, Any]
) -> list[NDArray[np.int64]]:
    """The answer's token ids of each sequence: up to and including the first end token, or the token that completes
    the first stop string. What stands behind it in a batch, padding or not, is no answer.

    Args:
        sequences: (B, P + T) ids as ``generate`` returned them. prompt: P. options: what ``generate`` was given.
    """
    ids = sequences.cpu().numpy().astype(np.int64)[:, prompt:]
    done = np.isin(ids, end_tokens(model, options))
    stop_strings = setting(model, options, "stop_strings")
    if stop_strings:
        done |= _stopped(tokenizer, stop_strings, sequences.cpu(), prompt)
    return [line[: int(hit.argmax()) + 1] if hit.any() else line for line, hit in zip(ids, done, strict=True)]


def _stopped(tokenizer: Any, stop_strings: Any, sequences: Any, prompt: int) -> NDArray[np.bool_]:
    """(B, T) bool: whether the text ends with a stop string at each written token."""
    from transformers import StopStringCriteria

    rule = StopStringCriteria(tokenizer, stop_strings)
    found = [rule(sequences[:, :end], None) for end in range(prompt + 1, sequences.shape[1] + 1)]
    return np.stack([np.asarray(one.cpu(), dtype=np.bool_) for one in found], axis=1)
