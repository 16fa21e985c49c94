"""The atlas as a result: heads chosen by it, kept, drawn, resumed; and what cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlmattn as va
from tests.capture.asked import loaded, picture
from tests.tiny_models import build
from vlmattn.core.errors import FileError, SpecError, UnsupportedModel
from vlmattn.heads import HeadAtlas, HeadPreset, HeadSample, load_presets, read_samples, save_presets, scene_samples
from vlmattn.heads.known import BESIDE

SAMPLES = scene_samples(6)
ASKED = [(picture(), "What is it?"), (picture(1), "Is it red?")]


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return va.load("scene")


@pytest.fixture(scope="module")
def atlas(vlm: va.Vlm) -> HeadAtlas:
    return vlm.head_atlas(SAMPLES, resamples=50)


def made(**changes: Any) -> HeadAtlas:
    values = np.array([[0.5, 0.2], [0.0, 0.9]])
    given: dict[str, Any] = {"model": "mine", "depth": 2, "layers": (0, 1), "items": {"mass": 3}}
    given |= {name: {"mass": values} for name in ("scores", "low", "high")}
    return HeadAtlas(**(given | changes))


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_the_best_heads_come_first_with_their_intervals(atlas: HeadAtlas) -> None:
    for name in atlas.scores:
        found = atlas.best(name, 4)
        values = [one.value for one in found]
        assert values == sorted(values, reverse=name != "entropy")
        assert all(one.low <= one.value <= one.high for one in found)
    preset = atlas.preset("visual", k=2)
    assert preset.pairs == tuple((one.layer, one.head) for one in atlas.best("visual", 2))
    assert preset.depth == 4


def test_a_preset_and_its_name_choose_the_same_heads(vlm: va.Vlm, atlas: HeadAtlas) -> None:
    mine = va.load("scene")
    run = mine.ask(SAMPLES[0].image, SAMPLES[0].question)
    preset = atlas.preset("copy", k=2)
    want = run.map(0, heads=preset).patch_map
    attn = run.trace.attn_lhqk[:, :, list(run.trace.positions).index(run.trace.layout.answer_start - 1)]
    mean = np.mean([attn[pair].astype(np.float32) for pair in preset.pairs], axis=0)
    assert want.values[0].ravel() == pytest.approx(mean, abs=1e-6)
    with pytest.raises(SpecError, match=r"own are localization, pointing, visual, published ones all, localization"):
        run.map(0, heads="copy")
    mine.use_heads(preset)
    assert np.array_equal(run.map(0, heads="copy").patch_map.values[0], want.values[0])
    assert run.grounding(heads="copy")[0].peak_xy == run.map(0, heads=preset).peak_xy
    assert run.refine("peak", heads="copy").box_xyxy == run.refine("peak", heads=preset).box_xyxy
    assert "copy" not in vlm.known_heads()


def test_models_in_the_box_know_their_heads_and_they_point(vlm: va.Vlm) -> None:
    for name in ("scene", "scene-prior", "scene-sinks"):
        known = va.load(name).known_heads()
        assert {"localization", "pointing"} <= set(known)
        assert all(0 < len(one.pairs) <= 3 for one in known.values())
    hits = 0
    tested = [s for s in scene_samples(12, split="test", kinds=("color", "shape")) if s.boxes]
    for sample in tested:
        x, y = vlm.ask(sample.image, sample.question).map(0, heads="pointing").peak_xy
        (x0, y0, x1, y1) = sample.boxes[0]
        hits += x0 - 28 < x < x1 + 28 and y0 - 28 < y < y1 + 28
    assert hits >= len(tested) - 1


def test_own_names_come_before_published_ones(vlm: va.Vlm) -> None:
    run = vlm.ask(SAMPLES[0].image, SAMPLES[0].question)
    assert "found on" in run.map(0, heads="localization").patch_map.provenance.heads
    with pytest.raises(SpecError, match=r"of 32 layers.*and this one has 4.*own are localization, pointing, visual"):
        run.map(0, heads="ad_hh")
    with pytest.raises(SpecError, match="layers of their own: leave layers out"):
        run.map(0, heads="localization", layers=[1])


def test_heads_of_another_model_are_refused(vlm: va.Vlm) -> None:
    run = vlm.ask(SAMPLES[0].image, SAMPLES[0].question)
    for preset, why in (
        (HeadPreset("mine", ((5, 1),), 8, "by hand", ""), "of 8 layers"),
        (HeadPreset("mine", ((1, 9),), 4, "by hand", ""), r"names heads \[\(1, 9\)\]"),
    ):
        for wrong in (lambda p=preset: vlm.use_heads(p), lambda p=preset: run.map(0, heads=p)):
            with pytest.raises(SpecError, match=why):
                wrong()
    assert "mine" not in vlm.known_heads()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pairs": ((0, 0), (0, 0))}, "twice"),
        ({"pairs": ((4, 0),)}, "lie in layers"),
        ({"pairs": ((0, -1),)}, "from 0"),
        ({"pairs": (3,)}, "must be"),
        ({"name": " "}, "needs a name"),
    ],
)
def test_presets_that_cannot_be_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        HeadPreset(**({"name": "x", "pairs": ((1, 1),), "depth": 4, "source": "", "note": ""} | changes))


def test_heads_by_boxes(vlm: va.Vlm) -> None:
    chosen = scene_samples(10, kinds=("color", "shape"))
    preset = vlm.pointing_heads(chosen, most=2)
    assert 1 <= len(preset.pairs) <= 2
    assert preset.name == "pointing"
    with pytest.raises(SpecError, match="no sample has boxes"):
        vlm.pointing_heads([HeadSample(*ASKED[0])])


# -- keeping -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_what_is_saved_is_read_back(atlas: HeadAtlas, tmp_path: Path, ending: str) -> None:
    path = atlas.save(tmp_path / f"atlas.{ending}")
    again = HeadAtlas.load(path)
    assert str(again) == str(atlas)
    assert again.provenance == atlas.provenance
    for name, values in atlas.scores.items():
        assert np.array_equal(again.scores[name], values, equal_nan=True)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(FileError, match="atlas"):
        HeadAtlas.load(path)
    with pytest.raises(FileError, match=r"\.json or \.npz"):
        atlas.save(tmp_path / "atlas.txt")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(FileError, match="holds no atlas"):
        HeadAtlas.load(tmp_path / "other.json")


def test_presets_are_saved_beside_a_model_and_found_there(vlm: va.Vlm, atlas: HeadAtlas, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    save_presets(folder / BESIDE, atlas.presets(2), model="scene")
    held = va.load(folder)
    assert held.known_heads()["visual"].pairs == atlas.preset("visual", 2).pairs
    assert load_presets(folder / BESIDE).keys() == set(atlas.scores)
    fresh = va.load("scene")
    fresh.use_heads(atlas.save(tmp_path / "atlas.npz"))
    assert fresh.known_heads()["copy"].pairs == atlas.preset("copy").pairs
    fresh.use_heads(folder / BESIDE)
    assert len(fresh.known_heads()["copy"].pairs) == 2
    (folder / BESIDE).write_text("{")
    with pytest.raises(FileError, match="cannot read head presets"):
        held.known_heads()
    with pytest.raises(SpecError, match="different names"):
        save_presets(tmp_path / "x.json", [])


class Stopped(Exception):
    """What a user's interruption looks like."""


