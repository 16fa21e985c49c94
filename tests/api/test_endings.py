"""Which written tokens are the answer, and which rows stand for them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from transformers import GenerationConfig

import vlmattn as va
from tests.tiny_models import build, tiny
from vlmattn.core.errors import MapError, SpecError

QUESTIONS = ("Is the red cup left of the red spoon?", "Why?")


@lru_cache(maxsize=1)
def vlm() -> va.Vlm:
    return va.load(*tiny("llava"))


def settings(**options: Any) -> dict[str, Any]:
    """Six tokens, letters only."""
    tokenizer = vlm().adapter.tokenizer
    letters = set(tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz")))
    return {"max_new_tokens": 6, "suppress_tokens": [t for t in range(len(tokenizer)) if t not in letters]} | options


def tokens(run: va.Run) -> list[int]:
    return run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()


@lru_cache(maxsize=1)
def free() -> list[list[int]]:
    """What the model writes for each question when nothing ends it."""
    return [tokens(vlm().ask(data.coffee(), q, **settings())) for q in QUESTIONS]


@pytest.mark.parametrize("how", ["option", "list", "config", "config and option", "none"])
def test_an_answer_ends_at_the_end_token_that_was_asked_for(how: str) -> None:
    first, second = free()
    end = first[1]
    given: dict[str, Any] = {
        "option": {"eos_token_id": end},
        "list": {"eos_token_id": [end, first[2]]},
        "config": {"generation_config": GenerationConfig(eos_token_id=end)},
        "config and option": {"generation_config": GenerationConfig(eos_token_id=first[3]), "eos_token_id": end},
        "none": {"eos_token_id": None},
    }[how]
    runs = vlm().ask_many([(data.coffee(), q) for q in QUESTIONS], **settings(**given))
    ends = [] if how == "none" else [end, first[2]] if how == "list" else [end]
    for run, free_tokens in zip(runs, (first, second), strict=True):
        hits = [i for i, t in enumerate(free_tokens) if t in ends]
        assert tokens(run) == free_tokens[: hits[0] + 1 if hits else None]
        kept = run.trace.positions[run.trace.positions >= run.trace.layout.answer_start - 1]
        assert len(kept) == len(tokens(run))


def test_an_answer_ends_with_its_stop_string() -> None:
    first, second = free()
    tokenizer = vlm().adapter.tokenizer
    stop = first[1]
    runs = vlm().ask_many([(data.coffee(), q) for q in QUESTIONS], **settings(stop_strings=[tokenizer.decode([stop])]))
    for run, free_tokens in zip(runs, (first, second), strict=True):
        hits = [i for i, t in enumerate(free_tokens) if t == stop]
        assert tokens(run) == free_tokens[: hits[0] + 1 if hits else None]


def test_a_given_generation_config_decides_about_sampling() -> None:
    config = GenerationConfig(do_sample=True, temperature=5.0)
    one, other = (vlm().ask(data.coffee(), "Why?", **settings(generation_config=config, seed=s)) for s in (1, 2))
    assert tokens(one) != tokens(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_return_sequences": 2, "do_sample": True}, "several answers to one question"),
        ({"generation_config": GenerationConfig(num_return_sequences=3, do_sample=True)}, "num_return_sequences=3"),
        ({"stopping_criteria": [lambda *_: False]}, "ask one question at a time"),
    ],
)
def test_what_would_lose_answers_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        vlm().ask_many([(data.coffee(), q) for q in QUESTIONS], **options)


# -- conventions -------------------------------------------------------------------------------------------------------


def captured(convention: Any, **options: Any) -> va.Run:
    spec = va.CaptureSpec(rows=("question", "answer"), convention=convention, dtype="float32")
    return vlm().ask(data.coffee(), QUESTIONS[0], capture=spec, **options)


@pytest.mark.parametrize(("convention", "shift"), [("query", 0), ("predicting", 1)])
@pytest.mark.parametrize("what", ["cup", 1])
def test_maps_follow_the_convention_of_the_capture(convention: str, shift: int, what: Any) -> None:
    run = captured(convention, **settings())
    got = run.map(what).patch_map
    assert got.provenance.convention == convention
    token = np.array(run.trace.find(what).tokens) - shift
    rows = np.searchsorted(run.trace.positions, token)
    by_hand = run.trace.attn_lhqk[:, :, rows].mean(axis=(0, 1, 2))
    assert np.allclose(got.values[0].ravel(), by_hand)


def test_the_last_written_token_has_no_query_row_and_says_so() -> None:
    run = captured("query", **settings())
    with pytest.raises(MapError, match="the last written token has no query row: the model wrote it and did not read"):
        run.map(-1)
    whole = run.map().patch_map.provenance
    assert "without the last written token, which has no query row" in whole.steps[-1]
    assert run.map(-1, convention="predicting").patch_map.total > 0
    given = captured("query", answer=tokens(run))
    assert given.map(-1).patch_map.total > 0
    assert "without" not in given.map().patch_map.provenance.steps[-1]


def test_grounding_of_a_word_that_was_never_read_is_not_known() -> None:
    run = captured("query", **settings(max_new_tokens=1))
    words = run.grounding()
    assert len(words) == 1
    assert all(np.isnan(w.image_share) and w.peak_xy is None for w in words)
    assert all(w["image_share"] is None for w in run.to_dict()["words"])


# -- verify ------------------------------------------------------------------------------------------------------------


def test_verify_fails_on_rows_that_are_not_those_of_eager_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from vlmattn.api import verify

    class Wrong(va.capture.Session):
        def finish(self, *args: Any, **kwargs: Any) -> Any:
            return tuple(replace(k, attn_lhqk=k.attn_lhqk + 1e-3) for k in super().finish(*args, **kwargs))

    assert vlm().verify().passed
    monkeypatch.setattr(verify, "Session", Wrong)
    with pytest.raises(va.errors.VerificationFailed, match=r"within 1\.0e-03, which is .* times what rounding"):
        vlm().verify()
    assert vlm().verify(eager=False).passed


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([NAN, 2.0], [NAN, 2.0], 0.0),
        ([NAN, 2.0], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([-INF, 2.0], [-INF, 2.0], 0.0),
        ([-INF, 2.0], [3.0, 2.0], INF),
        ([-INF, 2.0], [INF, 2.0], INF),
    ],
)
def test_differences_count_what_is_no_number(one: list[float], other: list[float], expected: float) -> None:
    from vlmattn.api.verify import _logit_difference

    assert _logit_difference((torch.tensor([one]),), (torch.tensor([other]),)) == expected


def test_verify_covers_what_can_be_seen_and_names_what_cannot() -> None:
    model, processor = build("llava")
    layer = model.model.language_model.layers[1]

    class OwnAttention(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.v_proj, self.o_proj = inner.v_proj, inner.o_proj

        def forward(self, hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
            wide = self.v_proj(hidden_states).repeat(1, 1, 2)
            return self.o_proj(wide), None

    layer.self_attn = OwnAttention(layer.self_attn)
    result = va.load(model, processor).verify()
    assert result.covered_layers == (0, 2)
    assert result.bypassing == ("layers.1.self_attn",)
    assert "2 attention layers covered" in str(result)
    assert "not covered: layers.1.self_attn" in str(result)
