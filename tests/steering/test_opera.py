"""OPERA against a search that reads every line whole, without a cache, with whole attention matrices."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import vlmattn as va
from tests.steering.plain_contrast import alone, log_p, picture, vlm_of
from vlmattn.core.errors import SpecError
from vlmattn.steering import OPERA, PAI

FAMILIES = ("llava", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llava_next", "qwen2_vl", "gemma3")))
SCALE = 5.0
QUESTION = "What is on the stove here?"


class Whole:
    """Logits and the last layer's rows of whole lines, from an eager copy."""

    def __init__(self, vlm: va.Vlm, scale: float = 50.0) -> None:
        self.scale = scale
        self.model = copy.deepcopy(vlm.model)
        self.model.set_attn_implementation("eager")
        self.inputs = alone(vlm, 0)
        self.prompt = self.inputs["input_ids"].shape[1]
        layout = vlm.encode([(va.core.images.load_image(picture(0)),)], [QUESTION]).layouts[0]
        self.image = [int(n) for n in layout.image_positions]
        self.steps_back = 0

    def read(self, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        given = dict(self.inputs)
        for name, value in self.inputs.items():
            if tuple(value.shape) == (1, self.prompt):
                tail = value.new_full((1, len(tokens)), name == "attention_mask")
                given[name] = torch.cat([value, value.new_tensor([tokens]) if name == "input_ids" else tail], 1)
        with torch.no_grad():
            out = self.model(**given, use_cache=False, output_attentions=True)
        return out.logits[0, -1].float(), out.attentions[-1][0].amax(0).double()

    def penalty(self, rows: torch.Tensor, count: int) -> tuple[float, int | None]:
        if count <= 10:
            return -float(rows[-1, self.image].sum() / rows[-1].sum()), None
        own = [[float(rows[self.prompt + i, self.prompt + j]) for j in range(i + 1)] for i in range(count)]
        own = [[v / sum(line) for v in line] if sum(line) else line for line in own]
        scores = []
        for j in range(count):
            product = 1e-7
            for i in range(j, count):
                product *= self.scale * own[i][j]
            scores.append(product)
        return max(scores), scores.index(max(scores))

    def search(self, most: int, width: int, k: int, weight: float, threshold: int) -> list[int]:
        live: list[dict[str, Any]] = [{"tokens": [], "score": 0.0, "places": []}]
        snapshots: list[Any] = []
        banned: dict[int, set[int]] = {}
        back: dict[int, int] = {}
        while len(live[0]["tokens"]) < most:
            at = len(live[0]["tokens"])
            snapshots = [*snapshots[:at], copy.deepcopy(live)]
            every = []
            for beam in live:
                logits = self.read(beam["tokens"])[0]
                for token in banned.get(at, ()):
                    logits[token] = -torch.inf
                best = logits.topk(k).indices.tolist()
                values, made = [], []
                for token in best:
                    tokens = [*beam["tokens"], token]
                    value, place = self.penalty(self.read(tokens)[1], len(tokens))
                    values.append(float(logits[token]) - weight * value)
                    made.append({"tokens": tokens, "places": beam["places"] + ([] if place is None else [place])})
                shares = log_p(torch.tensor(values, dtype=torch.float64))
                every += [one | {"score": beam["score"] + float(s)} for one, s in zip(made, shares, strict=True)]
            live = sorted(every, key=lambda one: -one["score"])[:width]
            common = [max(set(b["places"]), key=b["places"].count) if b["places"] else None for b in live]
            often = [b["places"].count(c) > threshold for b, c in zip(live, common, strict=True)]
            if all(often):
                place = min(c for c in common if c is not None) + 1
                if 10 < place < at + 1 and back.get(place, 0) < k:
                    back[place] = back.get(place, 0) + 1
                    banned.setdefault(place, set()).update(b["tokens"][place] for b in live)
                    live = copy.deepcopy(snapshots[place])
                    self.steps_back += 1
        return max(live, key=lambda one: one["score"] / len(one["tokens"]))["tokens"]


def no_end(vlm: va.Vlm) -> va.Vlm:
    vlm.model.generation_config.eos_token_id = None
    with torch.no_grad():
        for token in vlm.adapter.tokenizer.added_tokens_decoder:
            vlm.model.lm_head.weight[token] = vlm.model.lm_head.weight[:97].mean(0)
    return vlm


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_plain_search(family: str) -> None:
    vlm = no_end(vlm_of(family))
    plain = Whole(vlm)
    want = plain.search(16, 2, 2, 1.0, 2)
    method = OPERA(beams=2, candidates=2, threshold=2)
    run = vlm.ask(picture(0), QUESTION, steering=[method], max_new_tokens=16)
    assert run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist() == want
    greedy = vlm.ask(picture(0), QUESTION, max_new_tokens=16)
    assert greedy.trace.layout.input_ids[greedy.trace.layout.answer_start :].tolist() != want
    assert any("OPERA" in step for step in run.trace.provenance.steps)
    assert "generated" in run.trace.provenance.steps


@pytest.mark.slow
def test_a_search_that_goes_back_is_the_plain_one_too() -> None:
    vlm = no_end(vlm_of("llava"))
    plain = Whole(vlm, scale=SCALE)
    want = plain.search(18, 2, 2, 1.0, 1)
    method = OPERA(beams=2, candidates=2, scale=SCALE, threshold=1)
    run = vlm.ask(picture(0), QUESTION, steering=[method], max_new_tokens=18)
    assert run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist() == want
    assert plain.steps_back


def test_batches_are_searched_one_by_one_and_runs_over_items_agree() -> None:
    from vlmattn.api.answers import answers_of
    from vlmattn.api.request import Request

    vlm = vlm_of("llava")
    items = [(picture(0), QUESTION), (picture(1), "Who?")]
    method = OPERA(beams=2, candidates=2)
    both = vlm.ask_many(items, steering=[method], max_new_tokens=4)
    each = [vlm.ask(*item, steering=[method], max_new_tokens=4) for item in items]
    assert [run.answer for run in both] == [run.answer for run in each]
    told = answers_of(vlm, Request(tuple(items), steering=(method,), max_new_tokens=4))
    assert [one.text for one in told] == [run.answer for run in both]


def test_no_weight_leaves_decoding_to_generate() -> None:
    vlm = vlm_of("llava")
    plain = vlm.ask(picture(0), QUESTION, max_new_tokens=4)
    run = vlm.ask(picture(0), QUESTION, max_new_tokens=4, steering=[OPERA(weight=0)])
    assert torch.equal(torch.as_tensor(run.trace.attn_lhqk), torch.as_tensor(plain.trace.attn_lhqk))


@pytest.mark.parametrize(
    ("steering", "options", "told"),
    [
        ([OPERA(), PAI()], {}, "do not go together"),
        ([OPERA()], {"do_sample": True}, "do_sample"),
        ([OPERA()], {"num_beams": 3}, "num_beams"),
    ],
)
def test_what_it_cannot_do_is_refused(steering: list[Any], options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        vlm_of("llava").ask(picture(0), QUESTION, steering=steering, **options)
