"""Forward passes that scores of heads need beside the run itself: outputs, gradients, no picture, no head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters import Encoded
from vlmattn.adapters.videos import may_run_together
from vlmattn.api.follow import with_answers
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.capture.head_outputs import HeadOutputs
from vlmattn.core.errors import UnsupportedModel
from vlmattn.core.layout import TokenKind, TokenLayout, plain_layout
from vlmattn.steering import ReplaceHeads

if TYPE_CHECKING:
    import torch

    from vlmattn.api.vlm import Vlm

Arrays = dict[int, NDArray[np.float32]]
"""Values by layer number."""

_OF_PICTURES = (TokenKind.IMAGE, TokenKind.SEPARATOR, TokenKind.LATENT)


class Passed(NamedTuple):
    """One pass over a prompt and its answer: head outputs (N, H, D_v) by layer, of all tokens of the decoder; their
    gradients of the answer's log-probability, or None; and that log-probability, in nats."""

    outputs: Arrays
    slopes: Arrays | None
    log_probability: float


def answered(vlm: Vlm, pictures: Sequence[Any], question: Any, ids: Sequence[int], copies: int = 1) -> Encoded:
    """A prompt with its answer's tokens appended, on the model's device, ``copies`` times."""
    encoded = vlm.encode([pictures] * copies, [question] * copies)
    return with_answers(vlm.adapter, encoded, [list(ids)] * copies)[0].to(vlm.device, vlm.dtype)


def answer_rows(layout: TokenLayout) -> NDArray[np.int64]:
    """Rows of the decoder that predict the answer's tokens, counted from its first token; tokens with text, or all."""
    tokens = np.arange(layout.answer_start, len(layout))
    told = tokens[layout.char_span[tokens, 0] >= 0]
    return (told if len(told) else tokens) - 1 - layout.memory


def log_probabilities(model: Any, encoded: Encoded) -> torch.Tensor:
    """(B,) log-probability of the answer of each line; the lines hold one prompt and answer."""
    import torch

    layout = encoded.layouts[0]
    logits = model(**encoded.inputs, use_cache=False).logits.float()
    rows = torch.as_tensor(answer_rows(layout), device=logits.device)
    ids = torch.as_tensor(layout.input_ids, device=logits.device)[rows + 1 + layout.memory]
    logp = torch.log_softmax(logits[:, rows], dim=-1)
    return logp.gather(-1, ids[None, :, None].expand(len(logits), -1, 1))[..., 0].sum(dim=-1)


def passed(vlm: Vlm, encoded: Encoded, *, slopes: bool) -> Passed:
    """Head outputs of one pass, with their gradients if wanted.

    Raises:
        CaptureError: gradients do not reach the heads.
    """
    with vlm.alone():
        seen = HeadOutputs(vlm.model, grad=slopes)
        with seen.watching():
            score = log_probabilities(vlm.model, encoded)[0]
        found = seen.gradients(score) if slopes else None
        outputs = {layer: _array(value) for layer, value in seen.found.items()}
    count = len(encoded.layouts[0]) - encoded.layouts[0].memory
    short = [layer for layer, values in outputs.items() if len(values) != count]
    if short:
        raise UnsupportedModel(f"layers {short} of {vlm.name!r} do not compute every row of a prompt")
    return Passed(outputs, None if found is None else {n: _array(v) for n, v in found.items()}, float(score.detach()))


