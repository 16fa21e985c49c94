"""Proof that capture leaves a model alone: the same question with and without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmattn.api.request import Request
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.core.errors import SpecError, VerificationFailed

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm


@dataclass(frozen=True)
class Verification:
    """Outcome of :func:`verify`.

    Attributes:
        same_tokens: whether both runs wrote the same tokens.
        largest_logit_difference: over all steps; 0.0 means bit-identical.
        tolerance: what was allowed.
        covered_layers: layers whose rows were kept. bypassing: attention modules that the engine cannot see.
        row_error: largest difference to eager attention in float32 on this prompt; None if eager was not run.
        row_tolerance: what was allowed of it: 1e-5 in float32, 2^-7 in shorter types, whose eager attention is rounded.
    """

    same_tokens: bool
    largest_logit_difference: float
    tolerance: float
    tokens: int
    covered_layers: tuple[int, ...]
    bypassing: tuple[str, ...]
    row_error: float | None
    row_tolerance: float = 1e-5

    @property
    def passed(self) -> bool:
        """Whether capture left tokens and logits alone, and its rows equal eager attention where that was run."""
        rows = self.row_error is None or self.row_error <= self.row_tolerance
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
        wrong = self.row_error is not None and not self.row_error <= self.row_tolerance
        rows = "" if self.row_error is None else f"; rows equal eager attention within {self.row_error:.1e}"
        rows += f", which is more than {self.row_tolerance:.1e}" if wrong else ""
        return (
            f"{verdict}: {self.tokens} tokens {'the same' if self.same_tokens else 'DIFFER'}, {logits}; "
            f"{len(self.covered_layers)} attention layers covered{rows}"
            + (f"; not covered: {', '.join(self.bypassing)}" if self.bypassing else "")
        )


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
        with session:
            seen = vlm.model.generate(**encoded.inputs, **settings)
        kept = session.finish(sequences=seen.sequences)[0]
        error = _row_error(vlm, encoded, kept) if eager else None
    same = bool(torch.equal(plain.sequences, seen.sequences))
    result = Verification(
        same_tokens=same,
        largest_logit_difference=_logit_difference(plain.logits, seen.logits),
        tolerance=tolerance,
        tokens=int(seen.sequences.shape[1] - (encoded.layouts[0].answer_start - encoded.layouts[0].memory)),
        covered_layers=kept.layers,
        bypassing=sites.bypassing,
        row_error=error,
        row_tolerance=1e-5 if vlm.dtype == torch.float32 else 2**-7,
    )
    if not result.passed:
        raise VerificationFailed(f"{vlm.name}: {result}")
    return result


def _logit_difference(plain: Any, seen: Any) -> float:
    if len(plain) != len(seen):
        return float("inf")
    return max((_difference(a.float(), b.float()) for a, b in zip(plain, seen, strict=True)), default=0.0)


def _difference(one: Any, other: Any) -> float:
    """Largest absolute difference; equal values, NaN and infinities too, differ by 0, NaN from a number infinitely."""
    same = (one == other) | (one.isnan() & other.isnan())
    infinite = float("inf")
    apart = (one - other).abs().nan_to_num(infinite, posinf=infinite)
    return float(apart.masked_fill(same, 0.0).max())


def _row_error(vlm: Vlm, encoded: Any, kept: Any) -> float | None:
    config: Any = model_sites(vlm.model).attention[0].module.config
    before = config._attn_implementation
    length = encoded.layouts[0].answer_start
    try:
        config._attn_implementation = "eager"
        output = vlm.model(**encoded.inputs, output_attentions=True, use_cache=False)
    except (ValueError, NotImplementedError, RuntimeError):
        return None
    finally:
        config._attn_implementation = before
    # Some families hand out what their language model says as it is; of an encoder-decoder, cross attention is kept.
    told = getattr(output, "language_model_outputs", output)
    attentions = getattr(told, "cross_attentions", None) or getattr(told, "attentions", None)
    if not attentions or len(attentions) < len(kept.layers):
        return None
    rows = kept.positions < length
    full = [a for a in attentions if a is not None]
    by_layer = full if len(full) == len(kept.layers) else [full[layer] for layer in kept.layers]
    wanted = kept.positions[rows] - kept.layout.memory
    return max(
        _difference(one[0].float().cpu()[:, wanted], _own_keys(kept, slot)[:, rows])
        for slot, one in enumerate(by_layer)
    )


def _own_keys(kept: Any, slot: int) -> Any:
    """Kept rows (H, Q, keys) of one layer on the keys that it has itself: those beside the tokens, or the tokens."""
    rows, memory = kept.attn_lhqk[slot].float().cpu(), kept.layout.memory
    tokens = kept.composed or kept.layers[slot] in kept.blind
    return rows[..., memory:] if tokens else rows[..., : memory or None]


def _test_picture() -> Any:
    import numpy as np

    y, x = np.mgrid[0:180, 0:260]
    red, green, blue = x % 256, y % 256, (x + y) % 256
    pixels = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    pixels[60:120, 90:160] = (200, 30, 30)
    return pixels
