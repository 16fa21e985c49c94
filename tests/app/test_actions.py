"""What the app does, without a page."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmattn as va
from vlmattn.app import Asked, MapChoice, Models, Picked, asking, knobs, looking, markup, showing
from vlmattn.app.choices import head_choices, layer_choices, methods_of
from vlmattn.app.examples import Example, example, examples, scene_of
from vlmattn.core.errors import FileError, ImageError, MapError, PromptError, SpecError
from vlmattn.core.images import Picture

PLAIN = MapChoice()
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;'


class Read(HTMLParser):
    """Tags, attributes and text of a piece of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def asked(vlm: Any) -> Asked:
    one = example(0)
    return asking.ask(vlm, one.picture, one.question)


# -- asking ------------------------------------------------------------------------------------------------------------


def test_an_answer_is_that_of_the_model(vlm: Any, asked: Asked) -> None:
    one = example(0)
    assert asked.run.answer == vlm.ask(one.picture.image, one.question).answer
    assert asked.scene is one.scene
    assert asked.steered is asked.again is asked.checked is None


@pytest.mark.parametrize("question", ["", "   ", None])
def test_no_question_is_told(vlm: Any, question: Any) -> None:
    with pytest.raises(PromptError, match="no question yet"):
        asking.ask(vlm, example(0).picture, question)


def test_steering_that_cannot_be_is_told_before_the_model_runs() -> None:
    with pytest.raises(SpecError, match="does not exist"):
        asking.ask(None, example(0).picture, "What is there?", steering="nonsense")  # type: ignore[arg-type]


def test_pictures_are_called_by_their_own_names(tmp_path: Path) -> None:
    stored = tmp_path / "3f2a" / "x.png"
    stored.parent.mkdir()
    stored.write_bytes(b"no picture")
    with pytest.raises(ImageError) as told:
        asking.read_picture(stored, "holiday.png")
    assert "holiday.png" in str(told.value)
    assert str(tmp_path) not in str(told.value)
    Image.new("RGB", (20, 30)).save(stored)
    assert asking.read_picture(stored, "holiday.png").name == "holiday.png"
    with pytest.raises(ImageError, match="no picture yet"):
        asking.read_picture(None)


def test_steered_answers_come_beside_plain_ones_and_go(asked: Asked) -> None:
    both = asking.steer(asked, "vcd:alpha=0.5,seed=0")
    assert both.run is asked.run
    assert both.steered is not None
    assert any("VCD" in step for step in both.steered.trace.provenance.steps)
    assert not any("VCD" in step for step in both.run.trace.provenance.steps)
    assert not both.run.vlm._steering
    shown = showing.view(both, PLAIN)
    assert [p.which for p in shown.panels] == ["plain", "steered"]
    highest = max(float(p.look.pixels.values.max()) for p in shown.panels if p.look)
    assert [p.overlay.record["scale"] for p in shown.panels if p.overlay] == [[0.0, pytest.approx(highest)]] * 2
    picked = asking.pick(both, "steered/answer/0")
    assert asking.steer(picked, "").picked == Picked()


def test_the_picked_word_is_found_in_other_answers(vlm: Any) -> None:
    one = examples()[2]
    asked = asking.ask(vlm, one.picture, one.question)
    other = vlm.ask(one.picture, "How many objects are there?", answer="One ring and a RED ring.")
    both = replace(asked, steered=other)
    words = [w.text for w in asked.run.words()]
    rings = [n for n, w in enumerate(words) if w == "ring"]
    found = asking.word_in(asking.pick(both, f"plain/answer/{rings[1]}"), "steered")
    assert found is not None
    assert (found.text, found.occurrence) == ("ring", 2)
    red = asking.word_in(asking.pick(both, f"plain/answer/{words.index('red')}"), "steered")
    assert red is not None
    assert red.text == "RED"
    lost = asking.pick(both, f"plain/answer/{words.index('yellow')}")
    assert asking.word_in(lost, "steered") is None
    assert "no such word" in showing.view(lost, PLAIN).panels[1].note
    second = asking.word_in(asking.pick(both, "plain/question/1"), "steered")
    assert second is not None
    assert second.part == "question"


def test_a_closer_look_shows_its_box_and_its_own_map(asked: Asked) -> None:
    both = asking.refine(asked, "peak")
    shown = showing.view(both, PLAIN)
    plain, again = shown.panels
    assert again.which == "again"
    assert again.look is not None
    assert both.refinement is not None
    assert again.look.picture.wh == both.refinement.crop.size
    assert plain.overlay is not None
    alone = showing.view(asked, PLAIN).panels[0].overlay
    assert alone is not None
    x0, y0, x1, _ = both.refinement.box_xyxy
    edge = np.asarray(plain.overlay.image)[y0 : y0 + 4, x0:x1]
    assert (edge != np.asarray(alone.image)[y0 : y0 + 4, x0:x1]).mean() > 0.5
    assert asking.refine(both, "").again is None
    with pytest.raises(SpecError, match="recipe 'nonsense' does not exist"):
        asking.refine(asked, "nonsense")


