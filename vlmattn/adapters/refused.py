"""Model types that take pictures and still cannot be served, and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_PAST = "computes attention past transformers' dispatch, in a softmax of its own, so its rows cannot be seen"
_WHOLE = (
    "it is a whole with a part that speaks, and the part that reads pictures is its thinker: load it with its own "
    "class, and give load(model.thinker, processor)"
)
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "aria": "its projector attends in torch.nn.MultiheadAttention, past transformers' dispatch, so what its "
        "queries see is hidden",
        "blip": f"its text decoder {_PAST}",
        "deepseek_ocr2": "its queries and patches attend to each other in every layer of one stack: no single hop",
        "diffusion_gemma": "it writes blocks of tokens at once by repeated denoising, so no attention row predicts a "
        "single token",
        "evolla": "it reads proteins, not pictures",
        "git": f"its decoder {_PAST}",
        "inkling2_loop": "its middle layers run three times per pass, so a layer has several attention matrices, while "
        "rows are kept by layer",
        "instructblipvideo": "it takes only videos of four frames, through a resampler: their hops are not declared",
        "mistral4": "it is a text-only model: it takes no pictures",
        "pi0": "it makes a robot's movements, not text: there is no answer whose words could be followed",
        "pix2struct": "its processor draws the question into the picture, in a font that it downloads, so where the "
        "picture itself lies is known only after that; it is not declared",
        "pp_formulanet": "it takes no question: it writes a formula from the picture alone",
        "qwen2_5_omni": _WHOLE,
        "qwen3_omni_moe": _WHOLE,
        "udop": "it needs the words of the page and their boxes besides the picture",
    }
)