def test_a_stopped_atlas_goes_on_where_it_was(vlm: va.Vlm, tmp_path: Path) -> None:
    options: dict[str, Any] = {"scores": ["mass", "gradient"], "resamples": 20}
    whole = vlm.head_atlas(SAMPLES, **options)

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise Stopped

    keep = tmp_path / "kept"
    with pytest.raises(Stopped):
        vlm.head_atlas(SAMPLES, keep=keep, progress=stop, **options)
    assert len(list(keep.glob("*.npz"))) == 3
    before = {p: p.stat().st_mtime_ns for p in keep.glob("*.npz")}
    damaged = sorted(before)[1]
    damaged.write_bytes(b"half")
    again = vlm.head_atlas(SAMPLES, keep=keep, **options)
    assert [p for p in before if p.stat().st_mtime_ns != before[p]] == [damaged]
    for name in whole.scores:
        assert np.array_equal(again.scores[name], whole.scores[name])
        assert np.array_equal(again.low[name], whole.low[name])
    with pytest.raises(FileError, match=r"another atlas \(samples differ\)"):
        vlm.head_atlas(SAMPLES[:2], keep=keep, **options)
    json.loads((keep / "samples.json").read_text())


def test_progress_counts_samples_and_texts(vlm: va.Vlm) -> None:
    seen: list[tuple[int, int]] = []
    vlm.head_atlas(SAMPLES[:2], scores=["mass", "previous"], progress=lambda *told: seen.append(told))
    assert seen == [(n, 10) for n in range(1, 11)]


def test_pictures_have_a_map_for_every_score(atlas: HeadAtlas, tmp_path: Path) -> None:
    path = atlas.picture().save(tmp_path / "atlas.png")
    assert path.stat().st_size > 2000
    assert len(atlas.picture("mass").record["cells"][0]) == 1
    with pytest.raises(SpecError, match="no score 'nonsense'"):
        atlas.picture("nonsense")


# -- what cannot be had ------------------------------------------------------------------------------------------------