def test_words_that_nothing_supports_are_marked(vlm: Any) -> None:
    one = example(0)
    run = vlm.ask(one.picture, "Please describe the picture.", answer="a white heart")
    checked = asking.check(Asked(run))
    assert checked.checked is not None
    assert [w.text for w in checked.checked.words] == ["a", "white", "heart"]
    page = Read(markup.sentences(checked))
    risky = [b for b in page.all("button") if "va-risky" in str(b["class"])]
    assert len(risky) == len(checked.checked.unsupported) > 0
    assert all("risk that nothing supports it" in str(b["title"]) for b in risky)
    assert "deletion test" in markup.facts(checked)


@pytest.mark.parametrize(
    "key", ["", None, 7, "plain", "plain/answer", "plain/answer/-1", "plain/answer/²", "other/answer/0", "plain/x/0"]
)
def test_keys_that_name_no_word_are_refused(asked: Asked, key: Any) -> None:
    with pytest.raises(SpecError):
        asking.pick(asked, key)


@pytest.mark.parametrize("key", ["plain/answer/99", "steered/answer/0", "plain/answer/99999999999999999999"])
def test_words_that_are_not_there_are_refused(asked: Asked, key: str) -> None:
    with pytest.raises(SpecError, match="no longer there"):
        asking.pick(asked, key)


# -- choices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "magic"}, "method must be one of"),
        ({"normalise": "magic"}, "normalise must be one of"),
        ({"sinks": "magic"}, "sinks must be one of"),
        ({"opacity": 1.5}, "opacity must be"),
        ({"opacity": float("nan")}, "opacity must be"),
        ({"opacity": None}, "opacity must be"),
        ({"layers": 3}, "layers must be text"),
        ({"method": "rollout", "layers": "1"}, "layers do not go with method 'rollout'"),
        ({"method": "tam", "heads": "1"}, "heads do not go with method 'tam'"),
    ],
)
def test_choices_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        MapChoice(**given)


def test_choices_are_those_of_the_library(asked: Asked) -> None:
    for choice, options in [
        (MapChoice(layers="1-2"), {"layers": [1, 2]}),
        (MapChoice(layers="vicrop", heads="0,-1"), {"layers": "vicrop", "heads": [0, -1]}),
        (MapChoice(heads="pointing"), {"heads": "pointing"}),
        (MapChoice(method="relative", normalise="uniform"), {"method": "relative", "normalise": "uniform"}),
    ]:
        look = showing.view(asked, choice).panels[0].look
        assert look is not None
        expected = asked.run.map(None, **options)
        np.testing.assert_array_equal(look.pixels.values, expected.pixels.values)
    assert MapChoice(layers="1", heads="2").fitting("gradient") == MapChoice("gradient", "1", "2")
    assert MapChoice(layers="1", heads="2").fitting("rollout") == MapChoice("rollout", "", "2")


def test_only_heads_that_fit_are_offered(vlm: Any) -> None:
    names = [value for _, value in head_choices(vlm)]
    assert names[0] == ""
    assert set(vlm.known_heads()) <= set(names)
    assert "ad_hh" not in names
    assert [value for _, value in layer_choices()][:2] == ["", "middle"]


def test_methods_are_those_that_can_be_made(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(methods_of(asked.run)) >= {"raw", "relative", "value", "rollout", "tam", "logit_lens"}
    monkeypatch.setattr("vlmattn.app.choices.find_spec", lambda name: None)
    assert "integrated_gradients" not in methods_of()

    def refuse(*given: Any) -> None:
        raise MapError("patches are none of the decoder's tokens")

    monkeypatch.setattr("vlmattn.api.states.image_at", refuse)
    assert not {"tam", "logit_lens"} & set(methods_of(asked.run))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("vcd", "", [None], ""), "vcd"),
        (("vcd", "", [0.5, 0.1, 400.0], ""), "vcd:alpha=0.5,noise_step=400"),
        (("var", "general", [0.1], "p=3"), "var:general"),
        (("pai", "", [2.0], " layers=1 2 "), "pai:layers=1 2"),
    ],
)
def test_controls_say_steering(given: tuple[Any, ...], text: str) -> None:
    assert knobs.steering_text(*given) == text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("nonsense", "", [], ""), "does not exist"),
        (("vcd", "nonsense", [], ""), "has no preset"),
        (("vcd", "", [float("nan")], ""), "must be a number"),
        (("vcd", "", [1.0, 0.1, 1.5], ""), "noise_step must be a whole number"),
        (("vcd", "", [], "seed"), "name=value"),
        (("vcd", "", [], "magic=1"), "has no setting"),
        (("ad-hh", "", [], ""), "needs heads"),
    ],
)
def test_controls_that_say_none_are_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        knobs.steering_text(*given)


