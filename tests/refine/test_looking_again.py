"""run.refine, run.ask_again and run.search: every recipe, every family, what is shared and what is refused."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import vlmattn as va
from tests.tiny import TINY
from tests.tiny_models import build, tiny
from vlmattn.api.refine_maps import with_suffix
from vlmattn.api.refinement import certainty
from vlmattn.api.vlm import Vlm
from vlmattn.core.errors import MapError, SpecError
from vlmattn.refine import RECIPES, SEARCHES, SUFFIX, Gate

QUESTION = "Is the red cup left of the red spoon?"


@lru_cache(maxsize=2)
def scene_model() -> va.Vlm:
    return va.load("scene")


def scene_run(index: int = 3, kind: str = "shape") -> tuple[va.Run, Any, Any]:
    scene, questions = va.scene.split_item("tiny", 1, index)
    question = next(q for q in questions if q.kind == kind)
    return scene_model().ask(scene.image, question.text), scene, question


def ask(vlm: va.Vlm, image: Any = None, question: Any = QUESTION, **options: Any) -> va.Run:
    settings = {"max_new_tokens": 3, "suppress_tokens": [vlm.adapter.image_token_id]} | options
    return vlm.ask(data.coffee() if image is None else image, question, **settings)


def usable(vlm: va.Vlm, name: str) -> dict[str, Any]:
    return {"pictures": "crop"} if RECIPES[name].pictures == "both" and vlm.adapter.max_images == 1 else {}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_refines_and_asks_again(name: str) -> None:
    vlm = va.load(*tiny("llava"))
    run = ask(vlm)
    found = run.refine(name)
    x0, y0, x1, y1 = found.box_xyxy
    assert 0 <= x0 < x1 <= 600
    assert 0 <= y0 < y1 <= 400
    assert found.mask.shape == (400, 600)
    assert found.mask.any()
    assert found.crop.mode == "RGB"
    again = found.ask_again()
    assert again is found.ask_again()
    assert len(again.pictures) == (2 if RECIPES[name].pictures == "both" else 1)
    assert again.pictures[-1].image.tobytes() == found.crop.tobytes()
    if RECIPES[name].suffix:
        assert again.question == f"{QUESTION} {SUFFIX}"
    said = json.loads(json.dumps(found.to_dict()))
    assert said["refined"]["recipe"]["name"] == name
    assert said["refined"]["map"]["provenance"]["method"] in (
        "raw",
        "relative",
        "contrast",
        "gradient",
        "pure_gradient",
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(TINY))
def test_every_family_refines(kind: str) -> None:
    """Crops from the original; both pictures where the family takes several; a clear error where it does not."""
    vlm = Vlm(*TINY[kind](), name=kind)
    photo = Image.fromarray(data.coffee()[:150, :260])
    run = ask(vlm, photo)
    for name in ("carve-crop", "carve", "vicrop"):
        found = run.refine(name, window_px=90, suffix="", layers=None)
        width, height = photo.size
        x0, y0, x1, y1 = found.box_xyxy
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        if found.recipe.pictures == "both" and vlm.adapter.max_images == 1:
            with pytest.raises(SpecError, match="say pictures='crop'"):
                found.ask_again()
            found = run.refine(name, window_px=90, suffix="", layers=None, pictures="crop")
        again = found.ask_again()
        assert len(again.trace.layout.images) == len(again.pictures)
        assert again.trace.layout.images[-1].image_wh == found.crop.size
    assert vlm.general.runs == 1, "one pass serves all questions and recipes"


@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision"])
def test_settings_that_change_nothing_change_nothing_bit_for_bit(family: str) -> None:
    vlm = va.load(*tiny(family))
    run = ask(vlm)
    for changes in ({"place": "regions", "share": 1.0}, {"window_share": 1.0}):
        again = run.refine("peak", **changes).ask_again()
        assert again.answer == run.answer
        assert (again.trace.attn_lhqk == run.trace.attn_lhqk).all()
        assert again.trace.scores is not None
        assert run.trace.scores is not None
        assert (again.trace.scores.top_logp_tk == run.trace.scores.top_logp_tk).all()


def test_the_crop_is_cut_from_the_original_where_the_peak_lies() -> None:
    # A picture that the model sees the middle of only, at a seventh of its size.
    photo = np.tile(data.coffee(), (1, 2, 1))
    run = ask(va.load(*tiny("llava")), photo)
    found = run.refine("peak", window_px=100, layers=[1])
    x, y = run.map(0, layers=[1]).peak_xy
    x0, y0, x1, y1 = found.box_xyxy
    assert (x1 - x0, y1 - y0) == (100, 100)
    assert x0 <= x < x1
    assert y0 <= y < y1
    assert 400 <= x < 800, "the centre crop saw these columns only"
    assert (np.asarray(found.crop) == photo[y0:y1, x0:x1]).all()


def test_the_general_pass_is_run_once_per_picture() -> None:
    vlm = va.load(*build("llava"))
    one, other = data.coffee(), data.chelsea()
    runs = [ask(vlm, one, "What?"), ask(vlm, one, "Where is it?"), ask(vlm, other, "What?")]
    for run in runs:
        run.refine("carve-crop")
    assert (vlm.general.runs, len(vlm.general)) == (2, 2)
    runs[0].map("What", part="question", method="relative")
    assert vlm.general.runs == 2, "a map of fewer steps takes the longer pass"
    ask(vlm, one, "What?", max_new_tokens=5).refine("carve-crop")
    assert vlm.general.runs == 3, "more steps need a longer pass"
    with vlm.steer(Louder()):
        ask(vlm, one, "What?").refine("carve-crop")
    assert vlm.general.runs == 4, "steering changes the pass"
    with torch.no_grad():
        next(vlm.model.parameters()).add_(0.01)
    ask(vlm, one, "What?").refine("carve-crop")
    assert vlm.general.runs == 5, "new weights make another model"
    vlm.general.clear()
    assert len(vlm.general) == 0


class Louder(va.Steering):
    def edit_scores(self, scores_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        return scores_bhrk + where.columns(2)


def test_what_is_kept_of_general_passes_is_bounded() -> None:
    vlm = va.load(*build("llava"))
    vlm.general.most_bytes = 1
    for photo in (data.coffee(), data.chelsea(), data.coffee()):
        ask(vlm, photo, "What?").refine("carve-crop")
    assert (vlm.general.runs, len(vlm.general)) == (3, 1)


def test_a_certain_answer_costs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run = ask(va.load(*build("llava")))
    ran: list[Any] = []
    original = Vlm.run
    monkeypatch.setattr(Vlm, "run", lambda self, request: ran.append(request) or original(self, request))
    sure = run.refine(when="uncertain", gate=Gate(bias=-1.0, margin=0.0))
    assert not sure.looks_again
    assert sure.ask_again() is run
    assert not ran
    assert sure.to_dict()["signs"]["margin"] >= 0
    with pytest.raises(SpecError, match="good enough"):
        _ = sure.crop
    unsure = run.refine(when="uncertain", gate=Gate(bias=1.0, margin=0.0))
    assert unsure.looks_again
    assert unsure.ask_again() is not run
    assert len(ran) == 1, "the second look"


def test_the_surer_answer_is_taken() -> None:
    run = ask(va.load(*tiny("llava")))
    found = run.refine("peak")
    second = found.ask_again()
    expected = run if certainty(run) > certainty(second) else second
    assert found.ask_again(choose="surer") is expected
    assert run.ask_again("peak", choose="surer").answer == expected.answer
    logs = run.trace.scores.chosen_logp_t  # type: ignore[union-attr]
    assert certainty(run) == pytest.approx(float(np.exp(logs.mean())))


def test_several_pictures() -> None:
    vlm = va.load(*tiny("llava"))
    run = ask(vlm, [data.coffee(), data.chelsea()])
    crop = run.refine("peak", image=1).ask_again()
    assert crop.pictures[0].wh == (600, 400)
    assert crop.pictures[1].wh == run.refine("peak", image=1).crop.size
    both = run.refine("peak", image=1, pictures="both").ask_again()
    assert len(both.pictures) == 3
    parts = [{"type": "image"}, {"type": "text", "text": "Compare "}, {"type": "image"}]
    placed = ask(vlm, [data.coffee(), data.chelsea()], [{"role": "user", "content": parts}])
    assert len(placed.refine("peak", pictures="both").ask_again().pictures) == 3


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Why?", f"Why? {SUFFIX}"),
        (f"Why? {SUFFIX}", f"Why? {SUFFIX}"),
        ([{"role": "user", "content": "Why?"}], [{"role": "user", "content": f"Why? {SUFFIX}"}]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
            [{"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "text", "text": SUFFIX}]}],
        ),
    ],
)
def test_the_suffix_is_written_once(prompt: Any, expected: Any) -> None:
    question = prompt if isinstance(prompt, str) else "Why?"
    assert with_suffix(prompt, question, SUFFIX) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recipe": "crave"}, "carve"),
        ({"image": 1}, "picture 1"),
        ({"when": "never"}, "when"),
        ({"gate": Gate()}, "uncertain"),
        ({"layers": [9]}, "layers"),
        ({"recipe": "carve", "what": "cup"}, "leave out the word"),
        ({"shares": 0.2}, "no field"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], said: str) -> None:
    run = ask(va.load(*tiny("llava")))
    with pytest.raises(SpecError, match=said):
        run.refine(**options)


def test_a_word_decides_where_to_look() -> None:
    run = ask(va.load(*tiny("llava")))
    found = run.refine("peak", "spoon", window_px=40)
    assert found.look.label == "spoon"
    x, y = run.map("spoon").peak_xy
    x0, y0, x1, y1 = found.box_xyxy
    assert x0 <= x < x1
    assert y0 <= y < y1


def test_flat_pictures_and_pictures_of_one_pixel() -> None:
    vlm = va.load(*tiny("llava"))
    with pytest.raises(MapError, match="flat"):
        ask(vlm, np.zeros((1, 1, 3), dtype=np.uint8)).refine("peak")
    small = ask(vlm, data.coffee()[:9, :12])
    assert small.refine("peak", window_px=500).box_xyxy == (0, 0, 12, 9)


def test_gradients_refuse_steering() -> None:
    vlm = va.load(*tiny("llava"))
    with vlm.steer(Louder()):
        run = ask(vlm)
    with pytest.raises(SpecError, match="without steering"):
        run.refine("vicrop-gradient", suffix="")


@pytest.mark.parametrize("rule", SEARCHES)
def test_searches_ask_on_parts_and_keep_the_surest(rule: str) -> None:
    run = ask(va.load(*tiny("llava")))
    found = run.search(rule, enough=1.0)
    assert 1 <= found.path.looks <= SEARCHES[rule].most_looks
    for visit in found.path.visits[1:]:
        x0, y0, x1, y1 = visit.box_xyxy
        part = np.asarray(visit.seen.held.pictures[0].image)
        assert (part == data.coffee()[y0:y1, x0:x1]).all()
        assert visit.seen.confidence == certainty(visit.seen.held)
    assert found.run is max(found.path.visits, key=lambda v: v.seen.confidence).seen.held
    assert found.sheet().image.size[0] > 200
    assert json.loads(json.dumps(found.to_dict()))["looks"][0]["depth"] == 0


def test_searches_that_cannot_be() -> None:
    run = ask(va.load(*tiny("llava")))
    with pytest.raises(SpecError, match="does not exist"):
        run.search("astar")
    with pytest.raises(SpecError, match="no field"):
        run.search("zoom", depth=3)
    bare = ask(va.load(*tiny("llava")), capture=va.CaptureSpec(rows="answer", top_k=0))
    with pytest.raises(SpecError, match="top_k"):
        bare.search()


def test_everything_is_written_or_nothing(tmp_path: Path) -> None:
    run, _, _ = scene_run()
    files = run.refine().save(tmp_path / "looks")
    assert [f.name for f in files] == ["map.png", "mask.png", "crop.png", "boxes.json", "sheet.png"]
    assert all(f.stat().st_size > 100 for f in files)
    record = json.loads(files[3].read_text())
    assert record["second_answer"]
    with Image.open(files[1]) as mask:
        assert mask.size == run.pictures[0].wh
    sheet = va.overlay.read_provenance(files[4])
    assert len(sheet["cells"][0]) == 2


def test_the_model_in_the_box_sees_tiny_things_better_on_crops() -> None:
    run, scene, question = scene_run()
    found = run.refine("peak")
    x, y = scene.objects[question.targets[0]].center_xy
    x0, y0, x1, y1 = found.box_xyxy
    assert x0 <= x < x1
    assert y0 <= y < y1
    assert found.ask_again().answer == question.answer