def test_heads_that_look_at_no_picture_are_never_chosen() -> None:
    none = made(**{name: {"mass": np.full((2, 2), 0.001)} for name in ("scores", "low", "high")})
    assert none.best("mass") == ()
    with pytest.raises(SpecError, match="no head of 'mine' can be chosen by 'mass'"):
        none.preset("mass")
    assert none.presets() == ()
    with pytest.raises(SpecError, match="'mine' has 3"):
        made().preset("mass", k=4)
    assert "none" in str(none)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"scores": {}}, "holds scores of"),
        ({"scores": {"made up": np.zeros((2, 2))}}, "made up"),
        ({"low": {}}, r"low of 'mass' must have shape \(L, H\) = \(2, 2\), got None"),
        ({"layers": (0,)}, "shape"),
        ({"layers": (0, 2)}, "0 to depth"),
        ({"items": {}}, "from how many samples"),
    ],
)
def test_an_atlas_that_is_not_whole_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        made(**changes)


@pytest.mark.parametrize(
    ("samples", "options", "why"),
    [
        ([], {}, "no sample was given"),
        ("picture.png", {}, "must be a list"),
        ([1], {}, "sample 0 must be"),
        (ASKED, {"scores": ["nope"]}, "do not exist; there are visual"),
        (ASKED, {"scores": []}, "none"),
        (ASKED, {"scores": ["pointing"]}, "needs samples with boxes"),
        (ASKED, {"scores": ["copy"]}, "needs samples with words"),
        (ASKED, {"variant": "fork"}, "variant must be one of"),
    ],
)
def test_an_atlas_of_nothing_is_refused(vlm: va.Vlm, samples: Any, options: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        vlm.head_atlas(samples, **options)


def test_samples_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for changes in ({"boxes": ((0, 0, 0, 5),)}, {"boxes": ("x",)}, {"words": (("", (0, 0, 1, 1)),)}, {"answer": " "}):
        with pytest.raises(SpecError):
            HeadSample("a.png", "Why?", **changes)  # type: ignore[arg-type]
    path = tmp_path / "samples.jsonl"
    for text, why in (
        ("", "no sample"),
        ("{", "no JSON"),
        ('{"image": "a"}', "image and question"),
        ('{"image": "a", "question": "b", "boxs": []}', "boxs"),
        ('{"image": "a", "question": "b", "boxes": [[1, 2]]}', "line 1.*four numbers"),
        ('{"image": 1, "question": "b"}', "path of a picture"),
    ):
        path.write_text(text)
        with pytest.raises(FileError, match=why):
            read_samples(path)
    path.write_text('{"image": "a.png", "question": "b", "words": [["c", [0, 0, 1, 1]]]}\n\n')
    (one,) = read_samples(path)
    assert one.image == str(tmp_path / "a.png")
    assert one.words == (("c", (0.0, 0.0, 1.0, 1.0)),)
    with pytest.raises(FileError, match="cannot read samples"):
        read_samples(tmp_path / "none.jsonl")


# -- other families ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mllama", "idefics2", "florence2", "blip-2"])
def test_models_that_see_beside_the_prompt_leave_out_what_needs_it(kind: str) -> None:
    vlm = loaded(kind)
    atlas = vlm.head_atlas(ASKED, max_new_tokens=2, resamples=10)
    assert {"visual", "mass", "entropy", "localization"} <= set(atlas.scores)
    assert "vhd" not in atlas.scores
    assert any(note.startswith("vhd left out") for note in atlas.notes)
    blind = vlm.ask(*ASKED[0], max_new_tokens=1).trace.blind
    for line, layer in enumerate(atlas.layers):
        assert np.isnan(atlas.scores["mass"][line]).all() == (layer in blind)
    assert all(one.layer not in blind for one in atlas.best("visual", 99))
    with pytest.raises(UnsupportedModel, match="no tokens of it"):
        vlm.head_atlas(ASKED, scores=["vhd"], max_new_tokens=2)
    HeadAtlas.__str__(atlas)
    run = vlm.ask(*ASKED[0], max_new_tokens=2)
    try:
        preset = atlas.preset("visual", 1)
    except SpecError:
        return
    assert run.map(0, heads=preset).patch_map.total >= 0


def test_a_model_of_one_layer(tmp_path: Path) -> None:
    vlm = va.load(*build("llava", layers=1))
    atlas = vlm.head_atlas(ASKED, scores=["mass", "localization", "entropy", "ablation"], max_new_tokens=2, resamples=5)
    assert atlas.scores["ablation"].shape == (1, 4)
    assert len(atlas.preset("mass", 1).pairs) == 1
    vlm.use_heads(atlas.save(tmp_path / "one.json"))
    assert vlm.known_heads()["mass"].depth == 1


def test_the_two_variants_of_localization_heads(vlm: va.Vlm) -> None:
    names = ["mass", "entropy", "localization"]
    paper, code = (vlm.head_atlas(SAMPLES, scores=names, variant=v, resamples=5) for v in ("paper", "code"))
    assert not np.array_equal(paper.scores["entropy"], code.scores["entropy"])
    assert "variant code" in code.notes[0]
