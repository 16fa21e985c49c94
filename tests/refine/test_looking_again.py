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
from tests.tiny import SEVERAL, TINY
from tests.tiny_models import build, tiny
from vlmattn.api.refine_maps import with_suffix
from vlmattn.api.refinement import certainty
from vlmattn.api.vlm import Vlm
from vlmattn.core.errors import InputError, MapError, SpecError
from vlmattn.refine import RECIPES, SEARCHES, SUFFIX, Gate

QUESTION = "Is the red cup left of the red spoon?"


@lru_cache(maxsize=2)
def scene_model() -> va.Vlm:
    return va.load("scene")


def scene_run() -> va.Run:
    scene, questions = va.scene.split_item("tiny", 1, 3)
    return scene_model().ask(scene.image, questions[0].text)


def ask(vlm: va.Vlm, image: Any = None, question: Any = QUESTION, **options: Any) -> va.Run:
    settings = {"max_new_tokens": 3, "suppress_tokens": [vlm.adapter.image_token_id]} | options
    return vlm.ask(data.coffee() if image is None else image, question, **settings)


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
@pytest.mark.parametrize("kind", SEVERAL)
def test_every_family_refines(kind: str) -> None:
    """Crops from the original; both pictures where the family takes several; a clear error where it does not."""
    vlm = Vlm(*TINY[kind](), name=kind)
    photo = Image.fromarray(data.coffee()[:150, :260])
    run = ask(vlm, photo)
    for name, changes in (("carve-crop", {"window_px": 90}), ("carve", {}), ("vicrop", {"window_px": 90})):
        options: dict[str, Any] = {"suffix": "", "layers": None} | changes
        if RECIPES[name].pictures == "both" and vlm.adapter.max_images == 1:
            with pytest.raises(SpecError, match="say pictures='crop'"):
                run.ask_again(name, **options)
            options["pictures"] = "crop"
        found = run.refine(name, **options)
        width, height = photo.size
        x0, y0, x1, y1 = found.box_xyxy
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        again = found.ask_again()
        assert len(again.trace.layout.images) == len(again.pictures)
        assert again.trace.layout.images[-1].image_wh == found.crop.size
    assert vlm.general.runs == 1, "one pass serves all questions and recipes"
    searched = run.search("vstar", enough=1.0, most_looks=1)
    if searched.path.visits[0].seen.confidence == 1.0:  # a random model may be wholly sure of its end
        assert searched.path.stopped == "sure"
        return
    assert searched.path.looks == 1
    assert searched.path.visits[1].seen.held.trace.layout.images[0].image_wh != photo.size


@pytest.mark.parametrize("kind", ["vision-encoder-decoder", "blip-2", "florence2"])
def test_families_of_one_picture_refuse_both_before_anything_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = Vlm(*TINY[kind](), name=kind)
    run = ask(vlm, data.coffee()[:150, :260])
    monkeypatch.setattr(Vlm, "run", lambda *_: pytest.fail("the model ran"))
    for name in ("carve", "vicrop", "vicrop-gradient"):
        with pytest.raises(SpecError, match=r"at most 1 picture, .*say pictures='crop'"):
            run.refine(name)


@pytest.mark.parametrize("kind", ["qwen2_vl", "video_llava"])
def test_videos_are_refused_and_pictures_beside_them_are_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = Vlm(*TINY[kind](), name=kind)
    frames = np.stack([data.coffee()[:56, :56], data.coffee()[40:96, :56]] * 2)
    film = va.Video(list(frames), fps=2.0, name="film")
    parts = [{"type": "image"}, {"type": "text", "text": "Then"}, {"type": "video"}, {"type": "text", "text": "what?"}]
    run = ask(vlm, [data.coffee()[:150, :260], film], [{"role": "user", "content": parts}])
    again = run.refine("peak", pictures="both").ask_again()
    assert [type(seen).__name__ for seen in again.pictures] == ["Picture", "Video", "Picture"]
    assert again.trace.layout.images[2].image_wh == again.pictures[2].wh
    monkeypatch.setattr(Vlm, "run", lambda *_: pytest.fail("the model ran"))
    for wrong in (lambda: run.refine(image=1), lambda: run.ask_again("carve", image=1), lambda: run.search(image=1)):
        with pytest.raises(SpecError, match="not at videos"):
            wrong()


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


class Louder(va.Steering):
    def __init__(self, by: float = 1.0) -> None:
        self.by = by

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        return scores_bhrk + self.by * where.columns(2)


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


