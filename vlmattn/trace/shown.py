"""What notebooks show of a trace: what was kept, and where attention went, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmattn.display import bar, facts, html_table, panel

if TYPE_CHECKING:
    from vlmattn.trace.trace import Trace


def trace_html(trace: Trace) -> str:
    """Axes and size, and the mean attention on every segment by layer."""
    layers, heads, rows, columns = trace.attn_lhqk.shape
    also = ("value_norm_lhk", "head_norm_lhq", "hidden", "scores", "vision", "received_lhn", "visible_lqk")
    told = {
        "question": trace.question,
        "answer": trace.answer,
        "attn_lhqk": f"{layers} layers x {heads} heads x {rows} rows x {columns} image tokens, {trace.attn_lhqk.dtype}",
        "kept": f"{trace.nbytes / 2**20:.1f} MiB of rows and masses",
        "also kept": ", ".join(name for name in also if getattr(trace, name) is not None),
        "convention": trace.provenance.convention,
    }
    parts = [facts(told)]
    if rows and layers:
        means = np.stack([_mean(block) for block in trace.mass_lhqs])
        lines = [[layer, *(bar(float(v)) for v in line)] for layer, line in zip(trace.layers, means, strict=True)]
        parts.append(html_table(("layer", *trace.segments), lines))
    return panel("trace", *parts, note=trace.provenance.summary())


def _mean(mass_hqs: np.ndarray) -> np.ndarray:
    # Lines of heads that are not there, and rows that the model never read, are NaN.
    known = mass_hqs.reshape(-1, mass_hqs.shape[-1])
    known = known[np.isfinite(known).all(axis=-1)]
    return known.mean(axis=0) if len(known) else np.full(mass_hqs.shape[-1], np.nan)