def test_every_method_has_its_knobs() -> None:
    for name in knobs.method_names():
        assert len(knobs.knobs(name)) <= knobs.MOST_KNOBS
    assert [k.name for k in knobs.knobs("vcd")] == ["alpha", "beta", "noise_step"]
    assert [k.whole for k in knobs.knobs("vcd")] == [False, False, True]


# -- models and examples -----------------------------------------------------------------------------------------------


def test_models_are_loaded_once_and_only_those_to_choose_from() -> None:
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(name)
        if name == "bad":
            raise FileError("it cannot be loaded")
        return name

    models = Models(["one", "two", "bad"], load)
    assert [models.get(), models.get("two"), models.get("one"), models.get("two")] == ["one", "two", "one", "two"]
    assert loaded == ["one", "two"]
    with pytest.raises(SpecError, match="not to be chosen"):
        models.get("three")
    for _ in range(2):
        with pytest.raises(FileError):
            models.get("bad")
    for names in ([], ["one", "one"]):
        with pytest.raises(SpecError, match="at least one model"):
            Models(names, load)


def test_a_scene_is_known_by_its_pixels() -> None:
    one = example(1)
    again = Picture(Image.fromarray(np.asarray(one.picture.image)), "renamed.png")
    assert scene_of(again) is one.scene
    changed = np.array(one.picture.image)
    changed[0, 0] ^= 1
    assert scene_of(Picture(Image.fromarray(changed), one.name)) is None
    assert scene_of(examples()[-1].picture) is None
    for number in (-1, 99, None, "x", 1.5):
        with pytest.raises(SpecError, match="does not exist"):
            example(number)


# -- gaze --------------------------------------------------------------------------------------------------------------


