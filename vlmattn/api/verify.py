"""Proof that capture leaves a model alone: the same question with and without it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmattn.adapters.seq2seq import writes_apart
from vlmattn.api.request import Request
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.capture.rounding import ScoreRounding, ScoreWatch, watched
from vlmattn.core.errors import SpecError, VerificationFailed
from vlmattn.display import Told

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm


@dataclass(frozen=True)
class Verification(Told):
    """Outcome of :func:`verify`.

    Attributes:
        same_tokens: whether both runs wrote the same tokens.
        largest_logit_difference: over all steps; 0.0 means bit-identical.
        tolerance: what was allowed.
        covered_layers: layers whose rows were kept. bypassing: attention modules that the engine cannot see.
        row_error: largest difference of a kept probability to eager attention on this prompt; None if that was not run.
        row_tolerance: how much the rounding of both explains, at the place where the difference comes closest to it.
        row_share: the difference there as a share of that; over 1 fails.
        score_size: largest sum of absolute terms that a score was made of. head_size: how many terms. With the type of
            the eager run they decide what is allowed; see :mod:`vlmattn.capture.rounding`.
    """

    same_tokens: bool
    largest_logit_difference: float
    tolerance: float
    tokens: int
    covered_layers: tuple[int, ...]
    bypassing: tuple[str, ...]
    row_error: float | None
    row_tolerance: float = 0.0
    row_share: float = 0.0
    score_size: float = 0.0
    head_size: int = 0

    @property
    def passed(self) -> bool:
        """Whether capture left tokens and logits alone, and its rows equal eager attention where that was run."""
        rows = self.row_error is None or self.row_share <= 1
        return self.same_tokens and self.largest_logit_difference <= self.tolerance and rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.__dict__, "passed": self.passed}

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        logits = (
            "bit-identical logits"
            if self.largest_logit_difference == 0
            else (f"logits within {self.largest_logit_difference:.2g}")
        )
        return (
            f"{verdict}: {self.tokens} tokens {'the same' if self.same_tokens else 'DIFFER'}, {logits}; "
            f"{len(self.covered_layers)} attention layers covered{self._rows_told()}"
            + (f"; not covered: {', '.join(self.bypassing)}" if self.bypassing else "")
        )

    def _rows_told(self) -> str:
        if self.row_error is None:
            return ""
        told = f"; rows equal eager attention within {self.row_error:.1e}"
        cause = f"scores of {self.head_size} terms that sum up to {self.score_size:.3g}"
        if not self.row_share <= 1:
            return f"{told}, which is {self.row_share:.3g} times what rounding explains ({cause})"
        return f"{told}, {self.row_share:.1%} of what rounding explains ({cause})"


def verify(
    vlm: Vlm,
    image: Any = None,
    question: str = "What is in the picture?",
    *,
    max_new_tokens: int = 8,
    tolerance: float = 0.0,
    eager: bool = True,
) -> Verification:
    """Run the same question with and without capture, and compare tokens and logits; optionally rows with eager.

    Args:
        image: default: a small picture made for the purpose.
        tolerance: largest allowed difference of any logit; the default asks for bit-identical ones.
        eager: also compare the kept rows of the prompt with eager attention (one more pass, N × N per layer). Left
            out for models that cannot switch to it.

    Raises:
        SpecError: a tolerance below 0. VerificationFailed: tokens differ, logits by more than ``tolerance``, or rows
            from eager attention by more than rounding explains.
    """
    import torch

    if not tolerance >= 0:
        raise SpecError(f"tolerance must be 0 or more, got {tolerance}")
    picture = vlm._pictures(image if image is not None else _test_picture())
    encoded = vlm.encode([picture], [question])
    request = Request(((picture, question),), max_new_tokens=max_new_tokens)
    settings = vlm._settings(request) | {"output_logits": True}
    with torch.no_grad():
        plain = vlm.model.generate(**encoded.inputs, **settings)
        sites = model_sites(vlm.model)
        spec = CaptureSpec(rows=("prompt", "answer"), layers=sites.layers, columns="all", dtype="float32", budget=0.5)
        session = Session(vlm.model, encoded.layouts, spec, pad_left=encoded.pad_left, max_new_tokens=max_new_tokens)
        watch = ScoreWatch()
        with session, watched(watch, sites.attention if eager else ()):
            seen = vlm.model.generate(**encoded.inputs, **settings)
        kept = session.finish(sequences=seen.sequences)[0]
        rows = _compared(vlm, encoded, kept, watch) if eager else None
    same = bool(torch.equal(plain.sequences, seen.sequences))
    result = Verification(
        same_tokens=same,
        largest_logit_difference=_logit_difference(plain.logits, seen.logits),
        tolerance=tolerance,
        tokens=int(seen.sequences.shape[1] - (encoded.layouts[0].answer_start - encoded.layouts[0].memory)),
        covered_layers=kept.layers,
        bypassing=sites.bypassing,
        **(rows or {"row_error": None}),
    )
    if not result.passed:
        raise VerificationFailed(f"{vlm.name}: {result}")
    return result


def _logit_difference(plain: Any, seen: Any) -> float:
    if len(plain) != len(seen):
        return float("inf")
    return max((_difference(a.float(), b.float()) for a, b in zip(plain, seen, strict=True)), default=0.0)


def _difference(one: Any, other: Any) -> float:
    return float(_apart(one, other).max())


def _apart(one: Any, other: Any) -> Any:
    """Absolute differences; equal values, NaN and infinities too, differ by 0, NaN from a number infinitely."""
    same = (one == other) | (one.isnan() & other.isnan())
    infinite = float("inf")
    apart = (one - other).abs().nan_to_num(infinite, posinf=infinite)
    return apart.masked_fill(same, 0.0)


def _compared(vlm: Vlm, encoded: Any, kept: Any, watch: ScoreWatch) -> dict[str, Any] | None:
    """What :class:`Verification` says of rows; None if eager attention cannot run the same, or is not handed out."""
    sites = model_sites(vlm.model).attention
    attentions, beside = _eager_attention(vlm, encoded, watch)
    if not attentions or len(attentions) < len(kept.layers):
        return None
    rows = kept.positions < encoded.layouts[0].answer_start
    full = [a for a in attentions if a is not None]
    by_layer = full if len(full) == len(kept.layers) else [full[layer] for layer in kept.layers]
    by_layer = [beside.get(layer, own) for layer, own in zip(kept.layers, by_layer, strict=True)]
    wanted = kept.positions[rows] - kept.layout.memory
    modules = {site.layer_idx: id(site.module) for site in sites}
    if any(modules[layer] not in watch.found for layer in kept.layers):
        return None  # the eager pass did not run the same rows
    bounds = [watch.found[modules[layer]] for layer in kept.layers]
    found = [
        _worst(one[0].float().cpu()[:, wanted], _own_keys(kept, slot)[:, rows], bounds[slot], wanted)
        for slot, one in enumerate(by_layer)
    ]
    share, tolerance = max((share, allowed) for _, share, allowed in found)
    largest = max(bounds, key=lambda bound: bound.size)
    return {
        "row_error": max(error for error, _, _ in found),
        "row_tolerance": tolerance,
        "row_share": share,
        "score_size": largest.size,
        "head_size": largest.head_size,
    }


def _eager_attention(vlm: Vlm, encoded: Any, watch: ScoreWatch) -> tuple[Any, dict[int, Any]]:
    """Eager attention by layer as the model hands it out, and that of cross attention modules, by layer, of a decoder.

    Some models hand out self attention alone.
    """
    sites = model_sites(vlm.model).attention
    config: Any = sites[0].module.config
    before, beside = config._attn_implementation, dict[int, Any]()
    apart = writes_apart(vlm.model.config)
    crossing = [] if apart else [site for site in sites if site.kind == "cross"]
    handles = [site.module.register_forward_hook(_weights_into(beside, site.layer_idx)) for site in crossing]
    watch.next_run()
    try:
        config._attn_implementation = "eager"
        with watched(watch, sites), _without_advice():
            output = vlm.model(**encoded.inputs, output_attentions=True, use_cache=False)
    except (ValueError, NotImplementedError, RuntimeError):
        return None, {}
    finally:
        config._attn_implementation = before
        for handle in handles:
            handle.remove()
    # Some families hand out what their language model says as it is; of an encoder-decoder, cross attention is kept.
    told = getattr(output, "language_model_outputs", output)
    return getattr(told, "cross_attentions", None) or getattr(told, "attentions", None), beside


@contextmanager
def _without_advice() -> Iterator[None]:
    # Vision towers stay on their own kernel, which tells users that it hands out no attention: it is not asked to.
    log = logging.getLogger("transformers.integrations.sdpa_attention")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _weights_into(found: dict[int, Any], layer: int) -> Any:
    def keep(_module: Any, _args: Any, output: Any) -> None:
        if isinstance(output, tuple) and len(output) > 1 and getattr(output[1], "ndim", 0) == 4:
            found[layer] = output[1]

    return keep


def _worst(eager: Any, kept: Any, bound: ScoreRounding, queries: Any) -> tuple[float, float, float]:
    """Largest difference of two (H, Q, K); the largest as a share of what is allowed in its place; what is allowed."""
    import torch

    allowed = bound.allowed(kept, torch.as_tensor(queries))
    apart = _apart(eager, kept)
    shares = (apart / allowed).nan_to_num(float("inf"))
    place = int(shares.argmax())
    return float(apart.max()), float(shares.flatten()[place]), float(allowed.flatten()[place])


def _own_keys(kept: Any, slot: int) -> Any:
    """Kept rows (H, Q, keys) of one layer on the keys that it has itself: those beside the tokens, or the tokens."""
    rows, layout = kept.attn_lhqk[slot].float().cpu(), kept.layout
    if not layout.beside or kept.layers[slot] in kept.blind:
        return rows[..., layout.memory :]
    return rows[..., layout.resampled : layout.memory]


def _test_picture() -> Any:
    import numpy as np

    y, x = np.mgrid[0:180, 0:260]
    red, green, blue = x % 256, y % 256, (x + y) % 256
    pixels = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    pixels[60:120, 90:160] = (200, 30, 30)
    return pixels
