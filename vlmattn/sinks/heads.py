"""Image-centric heads: attention to the picture is large, and not mostly on sinks (Kang et al., ICLR 2025)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind
from vlmattn.sinks.found import Sinks
from vlmattn.sinks.removal import check_prompt
from vlmattn.trace import Trace


def image_centric_heads(trace: Trace, sinks: Sinks, *, least_mass: float = 0.2, rho: float = 0.5) -> NDArray[np.bool_]:
    """(L, H, Q): which kept heads look at pictures (at least ``least_mass`` of the row) and, of that, give at least
    ``rho`` to patches that are no sinks. Nothing is selected in layers without a visual sink.

    Raises:
        SpecError: shares outside 0 to 1. MapError: sinks of another prompt, or rows that are composed of two hops.
    """
    for name, value in (("least_mass", least_mass), ("rho", rho)):
        if not 0 <= value <= 1:
            raise SpecError(f"{name} must be a share, 0 to 1; got {value!r}")
    check_prompt(trace, sinks)
    picture = trace.layout.kinds[trace.columns] == TokenKind.IMAGE
    out = np.zeros(trace.attn_lhqk.shape[:3], dtype=np.bool_)
    for slot, layer in enumerate(trace.layers):
        hit = sinks.mask(layer, trace.columns) & picture
        if not hit.any():
            continue
        rows = np.nan_to_num(trace.attn_lhqk[slot].astype(np.float64))
        mass, taken = rows[..., picture].sum(axis=-1), rows[..., hit].sum(axis=-1)
        free = 1 - np.divide(taken, mass, out=np.ones_like(mass), where=mass > 0)
        out[slot] = (mass >= least_mass) & (free >= rho)
    return out