TABLE = (
    "CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,who,img\n60,50,200,a,mine\n90,80,400,a,mine\n5,5,300,b,other\n"
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "gaze.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def test_columns_are_guessed_and_fixations_drawn(asked: Asked, table: Path) -> None:
    likely = looking.guessed(looking.header_of(table))
    names = ("CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION", "who", "img")
    assert likely == dict(zip(looking.COLUMNS, names, strict=True))
    drawn = looking.from_table(asked, table, likely, "milliseconds", named="mine")
    assert drawn.gaze is not None
    assert drawn.gaze.fixations[0].duration.tolist() == [0.2, 0.4]  # type: ignore[union-attr]
    assert drawn.gaze.fixations.count == 2
    panel = showing.view(drawn, PLAIN).panels[0]
    assert panel.scores is not None
    assert panel.look is not None
    from vlmattn.gaze import auc, nss

    points = np.array([[60.0, 50.0], [90.0, 80.0]])
    assert panel.scores["nss"] == pytest.approx(nss(panel.look.pixels, points))
    assert panel.scores["auc"] == pytest.approx(auc(panel.look.pixels, points))
    before = showing.view(asked, PLAIN).panels[0].overlay
    assert before is not None
    assert panel.overlay is not None
    assert (np.asarray(before.image)[50, 60] != np.asarray(panel.overlay.image)[50, 60]).any()
    assert "NSS" in markup.pictures(showing.view(drawn, PLAIN))
    assert looking.no_gaze(drawn).gaze is None


def test_seconds_that_look_like_milliseconds_are_told(asked: Asked, table: Path) -> None:
    columns = looking.guessed(looking.header_of(table)) | {"image": ""}
    assert "are they milliseconds?" in looking.from_table(asked, table, columns).gaze.told  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("columns", "options", "error", "message"),
    [
        ({"x": "CURRENT_FIX_X"}, {}, SpecError, "which column of the table is y"),
        ({"x": "nope", "y": "CURRENT_FIX_Y"}, {}, FileError, "has no column 'nope'"),
        ({"x": "who", "y": "CURRENT_FIX_Y"}, {}, FileError, "is no number"),
        ({"x": "CURRENT_FIX_X", "y": "CURRENT_FIX_Y"}, {"unit": "hours"}, SpecError, "durations are in"),
        ({"x": "CURRENT_FIX_X", "y": "CURRENT_FIX_Y", "image": "img"}, {}, FileError, "no row of 'test-3.png'"),
    ],
)
def test_tables_that_cannot_be_used_are_told(
    asked: Asked, table: Path, columns: dict[str, str], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as told:
        looking.from_table(asked, table, columns, **options)
    assert str(table.parent) not in str(told.value)


def test_no_table_is_told(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    (tmp_path / "empty.csv").write_text("x,y\n")
    for path, message in (
        (None, "no table yet"),
        (tmp_path / "a.xlsx", "is no table"),
        (tmp_path / "empty.csv", "row"),
    ):
        with pytest.raises(FileError, match=message):
            looking.header_of(path)


def test_synthetic_observers_look_for_what_the_question_names(vlm: Any, asked: Asked) -> None:
    free = looking.synthetic(asked, 2)
    assert free.gaze is not None
    assert free.gaze.synthetic
    assert "looking freely" in free.gaze.told
    assert len(free.gaze.fixations) == 2
    assert asked.scene is not None
    thing = asked.scene.objects[0].name
    search = looking.synthetic(asking.ask(vlm, asked.picture, f"Is there a {thing}?"), 1)
    assert search.gaze is not None
    assert f"looking for the {thing}" in search.gaze.told
    with pytest.raises(SpecError, match="drawn scenes only"):
        looking.synthetic(replace(asked, scene=None))


# -- sinks, pictures, files --------------------------------------------------------------------------------------------


def test_planted_sinks_are_crossed_out_and_dropped() -> None:
    one = example(0)
    asked = asking.find_sinks(asking.ask(va.load("scene-sinks"), one.picture, one.question))
    assert asked.sinks is not None
    assert len(asked.sinks.visual) == 2
    assert asking.find_sinks(asked) is asked
    plain, marked = (showing.view(asked, MapChoice(mark_sinks=m)).panels[0].overlay for m in (False, True))
    assert plain is not None
    assert marked is not None
    changed = (np.asarray(plain.image) != np.asarray(marked.image)).any(-1)
    for token in asked.sinks.visual:
        x0, y0, x1, y1 = (max(round(v), 0) for v in token.box_xyxy)  # type: ignore[union-attr]
        assert changed[y0:y1, x0:x1].mean() > 0.1
        changed[max(y0 - 6, 0) : y1 + 6, max(x0 - 6, 0) : x1 + 6] = False
    assert not changed.any()
    kept, dropped = (showing.view(asked, MapChoice(layers="1", sinks=s)).panels[0].look for s in ("keep", "drop"))
    assert kept is not None
    assert dropped is not None
    assert kept.peak_xy != dropped.peak_xy


def test_the_map_lies_on_the_picture_at_its_own_size(vlm: Any) -> None:
    photo = examples()[-1]
    asked = asking.ask(vlm, photo.picture, photo.question)
    panel = showing.view(asked, MapChoice(box=True)).panels[0]
    assert panel.overlay is not None
    assert panel.overlay.image.size == photo.picture.wh
    shown = Read(markup.pictures(showing.view(asked, PLAIN))).all("img")[0]
    assert (int(str(shown["width"])), int(str(shown["height"]))) == photo.picture.wh
    assert "highest at x" in str(shown["alt"])


def test_large_pictures_are_scaled_for_showing_only(vlm: Any) -> None:
    wide = Picture(Image.new("RGB", (3200, 400), "gray"), "wide.png")
    panel = showing.view(asking.ask(vlm, wide, "What is there?"), PLAIN).panels[0]
    assert panel.overlay is not None
    assert panel.overlay.image.size == (3200, 400)
    uri = markup.data_uri(panel.overlay.image)
    import base64
    import io

    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (1600, 200)


def test_what_cannot_be_mapped_in_another_run_is_said_in_its_panel(asked: Asked) -> None:
    both = asking.steer(asked, "vcd:seed=0")
    shown = showing.view(asking.pick(both, "plain/answer/0"), MapChoice("logit_lens"))
    assert shown.panels[0].overlay is not None
    assert shown.panels[1].overlay is None
    assert shown.panels[1].note.startswith("no map: ")
    question = asking.pick(asked, "plain/question/1")
    with pytest.raises(SpecError, match="explains what was written"):
        showing.view(question, MapChoice("relevancy"))


def test_files_hold_what_is_shown(asked: Asked, tmp_path: Path) -> None:
    both = asking.check(asking.refine(looking.synthetic(asking.steer(asked, "vcd:seed=0"), 1), "peak"))
    held = json.loads(showing.save_numbers(both, PLAIN, tmp_path).read_text(encoding="utf-8"))
    assert held["answer"] == asked.run.answer
    assert [m["run"] for m in held["maps"]] == ["plain", "steered", "again"]
    assert held["maps"][0]["gaze"]["auc"] == pytest.approx(showing.view(both, PLAIN).panels[0].scores["auc"])  # type: ignore[index]
    assert (held["steering"], held["picked"]) == ("vcd:seed=0", "plain/answer/all")
    assert held["check"]["words"]
    assert held["refinement"]["second_answer"] == both.again.answer  # type: ignore[union-attr]
    with Image.open(showing.save_overlay(asked, PLAIN, tmp_path)) as one:
        width = one.width
    assert va.overlay.read_provenance(tmp_path / "vlmattn.png")["label"] == asked.run.answer
    with Image.open(showing.save_overlay(both, PLAIN, tmp_path)) as sheet:
        assert sheet.width > width


def test_a_report_of_the_run_is_written(asked: Asked, tmp_path: Path) -> None:
    written = showing.save_report(asked, tmp_path)
    assert written.parent == tmp_path
    assert asked.run.answer in written.read_text(encoding="utf-8")


# -- markup ------------------------------------------------------------------------------------------------------------


def test_every_word_is_a_button_in_its_place(vlm: Any) -> None:
    run = vlm.ask(example(0).picture, "Is it red, or is it blue?", answer="Red, red... and blue!")
    page = Read(markup.sentences(Asked(run)))
    assert "Is it red, or is it blue?" in page.text
    assert "Red, red... and blue!" in page.text
    keys = [b["data-pick"] for b in page.all("button")]
    words = {"question": run.words("question"), "answer": run.words("answer")}
    assert [k for k in keys if k != "plain/answer/all"] == [
        f"plain/{part}/{n}" for part, spans in words.items() for n, w in enumerate(spans) if w.text[0].isalnum()
    ]
    assert [b["data-pick"] for b in page.all("button") if b["aria-pressed"] == "true"] == ["plain/answer/all"]


@pytest.mark.hostile
def test_nothing_that_comes_in_becomes_markup(vlm: Any, tmp_path: Path) -> None:
    picture = replace(example(0).picture, name=HOSTILE)
    run = vlm.ask(picture, HOSTILE, answer=HOSTILE)
    asked = Asked(run, steering=HOSTILE, steered=run, gaze=None)
    asked = replace(looking.synthetic(replace(asked, scene=example(0).scene), 1))
    asked = replace(asked, gaze=replace(asked.gaze, told=HOSTILE))  # type: ignore[type-var]
    shown = showing.view(asking.pick(asked, "plain/answer/1"), PLAIN)
    panels = tuple(replace(p, note=HOSTILE) for p in shown.panels)
    maps = markup.pictures(replace(shown, panels=panels))
    for source in (markup.sentences(asked), maps, markup.facts(asked), markup.alert(HOSTILE)):
        page = Read(source)
        allowed = {"div", "span", "button", "img", "figure", "figcaption", "strong", "ul", "li", "sub"}
        assert {tag for tag, _ in page.tags} <= allowed
        assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
        assert all(str(a["src"]).startswith("data:image/") for a in page.all("img"))
        assert "alert(1)" in page.text
    assert HOSTILE in Read(markup.alert(HOSTILE)).text


def test_a_flat_map_is_called_flat(asked: Asked) -> None:
    shown = showing.view(asked, PLAIN)
    assert "linear-gradient" in markup.pictures(shown)
    assert "flat map" in markup.pictures(replace(shown, scale=None))
    assert markup.pictures(None) == markup.WELCOME
    assert markup.sentences(None) == markup.facts(None) == ""


def test_the_bar_fades_as_the_map_does(asked: Asked) -> None:
    for opacity in (0.25, 1.0):
        page = markup.pictures(showing.view(asked, MapChoice(opacity=opacity)))
        alphas = [float(a) for a in re.findall(r"rgba\(\d+,\d+,\d+,([0-9.]+)\)", page)]
        assert alphas[0] == 0
        assert alphas[-1] == pytest.approx(opacity, abs=0.01)
        assert alphas == sorted(alphas)


def test_examples_are_buttons() -> None:
    buttons = Read(markup.gallery()).all("button")
    assert [b["data-example"] for b in buttons] == [str(n) for n in range(len(examples()))]
    assert all(isinstance(one, Example) for one in examples())


def test_the_app_is_not_imported_with_the_library() -> None:
    import subprocess

    code = "import vlmattn.app, sys; print([m for m in ('gradio', 'torch', 'fastapi') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
