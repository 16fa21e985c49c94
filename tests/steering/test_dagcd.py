"""DAGCD against whole matrices of an eager copy, token by token; its detector against planted words."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.steering.plain_contrast import DECODING, QUESTIONS, Plain, alone, encoded_of, log_p, no_pictures, vlm_of
from vlmattn.capture import Session
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind
from vlmattn.steering import DAGCD, fit_dagcd

FAMILIES = ("llava", "llava_next", "qwen2_vl", "gemma3")
HEADS, WEIGHTS, BIAS = ((0, 1), (2, 0), (2, 3)), (3.0, 5.0, -1.0), -0.2


def rule_of(vlm: va.Vlm, alpha: float, top: int) -> Any:
    model = copy.deepcopy(vlm.model)
    model.set_attn_implementation("eager")
    clean, layouts = [alone(vlm, n) for n in range(2)], encoded_of(vlm, *QUESTIONS).layouts

    def rule(number: int, written: torch.Tensor) -> torch.Tensor:
        given, width = dict(clean[number]), clean[number]["input_ids"].shape[1]
        for name, value in clean[number].items():
            if tuple(value.shape) == (1, width):
                tail = value.new_full((1, len(written)), name == "attention_mask")
                given[name] = torch.cat([value, written[None] if name == "input_ids" else tail], 1)
        with torch.no_grad():
            out = model(**given, use_cache=False, output_attentions=True)
        p = log_p(out.logits[0, -1].float()).exp().tolist()
        asked = [n for n, kind in enumerate(layouts[number].kinds) if kind == TokenKind.QUESTION]
        marks: dict[int, float] = {}
        for (layer, head), weight in zip(HEADS, WEIGHTS, strict=True):
            row = [float(v) for v in out.attentions[layer][0, head, -1]]
            total = sum(row[j] for j in asked)
            by_id: dict[int, list[float]] = {}
            for j in asked:
                by_id.setdefault(int(layouts[number].input_ids[j]), []).append(row[j] / total if total else 0.0)
            for word, shares in by_id.items():
                marks[word] = marks.get(word, 0.0) + weight * sum(shares) / len(shares)
        used = {w: m for w, m in marks.items() if m + BIAS > 0 and m > 0 and sum(q > p[w] for q in p) < top}
        entropy = -sum(q * math.log(q) for q in p if q) / math.log(len(p))
        for word, mark in used.items():
            p[word] += alpha * entropy * mark / sum(used.values())
        return log_p(torch.tensor(p).double().log())

    return rule


@pytest.mark.parametrize("decoding", DECODING)
@pytest.mark.parametrize("family", FAMILIES)
def test_dagcd(family: str, decoding: str) -> None:
    vlm = vlm_of(family)
    encoded = encoded_of(vlm, *QUESTIONS)
    how = DECODING[decoding] | {"max_new_tokens": 4, "output_scores": True, "return_dict_in_generate": True}
    how |= {"pad_token_id": 0, "eos_token_id": None}
    method = DAGCD(heads=HEADS, weights=WEIGHTS, bias=BIAS, alpha=2.0, top_rank=60).for_model(vlm)
    copies = max(how.get("num_beams", 1), how.get("num_return_sequences", 1))
    found = []
    for mine in (True, False):
        torch.manual_seed(0)
        plain = Plain(rule_of(vlm, 2.0, 60), encoded.inputs["input_ids"].shape[1], copies)
        session = Session(vlm.model, encoded.layouts, None, [method], pad_left=encoded.pad_left)
        with method.writing(vlm.model, encoded, how) as processor, session, torch.no_grad():
            both = [processor if mine else plain, no_pictures(vlm)]
            found.append(vlm.model.generate(**encoded.inputs, **how, logits_processor=both))
    assert torch.equal(found[0].sequences, found[1].sequences)
    for a, b in zip(found[0].scores, found[1].scores, strict=True):
        assert (a - b)[b.isfinite()].abs().max() < 1e-5 * max(1, float(b[b.isfinite()].abs().max()))
    before = vlm.model.generate(**encoded.inputs, **how)
    moved = (found[0].scores[0].exp() - before.scores[0].log_softmax(-1).exp()).abs().max()
    assert moved > 1e-4, "nothing was changed"


def test_the_detector_finds_the_heads_that_tell_used_words() -> None:
    rng = np.random.default_rng(0)
    used = rng.random(400) < 0.3
    ratios = rng.random((400, 3, 4)) * 0.2
    ratios[used, 1, 2] += 0.3
    ratios[used, 2, 0] += 0.3
    method = fit_dagcd(ratios, used, (0, 2, 5), heads=2)
    assert set(method.heads) == {(2, 2), (5, 0)}
    assert min(method.weights) > 0
    with pytest.raises(SpecError, match="words that were not"):
        fit_dagcd(ratios, np.ones(400), (0, 2, 5), heads=2)


def test_no_strength_is_the_plain_answer_and_missing_heads_are_refused() -> None:
    vlm = vlm_of("llava")
    picture = encoded_of(vlm, "Who?").images[0][0]
    plain = vlm.ask(picture, "Who?", max_new_tokens=3)
    run = vlm.ask(picture, "Who?", max_new_tokens=3, steering=[DAGCD(heads=((0, 1),), weights=(1.0,), alpha=0.0)])
    assert np.array_equal(run.trace.attn_lhqk, plain.trace.attn_lhqk)
    with pytest.raises(SpecError, match="head 9"):
        vlm.ask(picture, "Who?", steering=[DAGCD(heads=((0, 9),), weights=(1.0,))])