def test_many_second_looks_are_asked_at_once_as_each_alone() -> None:
    vlm = va.load(*tiny("llava"))
    first = [ask(vlm, photo, q) for photo, q in ((data.coffee(), "Is it red?"), (data.chelsea(), "Is it a cat?"))]
    made = [run.refine("vicrop") for run in first]
    options = {"max_new_tokens": 3, "suppress_tokens": [vlm.adapter.image_token_id]}
    together = vlm.ask_many([one.item() for one in made], **options)
    for one, run in zip(made, together, strict=True):
        alone = one.ask_again()
        assert run.question == alone.question
        assert run.question.endswith(SUFFIX)
        assert run.answer == alone.answer
        assert [p.wh for p in run.pictures] == [p.wh for p in alone.pictures]


def test_a_run_of_a_batch_is_refined_as_if_it_were_alone() -> None:
    vlm = va.load(*tiny("llava"))
    options = {"max_new_tokens": 3, "suppress_tokens": [vlm.adapter.image_token_id]}
    batch = vlm.ask_many([(data.chelsea(), "What is it, and why?"), (data.coffee(), QUESTION)], **options)
    alone = ask(vlm)
    for name in ("peak", "carve-crop", "vicrop-gradient"):
        one, other = (run.refine(name, suffix="") for run in (batch[1], alone))
        assert one.box_xyxy == other.box_xyxy
        assert one.ask_again().answer == other.ask_again().answer


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
        ({"share": 0.3}, "decides nothing"),
        ({"recipe": ["carve"]}, "does not exist"),
        ({"when": "uncertain", "gate": "gate.json"}, "Gate.load"),
        ({"recipe": "carve-code", "layers": [0]}, "kept"),
        ({"recipe": "carve-code", "layers": None, "heads": [9]}, "heads"),
        ({"recipe": "vicrop", "what": "elephant", "layers": [1]}, "elephant"),
        ({"recipe": "vicrop-gradient", "layers": [1], "heads": "localization"}, "head"),
        ({"recipe": "vicrop-gradient", "layers": [1], "steps": "last"}, "first answer token"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ask(va.load(*tiny("llava")), capture=va.CaptureSpec(rows=("question", "answer"), layers=[1, 2]))
    monkeypatch.setattr(Vlm, "run", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(InputError, match=said):
        run.refine(**options)


@pytest.mark.parametrize(
    ("name", "rows"),
    [(n, "question") for n, r in RECIPES.items() if "gradient" not in r.signal]
    + [(n, "last") for n, r in RECIPES.items() if r.signal == "contrast"],
)
def test_rows_that_were_not_kept_are_told_before_anything_runs(
    name: str, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ask(va.load(*tiny("llava")), capture=va.CaptureSpec(rows=rows))
    monkeypatch.setattr(Vlm, "run", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(MapError, match="were not kept"):
        run.refine(name)


def test_a_given_answer_is_that_of_the_first_look_alone() -> None:
    run = ask(va.load(*tiny("llava")), answer="yes it is")
    free = ask(va.load(*tiny("llava")), max_new_tokens=64)
    assert run.answer == "yes it is"
    assert run.ask_again("peak", window_share=1.0).answer == free.answer
    looks = run.search("vstar", enough=1.0, most_looks=2).path.visits
    assert looks[0].seen.held is run
    for look in looks[1:]:
        part = run.pictures[0].image.crop(look.box_xyxy)
        assert look.seen.held.answer == ask(va.load(*tiny("llava")), part, max_new_tokens=64).answer


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
    for wrong in ("astar", ["vstar"]):
        with pytest.raises(SpecError, match="does not exist"):
            run.search(wrong)
    with pytest.raises(SpecError, match="picture 4"):
        run.search(image=4)
    with pytest.raises(SpecError, match="no field"):
        run.search("zoom", depth=3)
    bare = ask(va.load(*tiny("llava")), capture=va.CaptureSpec(rows="answer", top_k=0))
    with pytest.raises(SpecError, match="top_k"):
        bare.search()


def test_everything_is_written_or_nothing(tmp_path: Path) -> None:
    run = scene_run()
    files = run.refine().save(tmp_path / "looks")
    assert [f.name for f in files] == ["map.png", "mask.png", "crop.png", "boxes.json", "sheet.png"]
    assert all(f.stat().st_size > 100 for f in files)
    record = json.loads(files[3].read_text())
    assert record["second_answer"]
    with Image.open(files[1]) as mask:
        assert mask.size == run.pictures[0].wh
    sheet = va.overlay.read_provenance(files[4])
    assert len(sheet["cells"][0]) == 2


def test_the_model_in_the_box_looks_where_the_thing_is() -> None:
    """A quarter of the picture holds most things that are asked about; by chance it would hold one in four."""
    held = 0
    for index in range(12):
        scene, questions = va.scene.split_item("tiny", 1, index)
        run = scene_model().ask(scene.image, questions[0].text)
        x, y = scene.objects[questions[0].targets[0]].center_xy
        x0, y0, x1, y1 = run.refine("peak", window_share=0.5).box_xyxy
        held += x0 <= x < x1 and y0 <= y < y1
    assert held >= 8
