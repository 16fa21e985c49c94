"""Contrast methods the plain way: whole prompts of one line, no cache, no padding, at every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

import vlmattn as va
from tests.tiny import TINY
from tests.tiny_models import FAMILIES as LLAVA_LIKE
from tests.tiny_models import build
from vlmattn.core.images import load_image

FAMILIES = ("llava", "llava_next", "qwen2_vl", "gemma3", "llava_onevision")
"""Grouped heads in all; a sliding window shorter than the prompt in gemma3; positions of its own in qwen2_vl."""
QUESTIONS = ("What is on the stove here?", "Who?")


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 60, 3), dtype=np.uint8))


def vlm_of(family: str) -> va.Vlm:
    model, processor = build(family) if family in LLAVA_LIKE else TINY[family]()
    with torch.no_grad():  # far from uniform next tokens
        model.get_output_embeddings().weight.mul_(3 if family == "gemma3" else 20)
    return va.Vlm(model, processor, name=family)


def encoded_of(vlm: va.Vlm, *questions: str) -> Any:
    return vlm.encode([(load_image(picture(n)),) for n in range(len(questions))], list(questions))


def whole_logits(vlm: va.Vlm, inputs: dict[str, Any], written: torch.Tensor) -> torch.Tensor:
    """(V,) of the token after one line, read whole."""
    given = dict(inputs)
    width = given["input_ids"].shape[1]
    for name, value in inputs.items():
        if name == "position_ids":
            given.pop(name)
        elif tuple(value.shape) == (1, width):
            tail = written[None] if name == "input_ids" else value.new_full((1, len(written)), name == "attention_mask")
            given[name] = torch.cat([value, tail.to(value.dtype)], dim=1)
    with torch.no_grad():
        return vlm.model(**given, use_cache=False).logits[0, -1].float()


def log_p(logits: torch.Tensor) -> torch.Tensor:
    return logits.double() - torch.logsumexp(logits.double(), -1)


def cut(new: torch.Tensor, p: torch.Tensor, beta: float) -> torch.Tensor:
    """Log-probabilities over tokens with p of at least beta times the best, token by token."""
    best = float(p.exp().max())
    out = torch.full_like(new, -torch.inf)
    for token in range(len(new)):
        if float(p[token].exp()) >= beta * best:
            out[token] = new[token]
    return log_p(out)


class Plain:
    """A logits processor that keeps nothing; ``rule`` says the new log-probabilities of (line, written ids)."""

    def __init__(self, rule: Any, prompt: int, copies: int) -> None:
        self.rule, self.prompt, self.copies = rule, prompt, copies

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.rule(row // self.copies, ids[row, self.prompt :]).float() for row in range(len(ids))])


def alone(vlm: va.Vlm, number: int, questions: tuple[str, ...] = QUESTIONS) -> dict[str, Any]:
    """Inputs of one question without its batch."""
    return dict(vlm.encode([(load_image(picture(number)),)], [questions[number]]).inputs)


DECODING: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    "samples": {"do_sample": True, "num_return_sequences": 2, "top_k": 0},
}


def both_ways(vlm: va.Vlm, method: Any, rule: Any, decoding: str, tokens: int = 5) -> tuple[Any, Any, Any]:
    """(with the method, with the plain processor, without) of a padded batch of two."""
    encoded = encoded_of(vlm, *QUESTIONS)
    assert len(set(encoded.pad_left)) == 2
    how = DECODING[decoding] | {"max_new_tokens": tokens, "output_scores": True, "return_dict_in_generate": True}
    how |= {"pad_token_id": 0, "eos_token_id": None}
    copies = max(how.get("num_beams", 1), how.get("num_return_sequences", 1))
    prompt = encoded.inputs["input_ids"].shape[1]
    outs = []
    for chosen in ("method", "plain", None):
        torch.manual_seed(0)
        with method.writing(vlm.model, encoded, how) as processor:
            given = {"method": processor, "plain": Plain(rule, prompt, copies), None: None}[chosen]
            both = [given, no_pictures(vlm)] if given else [no_pictures(vlm)]
            outs.append(vlm.model.generate(**encoded.inputs, **how, logits_processor=both))
    return tuple(outs)


def no_pictures(vlm: va.Vlm) -> Any:
    """A logits processor: a written image token would need a picture when the line is read whole."""
    banned = [n for n in vlm.adapter.tokenizer.added_tokens_decoder if n < vlm.model.lm_head.weight.shape[0]]

    def ban(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, banned] = -torch.inf
        nothing_left = ~scores.isfinite().any(-1)
        scores[nothing_left, : min(banned)] = 0.0
        return scores

    return ban


def check_same(vlm: va.Vlm, method: Any, rule: Any, decoding: str) -> None:
    """Scores and tokens are those of the plain processor, and not those without."""
    got, want, without = both_ways(vlm, method, rule, decoding)
    assert torch.equal(got.sequences, want.sequences)
    for a, b in zip(got.scores, want.scores, strict=True):
        assert torch.equal(a.isfinite(), b.isfinite())
        finite = a.isfinite()
        assert (a[finite] - b[finite]).abs().max() < 1e-5 * max(1, float(b[finite].abs().max()))
    first, other = got.scores[0].log_softmax(-1), without.scores[0].log_softmax(-1)
    assert (first - other)[first.isfinite()].abs().max() > 1e-3, "nothing was changed"
