"""Model types of transformers' image-text-to-text mapping that are not supported, each with the reason."""

from __future__ import annotations

_PAST = "computes attention past transformers' dispatch, so its rows cannot be seen"

REFUSED: dict[str, str] = {
    "aria": "its projector attends in torch.nn.MultiheadAttention, so what its queries see is hidden",
    "blip": f"its text decoder {_PAST}",
    "deepseek_ocr2": "its queries and patches attend to each other in every layer of one stack: no single hop",
    "git": f"its decoder {_PAST}",
    "idefics": "it looks at a perceiver's latents by cross attention: two hops beside a prompt are not declared",
    "instructblipvideo": "it takes videos only",
    "pix2struct": "its processor draws the question into the picture; patches of that shape are not declared",
    "pp_formulanet": "it takes no question: it writes a formula from the picture alone",
    "udop": "it needs the words of the page and their boxes besides the picture",
    "vision-encoder-decoder": "it takes no question, and its type does not say which encoder makes its keys",
}
