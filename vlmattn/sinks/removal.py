"""Traces without their visual sinks, or with nothing but them: any map made of them is a map without, or of, sinks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import TokenKind
from vlmattn.sinks.found import Sinks
from vlmattn.trace import Trace

Keep = Literal["keep", "drop", "only"]
KEEPS = ("keep", "drop", "only")
_DROPPED = "visual sinks left out, other patches scaled up to the picture's share"


def with_sinks(trace: Trace, sinks: Sinks, how: Keep) -> Trace:
    """The trace with its visual sinks kept, dropped or alone, layer by layer.

    Args:
        how: ``keep`` changes nothing. ``drop`` sets the columns of visual sinks to 0 and multiplies the other image
            columns of the row, so that each picture keeps its share of the row (the share is then the picture's
            without sinks); a row that looks at nothing else in a picture becomes 0 there. ``only`` keeps the columns
            of visual sinks as they are and sets the others to 0.

    Where sinks took nearly all of a row, what is left of it in half precision is coarse, and may be nothing: capture
    with ``CaptureSpec(dtype="float32")`` then. Segment masses are left as they were. Text sinks have no place on a map,
    and ``sinks`` may be of either rule.

    Raises:
        SpecError: another ``how``. MapError: sinks of another prompt, or maps of a resampler's queries.

    Example:
        >>> import vlmattn as va                                                     # doctest: +SKIP
        >>> clean = va.sinks.with_sinks(run.trace, run.sinks(), "drop")              # doctest: +SKIP
        >>> va.maps.raw_attention(clean, "stove")                                    # doctest: +SKIP
    """
    if how not in KEEPS:
        raise SpecError(f"sinks must be one of {', '.join(KEEPS)}; got {how!r}")
    if how == "keep":
        return trace
    check_prompt(trace, sinks)
    columns, layout = trace.columns, trace.layout
    attn = trace.attn_lhqk.astype(np.float32)
    pictures = np.where(layout.kinds[columns] == TokenKind.IMAGE, layout.image[columns], -1)
    changed = 0
    for slot, layer in enumerate(trace.layers):
        hit = sinks.mask(layer, columns)
        for picture in range(len(layout.images)):
            mine = pictures == picture
            changed += int((hit & mine).sum())
            attn[slot][..., mine] = _edited(attn[slot][..., mine], hit[mine], how)
    what = "visual sinks alone" if how == "only" else _DROPPED if changed else "no visual sinks to leave out"
    provenance = trace.provenance.then(f"{what} ({sinks.said()})")
    return replace(trace, attn_lhqk=attn, provenance=provenance)


def _edited(rows: np.ndarray, hit: np.ndarray, how: Keep) -> np.ndarray:
    # (H, Q, K) attention on one picture.
    if how == "only":
        return np.where(hit, rows, 0)
    if not hit.any():
        return rows
    rest = np.where(hit, 0, rows.astype(np.float64))
    left = rest.sum(axis=-1, keepdims=True)
    whole = rows.sum(axis=-1, keepdims=True, dtype=np.float64)
    return np.asarray(rest * np.divide(whole, left, out=np.zeros_like(left), where=left > 0))


def check_prompt(trace: Trace, sinks: Sinks) -> None:
    """Raises MapError for sinks of another prompt, and where rows do not hold the columns of sinks."""
    if len(trace.layout.latent_positions):
        raise MapError(
            "the sinks of this model are queries of its resampler, and its rows are composed of two hops: they are no "
            "columns that could be taken out of a map or measured; run.sinks() tells which they are"
        )
    count = sinks.is_sink_ln.shape[1]
    same = count == trace.layout.answer_start
    if not same or not np.array_equal(sinks.layout.input_ids[:count], trace.layout.input_ids[:count]):
        raise MapError("these sinks belong to another prompt: take those of the same run")
