"""Focus directions against whole matrices; composed, captured, saved, learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.capture.decoders import decoder, layouts_of, padded_batch
from tests.steering.plain_contrast import picture, vlm_of
from tests.steering.plain_edit import DECODERS, IMAGE, Matrices, Plain, check_neutral, check_same
from vlmattn.api import Placed, fit_focus
from vlmattn.capture import CaptureSpec, Session
from vlmattn.capture.steering import Steering
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.steering import PAI, VAF, Focus, load_steering, save_steering
from vlmattn.steering.together import check_together

HEADS = ((1, 0), (1, 3), (2, 1), (3, 2))
RNG = np.random.default_rng(0)
QUERIES, KEYS = (RNG.standard_normal((4, 16)).astype(np.float32) for _ in range(2))


def focus(**changes: Any) -> Focus:
    return Focus(**({"heads": HEADS, "queries": QUERIES, "keys": KEYS, "alpha": 0.7} | changes))


class PlainFocus(Plain):
    def turned(self, query: torch.Tensor, keys: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = query @ keys.transpose(1, 2)
        for number, (layer, head) in enumerate(HEADS):
            if layer != at.layer:
                continue
            moved = keys[head].clone()
            for column in IMAGE:
                moved[column] += 0.7 * torch.from_numpy(KEYS[number]).double()
            for row in range(IMAGE.stop, len(moved)):
                for column in range(len(moved)):
                    turned = query[head, row] + 0.7 * torch.from_numpy(QUERIES[number]).double()
                    out[head, row, column] = turned @ moved[column]
        return out


class PlainFocusThenVAF(PlainFocus):
    def scores(self, scores: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = scores.clone()
        out[:, IMAGE.stop :, : IMAGE.start] *= 0.7
        out[:, IMAGE.stop :, IMAGE.start : IMAGE.stop] *= 1.3
        return out


@pytest.mark.parametrize("name", DECODERS)
def test_every_written_token_equals_the_plain_computation(name: str, monkeypatch: Any) -> None:
    check_same(name, focus(), PlainFocus(), [1, 2, 3], monkeypatch, steps=3)


def test_it_comes_before_methods_that_edit_scores(monkeypatch: Any) -> None:
    class Both(Steering):
        rows = "after_image"
        parts_ = (focus(), VAF(enhance=1.3, suppress=0.7, layers=(1, 2, 3)))
        layers = (1, 2, 3)

        def edit_queries_keys(self, query: Any, key: Any, where: Any) -> Any:
            return self.parts_[0].edit_queries_keys(query, key, where)

        def edit_scores(self, scores: Any, where: Any) -> Any:
            return self.parts_[1].edit_scores(scores, where)

    check_same("mistral_window", Both(), PlainFocusThenVAF(), [1, 2, 3], monkeypatch, steps=2)


@pytest.mark.parametrize("changes", [{"alpha": 0}, {"queries": 0 * QUERIES, "keys": 0 * KEYS}])
def test_neutral_settings_change_nothing_bit_for_bit(changes: dict[str, Any]) -> None:
    check_neutral("llama_gqa", focus(**changes))


def test_beams_batches_and_cache_write_what_single_lines_do() -> None:
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23, 17))
    how = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False}
    with Session(model, layouts_of(inputs, pads), None, [focus()], pad_left=pads):
        both = model.generate(**inputs, **how)
        plain_after = None
    for line, pad in enumerate(pads):
        alone = {name: value[line : line + 1, pad:] for name, value in inputs.items()}
        with Session(model, layouts_of(alone, [0]), None, [focus()], pad_left=[0]):
            assert torch.equal(model.generate(**alone, **how)[0], both[line, pad:])
        with Session(model, layouts_of(alone, [0]), None, [focus()], pad_left=[0]):
            no_cache = model.generate(**alone, **how, use_cache=False)
        assert torch.equal(no_cache[0], both[line, pad:])
        plain_after = model.generate(**alone, **how)
        assert not torch.equal(plain_after[0], both[line, pad:])  # and undone


@pytest.fixture(scope="module")
def scene() -> va.Vlm:
    return va.load("scene")


def asked(scene: va.Vlm, count: int, seed: int = 3) -> list[Placed]:
    found = []
    for index in range(count):
        drawn, questions = va.scene.split_item("validation", seed, index)
        question = next((q for q in questions if q.kind in ("color", "shape")), None)
        if question is None:
            continue
        run = scene.ask(drawn.image, question.text, max_new_tokens=3)
        found.append(Placed(run, tuple(map(float, drawn.objects[question.targets[0]].box_xyxy))))
    return found


def share(run: va.Run, placed: Placed, heads: Any) -> float:
    from vlmattn.grid import cell_coverage

    (inside,) = cell_coverage(run.trace.layout.images[0], placed.box_xyxy)
    at = [run.trace.layers.index(layer) for layer, _ in heads]
    row = run.trace.rows_of(run.trace.answer_tokens[:1], "predicting")[0]
    seen = run.trace.attn_lhqk[at, [head for _, head in heads], row].astype(float)
    return float((seen[:, : inside.size] * (inside.ravel() >= min(0.5, inside.max()))).sum(-1).mean())


def test_learnt_directions_draw_the_look_to_unseen_places_and_random_ones_do_not(scene: va.Vlm, tmp_path: Path) -> None:
    found = fit_focus(scene, asked(scene, 10), heads=4, rounds=30)
    loaded = load_steering(save_steering(tmp_path / "focus.json", found, scene), scene)
    assert isinstance(loaded, Focus)
    assert np.array_equal(loaded.queries, found.queries)
    assert np.array_equal(loaded.keys, found.keys)
    moved: dict[str, list[float]] = {"fitted": [], "random": [], "away": []}
    rng = np.random.default_rng(0)
    ways = {"fitted": loaded, "random": found.at_random(rng), "away": Focus(
        heads=found.heads, queries=found.queries, keys=found.keys, alpha=-1.0
    )}  # fmt: skip
    for placed in asked(scene, 8, seed=4):
        ids = placed.run.trace.layout.input_ids[placed.run.trace.layout.answer_start :].tolist()
        item = placed.run.request.items[0]
        before = share(placed.run, placed, found.heads)
        for name, way in ways.items():
            run = scene.ask(*item, answer=ids, steering=[way])
            moved[name].append(share(run, placed, found.heads) - before)
    fitted, random, away = (float(np.mean(moved[name])) for name in ("fitted", "random", "away"))
    assert fitted > max(0.005, random)
    assert away < min(-0.02, random)


def test_capture_shows_the_turned_attention() -> None:
    vlm = vlm_of("llava")
    spec = CaptureSpec(rows="last", columns="all", dtype="float32", layers=[1])
    width = vlm.model.config.text_config.hidden_size // vlm.model.config.text_config.num_attention_heads
    one = Focus(heads=((1, 1),), queries=np.ones((1, width)), keys=np.ones((1, width)))
    before, after = (
        vlm.ask(picture(), "Who?", capture=spec, max_new_tokens=1, steering=some).trace for some in ([], [one])
    )
    change = np.abs(after.attn_lhqk - before.attn_lhqk)[0].max(axis=(1, 2))
    assert change[1] > 1e-4
    assert change[[0, 2, 3]].max() < 1e-6


def test_two_add_up_and_what_cannot_be_is_refused() -> None:
    check_together([focus(), focus(), PAI()], range(4))
    with pytest.raises(SpecError, match="one line for each head"):
        focus(queries=QUERIES[:2])
    with pytest.raises(SpecError, match="differ in shape"):
        focus(queries=QUERIES[:, :3])
    with pytest.raises(SpecError, match="leave layers out"):
        focus(layers=(1,))
    with pytest.raises(SpecError, match="head 9"):
        focus(heads=((0, 9), (1, 3), (2, 1), (3, 2))).for_model(decoder("llama_gqa"))
    model = decoder("llama_gqa")
    inputs, pads = padded_batch((23, 17))
    small = Focus(heads=((1, 0),), queries=QUERIES[:1, :8], keys=KEYS[:1, :8])
    with (
        Session(model, layouts_of(inputs, pads), None, [small], pad_left=pads),
        pytest.raises(SpecError, match="fit them on this model"),
    ):
        model(**inputs)

    class Wrong(Steering):
        def edit_queries_keys(self, query: Any, key: Any, where: Any) -> Any:
            return query[:, :1], key

    with (
        Session(model, layouts_of(inputs, pads), None, [Wrong()], pad_left=pads),
        pytest.raises(CaptureError, match="queries and keys of shape"),
    ):
        model(**inputs)
    with pytest.raises(SpecError, match="needs examples"):
        fit_focus(vlm_of("llava"), [])