def _array(value: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(value[0].detach().float().cpu().numpy())


def check_text_only(vlm: Vlm, layout: TokenLayout) -> None:
    """Refuse models that cannot run without their picture.

    Raises:
        UnsupportedModel: pictures are no tokens of the decoder's prompt.
    """
    if layout.memory or len(layout.latent_positions):
        raise UnsupportedModel(
            f"{vlm.name!r} reads pictures beside its prompt, or through a resampler, so they are no tokens of it that "
            "could be taken away"
        )


def text_only(vlm: Vlm, layout: TokenLayout) -> Arrays:
    """Head outputs (N - image tokens, H, D_v) of the same text without the picture: its tokens are taken out of the
    sequence, those of the text stay as they are and their positions are counted anew by the model.

    Raises:
        UnsupportedModel: as :func:`check_text_only`, or the model does not run without pixels.
    """
    import torch

    check_text_only(vlm, layout)
    ids = torch.from_numpy(layout.input_ids[~_seen(layout)])[None].to(vlm.device)
    seen = HeadOutputs(vlm.model)
    try:
        with vlm.alone(), seen.watching():
            vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UnsupportedModel(f"{vlm.name!r} does not run without a picture: {str(error)[:200]}") from error
    return {layer: _array(value) for layer, value in seen.found.items()}


def _seen(layout: TokenLayout) -> NDArray[np.bool_]:
    return np.isin(layout.kinds, _OF_PICTURES)


def rows_without(layout: TokenLayout, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of :func:`text_only` that hold the tokens of ``rows``."""
    return rows - np.cumsum(_seen(layout))[rows]


def ablated(
    vlm: Vlm,
    pictures: Sequence[Any],
    question: Any,
    ids: Sequence[int],
    means: Mapping[int, NDArray[np.float32]] | None = None,
    *,
    batch: int = 8,
) -> NDArray[np.float64]:
    """(L, H) log-probability of the answer with each head's output zero, or its mean, in every row.

    Heads that are not there are NaN. ``batch`` heads run at once, where the family allows it.
    """
    import torch

    sites = model_sites(vlm.model).attention
    out = np.full((len(sites), max(site.heads for site in sites)), np.nan)
    every = [(line, head) for line, site in enumerate(sites) for head in range(site.heads)]
    size = batch if may_run_together(vlm.adapter.spec, [pictures, pictures]) else 1
    for first in range(0, len(every), size):
        part = every[first : first + size]
        heads = tuple((sites[line].layer_idx, head) for line, head in part)
        encoded = answered(vlm, pictures, question, ids, len(part))
        session = Session(vlm.model, encoded.layouts, None, [ReplaceHeads(heads, means)], pad_left=encoded.pad_left)
        with vlm.alone(), session, torch.no_grad():
            found = log_probabilities(vlm.model, encoded).double().cpu().numpy()
        out[tuple(np.array(part).T)] = found
    return out


def repeated_text(vlm: Vlm, rng: np.random.Generator, period: int) -> tuple[NDArray[np.int64], int]:
    """Ids of ``period`` random ordinary tokens, twice, after the token that begins every text; and where they start."""
    tokenizer = vlm.adapter.tokenizer
    special = set(tokenizer.all_special_ids) | {vlm.adapter.image_token_id} | set(tokenizer.added_tokens_decoder)
    known = min(len(tokenizer), vlm.model.get_input_embeddings().weight.shape[0])
    ordinary = np.array([n for n in range(known) if n not in special])
    drawn = rng.choice(ordinary, size=period, replace=len(ordinary) < period)
    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    return np.array([*begin, *drawn, *drawn], dtype=np.int64), len(begin)


def text_attention(vlm: Vlm, ids: NDArray[np.int64]) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Layers, and attention (L, H, N, N) of a text alone.

    Raises:
        UnsupportedModel: the model does not run without a picture.
    """
    import torch

    spec = CaptureSpec(rows="prompt", columns="all", dtype="float32", top_k=0)
    given = torch.from_numpy(ids)[None].to(vlm.device)
    try:
        with vlm.alone(), Session(vlm.model, [plain_layout(ids)], spec) as session, torch.no_grad():
            vlm.model(input_ids=given, attention_mask=torch.ones_like(given), use_cache=False)
        kept = session.finish()[0]
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UnsupportedModel(f"{vlm.name!r} does not run without a picture: {str(error)[:200]}") from error
    return kept.layers, kept.attn_lhqk.double().cpu().numpy()


def mean_outputs(passes: Sequence[Passed]) -> Arrays:
    """(H, D_v) by layer: the mean of head outputs over all rows of several passes."""
    total: dict[int, NDArray[np.float64]] = {}
    count: dict[int, int] = {}
    for one in passes:
        for layer, values in one.outputs.items():
            total[layer] = total.get(layer, np.zeros(1)) + values.sum(axis=0, dtype=np.float64)
            count[layer] = count.get(layer, 0) + len(values)
    return {layer: (value / count[layer]).astype(np.float32) for layer, value in total.items()}
