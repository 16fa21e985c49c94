"""Methods of two runs against whole passes without cache and padding, at every step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.steering.plain_contrast import (
    FAMILIES,
    QUESTIONS,
    alone,
    check_same,
    cut,
    encoded_of,
    log_p,
    vlm_of,
    whole_logits,
)
from vlmattn.core.layout import TokenKind
from vlmattn.steering import ICD, M3ID, VCD, PAIContrast
from vlmattn.steering.vcd import noisy, signal_left


def vcd_rule(vlm: Any, alpha: float, beta: float, step: int) -> Any:
    clean = [alone(vlm, n) for n in range(2)]
    whole = encoded_of(vlm, *QUESTIONS)

    def noise(number: int) -> dict[str, Any]:
        given, pixels = dict(clean[number]), clean[number]["pixel_values"]
        if pixels.ndim == 2:  # rows of patches, drawn together
            every = noisy(whole.inputs["pixel_values"], step, 0)
            rows = len(pixels)
            return given | {"pixel_values": every[rows * number : rows * (number + 1)]}
        return given | {"pixel_values": noisy(pixels, step, 0)}

    def rule(number: int, written: torch.Tensor) -> torch.Tensor:
        p = log_p(whole_logits(vlm, clean[number], written))
        q = log_p(whole_logits(vlm, noise(number), written))
        return cut((1 + alpha) * p - alpha * q, p, beta)

    return rule


def pai_rule(vlm: Any, gamma: float, beta: float) -> Any:
    clean = [alone(vlm, n) for n in range(2)]

    def rule(number: int, written: torch.Tensor) -> torch.Tensor:
        p = log_p(whole_logits(vlm, clean[number], written))
        u = log_p(whole_logits(vlm, text_alone(vlm, clean, number), written))
        return cut(gamma * (p - u) + u, p, beta)

    return rule


def text_alone(vlm: Any, clean: list[dict[str, Any]], number: int) -> dict[str, Any]:
    kinds = encoded_of(vlm, *QUESTIONS).layouts[number].kinds
    left = [n for n, kind in enumerate(kinds) if kind not in (TokenKind.IMAGE, TokenKind.SEPARATOR)]
    kept = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
    return {name: value[:, left] for name, value in clean[number].items() if name in kept}


def m3id_rule(vlm: Any, forgetting: float, theta: float) -> Any:
    clean = [alone(vlm, n) for n in range(2)]

    def rule(number: int, written: torch.Tensor) -> torch.Tensor:
        p = log_p(whole_logits(vlm, clean[number], written))
        u = log_p(whole_logits(vlm, text_alone(vlm, clean, number), written))
        left = math.exp(-forgetting * (len(written) + 1))
        return log_p(p + (1 - left) / left * (p - u)) if float(p.exp().max()) < theta else p

    return rule


def icd_rule(vlm: Any, alpha: float, beta: float) -> Any:
    clean = [alone(vlm, n) for n in range(2)]
    longer = [alone(vlm, n, tuple(f"You are confused. {q}" for q in QUESTIONS)) for n in range(2)]

    def rule(number: int, written: torch.Tensor) -> torch.Tensor:
        p = log_p(whole_logits(vlm, clean[number], written))
        d = log_p(whole_logits(vlm, longer[number], written))
        return cut((1 + alpha) * p - alpha * d, p, beta)

    return rule


@pytest.mark.parametrize("decoding", ["greedy", "beams", "samples"])
@pytest.mark.parametrize("family", FAMILIES)
def test_m3id(family: str, decoding: str) -> None:
    vlm = vlm_of(family)
    check_same(vlm, M3ID(forgetting=0.3, theta=0.9), m3id_rule(vlm, 0.3, 0.9), decoding)


@pytest.mark.parametrize("decoding", ["greedy", "beams", "samples"])
@pytest.mark.parametrize("family", FAMILIES)
def test_icd(family: str, decoding: str) -> None:
    # Every byte is a token of these models, so words put before the question are tokens put before it.
    vlm = vlm_of(family)
    method = ICD(alpha=0.7, beta=0.05, disturbance="You are confused. ").for_model(vlm)
    check_same(vlm, method, icd_rule(vlm, 0.7, 0.05), decoding)


@pytest.mark.parametrize("decoding", ["greedy", "beams", "samples"])
@pytest.mark.parametrize("family", FAMILIES)
def test_vcd(family: str, decoding: str) -> None:
    vlm = vlm_of(family)
    check_same(vlm, VCD(alpha=0.7, beta=0.05, noise_step=700), vcd_rule(vlm, 0.7, 0.05, 700), decoding)


@pytest.mark.parametrize("decoding", ["greedy", "beams", "samples"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pai_contrast(family: str, decoding: str) -> None:
    vlm = vlm_of(family)
    check_same(vlm, PAIContrast(gamma=1.8, beta=0.05), pai_rule(vlm, 1.8, 0.05), decoding)


def test_the_diffusion_is_the_papers() -> None:
    rates = [1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-(-6 + 12 * n / 999))) for n in range(1000)]
    left = 1.0
    for rate in rates[:501]:
        left *= 1 - rate
    assert signal_left(500) == pytest.approx(left, rel=1e-12)
    pixels = torch.ones(2, 3, 64, 64)
    drawn = noisy(pixels, 500, 3)
    assert torch.equal(drawn[0], drawn[1])
    assert float(drawn.mean()) == pytest.approx(left**0.5, abs=0.02)
    assert float(drawn.std()) == pytest.approx((1 - left) ** 0.5, rel=0.03)


def test_what_a_model_remembers_of_its_prompt_is_not_that_of_the_branch() -> None:
    vlm = vlm_of("qwen2_vl")
    encoded = encoded_of(vlm, *QUESTIONS)
    with torch.no_grad():
        vlm.model(**encoded.inputs)
    before = vlm.model.model.rope_deltas.clone()
    assert before.any()
    with PAIContrast().writing(vlm.model, encoded) as processor:
        processor(encoded.inputs["input_ids"], torch.zeros(2, vlm.model.lm_head.weight.shape[0]))
    assert torch.equal(vlm.model.model.rope_deltas, before)
