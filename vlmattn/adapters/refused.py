"""Model types that take pictures and are not supported, each with the reason."""

from __future__ import annotations

_WHOLE = (
    "it is a whole with a part that speaks, and the part that reads pictures is its thinker: load it with its own "
    "class, and give load(model.thinker, processor)"
)

REFUSED: dict[str, str] = {"qwen2_5_omni": _WHOLE, "qwen3_omni_moe": _WHOLE}
