"""Model types that take pictures and still cannot be served, and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_WHOLE = (
    "it is a whole with a part that speaks, and the part that reads pictures is its thinker: load it with its own "
    "class, and give load(model.thinker, processor)"
)
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "aria": "its image tokens are learned queries that look at the whole picture: they have no place on a grid",
        "blip": "its text decoder computes attention past transformers' dispatch, where it cannot be seen",
        "diffusion_gemma": "it writes blocks of tokens at once by repeated denoising, so no attention row predicts a "
        "single token",
        "evolla": "it reads proteins, not pictures",
        "git": "its decoder computes attention past transformers' dispatch, where it cannot be seen, and its pictures "
        "have no place in the prompt",
        "inkling2_loop": "its middle layers run three times per pass, so a layer has several attention matrices, while "
        "rows are kept by layer",
        "mistral4": "it is a text-only model: it takes no pictures",
        "pi0": "it makes a robot's movements, not text: there is no answer whose words could be followed",
        "qwen2_5_omni": _WHOLE,
        "qwen3_omni_moe": _WHOLE,
        "t5gemma2": "it is an encoder-decoder model: its decoder looks at the encoder's output, not at image tokens",
    }
)
