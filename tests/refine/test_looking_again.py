"""run.refine, run.ask_again and run.search: every recipe, every family, what is shared and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
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
@pytest.mark.parametrize("kind", sorted(TINY))
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
    def __init__(self, by: float = 1.0) -> None:
        self.by = by

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        return scores_bhrk + self.by * where.columns(2)


@dataclass(frozen=True, eq=False)
class Said(va.Steering):
    """Made anew for every run, as steering is that asks the model something first."""

    by: tuple[float, ...] = (1.0,)
    _working: dict[int, object] = field(default_factory=lambda: {0: object()}, init=False)

    def for_model(self, vlm: Any) -> Said:
        return replace(self)

    def edit_scores(self, scores_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        return scores_bhrk + self.by[0] * where.columns(2)


def test_general_passes_are_shared_by_what_they_do_and_made_anew_by_what_changes_them() -> None:
    vlm = va.load(*build("llava"))
    photo = data.coffee()
    runs = lambda: vlm.general.runs  # noqa: E731
    ask(vlm, photo, "What?").refine("carve-crop")
    ask(vlm, photo, "Why?", capture=va.CaptureSpec(rows="answer", top_k=2)).refine("carve-crop")
    assert runs() == 1, "rows and candidates of the question do not matter to it"
    ask(vlm, photo, "Why?", capture=va.CaptureSpec(rows="answer", layers=[1, 2])).refine("carve-crop")
    assert runs() == 2, "other layers are kept"
    ask(vlm, photo, "Why?", min_new_tokens=3).refine("carve-crop", steps="first", weights="even")
    assert runs() == 2, "shortest lengths are of the answer"
    for by, expected in ((1.0, 3), (1.0, 3), (3.0, 4)):
        with vlm.steer(Said((by,))):
            ask(vlm, photo, "What?").refine("carve-crop")
        assert runs() == expected, "equal steering is the same steering"
    louder, kept = Louder(), len(vlm.general)
    for by, expected in ((1.0, 5), (2.0, 6)):
        louder.by = by
        with vlm.steer(louder):
            ask(vlm, photo, "What?").refine("carve-crop")
        assert (runs(), len(vlm.general)) == (expected, kept), "nothing tells whether this object still does the same"
    ask(vlm, photo, "What?").refine("carve-crop", suffix="Be short.")
    assert runs() == 7, "another general prompt"
    for seed, expected in ((1, 8), (1, 8), (2, 9)):
        ask(vlm, photo, "What?", do_sample=True, seed=seed).refine("carve-crop")
        assert runs() == expected, "samples are of their seed"
    vlm.model.to(torch.float64)
    vlm.model.to(torch.float32)
    ask(vlm, photo, "What?").refine("carve-crop")
    assert runs() == 10, "weights were cast"


def test_a_general_pass_belongs_to_its_system_text() -> None:
    vlm = Vlm(*TINY["qwen2_vl"](), name="qwen2_vl")
    for system, expected in (("You are brief.", 1), ("You are brief.", 1), ("You are long.", 2)):
        ask(vlm, data.coffee()[:56, :84], "What?", system=system).refine("carve-crop")
        assert vlm.general.runs == expected


@pytest.mark.parametrize("heads", [None, [1]])
@pytest.mark.parametrize(("floor", "floor_of"), [(1e-8, "absolute"), (1.5, "mean")])
def test_relative_attention_is_the_papers_in_full_eager_matrices(heads: Any, floor: float, floor_of: Any) -> None:
    """ViCrop rel-att: the last prompt row of one layer under the question over that under the general prompt."""
    model, processor = build("llava")
    vlm = va.load(model, processor)
    run = ask(vlm, capture=va.CaptureSpec(rows="answer", dtype="float32"))
    found = run.refine("vicrop", layers=[1], heads=heads, floor=floor, floor_of=floor_of, window_px=90).refined
    eager, _ = build("llava")
    eager.set_attn_implementation("eager")
    rows = []
    for prompt in (QUESTION, "Write a general description of the image."):
        encoded = vlm.encode([run.pictures], [f"{prompt} {SUFFIX}"])
        with torch.no_grad():
            attention = eager(**encoded.inputs, output_attentions=True, use_cache=False).attentions[1][0]
        kept = attention if heads is None else attention[heads]
        rows.append(kept[:, -1, encoded.layouts[0].image_positions].double().mean(0).numpy())
    least = floor * rows[1].mean() if floor_of == "mean" else floor
    grid_hw = run.trace.layout.images[0].tiles[0].grid_hw
    expected = (rows[0] / np.maximum(rows[1], least)).reshape(grid_hw)
    np.testing.assert_allclose(found.patch_map.values[0], expected, rtol=1e-5)


def test_general_gradients_are_taken_once_per_picture_too() -> None:
    vlm, changes = va.load(*build("llava")), {"pictures": "crop", "window_px": 90}
    expected: dict[str, Any] = {}
    for question in ("Is it red?", "Where is it?"):
        found = ask(vlm, question=question).refine("vicrop-pure-gradient", **changes).refined
        assert found is not None
        expected[question] = found.patch_map.values[0]
    assert (vlm.general.runs, len(vlm.general)) == (1, 1)
    assert not np.array_equal(*expected.values())
    vlm.general.clear()
    again = ask(vlm, question="Where is it?").refine("vicrop-pure-gradient", **changes).refined
    assert again is not None
    np.testing.assert_array_equal(again.patch_map.values[0], expected["Where is it?"])
    ask(vlm, data.chelsea(), "Is it red?").refine("vicrop-pure-gradient", **changes)
    assert vlm.general.runs == 3, "another picture"
    with torch.no_grad():
        next(vlm.model.parameters()).add_(0.01)
    ask(vlm, data.chelsea(), "Is it red?").refine("vicrop-pure-gradient", **changes)
    assert vlm.general.runs == 4, "new weights"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's own
def test_an_adapter_that_is_put_aside_makes_another_general_pass() -> None:
    peft = pytest.importorskip("peft")
    model, processor = build("llava")
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    )
    vlm = va.load(tuned, processor)
    ask(vlm, question="What?").refine("carve-crop")
    with tuned.disable_adapter():
        ask(vlm, question="What?").refine("carve-crop")
        assert vlm.general.runs == 2
    ask(vlm, question="What?").refine("carve-crop")
    assert vlm.general.runs == 2, "the first pass holds again"


def test_what_is_divided_by_is_kept_in_full_precision() -> None:
    vlm = va.load(*tiny("llava"))
    half, full = (
        ask(vlm, capture=va.CaptureSpec(rows="answer", dtype=dtype)).refine(
            "carve-crop", floor=1e-8, floor_of="absolute"
        )
        for dtype in ("float16", "float32")
    )
    assert vlm.general.runs == 1, "one pass for both"
    assert half.refined is not None
    assert full.refined is not None
    # What is left is the rounding of what is divided: half a unit in the last of 11 bits.
    np.testing.assert_allclose(half.refined.patch_map.values[0], full.refined.patch_map.values[0], rtol=2.0**-11)


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


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if "gradient" not in r.signal])
def test_rows_that_were_not_kept_are_told_before_anything_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ask(va.load(*tiny("llava")), capture=va.CaptureSpec(rows="question"))
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
