"""What notebooks show: all text escaped, bounded, without script or anything from elsewhere; and rows as tables."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import vlmattn as va
from vlmattn import display
from vlmattn.core.errors import DependencyMissing, SpecError
from vlmattn.display import Facts, Rows, Shaded, Told
from vlmattn.refine import Gate

HOSTILE = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"><svg onload='window.hacked=1'>",
    "</td></table></div><h1>out</h1>",
    "&lt;b&gt; &amp;",
    "javascript:window.hacked=1",
    "'; alert(1); //",
    "$$\\href{javascript:window.hacked=1}{x}$$",
)
ALLOWED = {
    "div", "p", "span", "strong", "small", "br", "pre", "img", "details", "summary",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {"class", "style", "title", "dir", "scope", "src", "alt", "width"}


class Read(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.said = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def check_safe(page: str) -> Read:
    read = Read(page)
    assert set(read.tags) <= ALLOWED
    assert {name for name, _ in read.attributes} <= ATTRIBUTES
    assert not read.open, "every tag is closed"
    assert all(value.startswith("data:image/webp;base64,") for name, value in read.attributes if name == "src")
    assert not [value for name, value in read.attributes if name == "style" and ("url" in value or "expr" in value)]
    assert read.attributes[0] == ("class", "vlmattn tex2jax_ignore mathjax_ignore")
    return read


PARTS: dict[str, Callable[[str], Any]] = {
    "title": lambda text: display.panel(text),
    "note": lambda text: display.panel("", note=text),
    "paragraph": lambda text: display.panel("", display.paragraph(text)),
    "preformatted": lambda text: display.panel("", display.preformatted(text)),
    "head": lambda text: display.panel("", display.html_table([text], [[1]])),
    "cell": lambda text: display.panel("", display.html_table(["a"], [[text]])),
    "list in a cell": lambda text: display.panel("", display.html_table(["a"], [[[text, {"k": text}]]])),
    "fact": lambda text: display.panel("", display.facts({"a": text})),
    "name of a fact": lambda text: display.panel("", display.facts({text: 1})),
    "word": lambda text: display.panel("", display.shaded([Shaded(text, 0.5, "told")])),
    "title of a word": lambda text: display.panel("", display.shaded([Shaded("word", 0.5, text)])),
    "bar": lambda text: display.panel("", display.bar(0.5, told=text)),
    "alt": lambda text: display.panel("", display.image(Image.new("RGB", (8, 8)), text)),
    "summary": lambda text: display.panel("", display.folded(text, display.paragraph("x"))),
    "row": lambda text: Rows([{text: text}])._repr_html_(),
    "row title": lambda text: Rows([{"a": 1}], title=text, note=text)._repr_html_(),
    "facts": lambda text: Facts({text: text})._repr_html_(),
}


@pytest.mark.hostile
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(part: str, text: str) -> None:
    read = check_safe(PARTS[part](text))
    assert text in read.said or text in [value for _, value in read.attributes]


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b\x1b[31m", "a\ufffdb\ufffd[31m"),
        ("lone \ud800", "lone \ufffd"),
        ("over\u202eride", "over\ufffdride"),
        ("line\nbreak\ttab\r", "line\nbreak\ttab\r"),
        ("猫 😀 é שלום", "猫 😀 é שלום"),
        ("", ""),
    ],
)
def test_what_cannot_be_shown_is_replaced(text: str, shown: str) -> None:
    made = str(display.text(text))
    made.encode("utf-8")
    assert made == shown


@pytest.mark.hostile
def test_long_text_and_long_tables_are_cut_and_say_so() -> None:
    assert str(display.text("<" * 5000, 10)) == "&lt;" * 10 + "… (5,000 characters)"
    page = display.panel("x" * 10**6, display.html_table(["n"], [[n] for n in range(10**4)]), note="y" * 10**6)
    assert len(page) < 40_000
    assert "… and 9,940 more rows" in page
    words = display.shaded([Shaded("word ", 0.5, "t" * 10**5)] * 5000)
    assert len(words) < 500_000
    assert "23,000 characters more" in words


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "–"),
        (math.nan, "–"),
        (True, "True"),
        (0.12345, "0.123"),
        (12345.6, "12,346"),
        (12345, "12,345"),
        ((1.0, None), "1, –"),
        ({"a": 0.5}, "a 0.5"),
        ([], "–"),
        (math.inf, "inf"),
        ("x", "x"),
    ],
)
def test_values_in_few_characters(value: object, told: str) -> None:
    assert display.said(value) == told


@pytest.mark.parametrize(("share", "width"), [(-1.0, "0%"), (0.0, "0%"), (0.256, "26%"), (1.0, "100%"), (7.0, "100%")])
def test_bars_stay_within_their_frame(share: float, width: str) -> None:
    assert f"width:{width};" in display.bar(share)


def test_a_bar_of_what_is_not_known_is_a_dash() -> None:
    assert display.bar(None) == display.bar(math.nan) == "–"


def test_colour_is_on_one_scale_whatever_the_largest_share_is() -> None:
    one = display.shaded([Shaded("a", 0.1), Shaded("b", 0.2)])
    other = display.shaded([Shaded("a", 0.1), Shaded("b", 1.0)])
    assert re.findall(r"rgba\([\d,.]+\)", one)[0] == re.findall(r"rgba\([\d,.]+\)", other)[0]


# -- pictures ----------------------------------------------------------------------------------------------------------


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_picture_of_twelve_megapixels_becomes_a_small_preview_that_says_so() -> None:
    sheet = va.overlay.Sheet(noise(4000, 3000), {"title": "t", "cells": [[1]]})
    data, metadata = sheet._repr_mimebundle_()
    (kind,) = set(data) - {"text/plain"}
    content = base64.b64decode(data[kind])
    assert len(content) < 500_000
    with Image.open(io.BytesIO(content)) as image:
        assert image.width == 1024
        assert image.height > 768  # a line below says how large it is
        assert (image.width, image.height) == (metadata[kind]["width"], metadata[kind]["height"])
    assert "4000x3000" in data["text/plain"] == metadata[kind]["alt"] == repr(sheet)
    page = display.panel("", display.image(sheet.image, "x"))
    assert len(page) < 300_000
    assert "640 x 480 preview of 4000 x 3000 pixels" in check_safe(page).said


@pytest.mark.parametrize("wh", [(1, 1), (1, 5000), (5000, 1), (1024, 1024)])
def test_odd_pictures_are_shown_too(wh: tuple[int, int]) -> None:
    small = display.shrunk(Image.new("L", wh, 200))
    assert max(small.image.size) <= 1024
    assert min(small.image.size) >= 1
    assert small.whole_wh == wh
    assert bool(small.said) == (wh != small.image.size)
    check_safe(display.panel("", display.image(Image.new("RGBA", wh), "x")))
    assert va.overlay.Sheet(Image.new("RGB", wh), {})._repr_mimebundle_()


def test_flat_pictures_are_png_and_noisy_ones_jpeg() -> None:
    assert display.coded(Image.new("RGB", (900, 900)))[0] == "image/png"
    assert display.coded(noise(900, 900))[0] == "image/jpeg"


# -- rows --------------------------------------------------------------------------------------------------------------


class Head(NamedTuple):
    layer: int
    value: float | None


@dataclass(frozen=True)
class Line:
    name: str
    where: dict[str, float]


def test_rows_are_the_list_that_they_were() -> None:
    rows = Rows([Head(0, 1.0), Head(1, None)])
    assert rows == [Head(0, 1.0), Head(1, None)]
    assert rows[1:] == [Head(1, None)]
    assert repr(rows) == repr([Head(0, 1.0), Head(1, None)])
    assert isinstance(rows, list)


@pytest.mark.parametrize(
    ("items", "dicts"),
    [
        ([Head(0, 0.5)], [{"layer": 0, "value": 0.5}]),
        ([Line("a", {"x": 1.0})], [{"name": "a", "where": {"x": 1.0}}]),
        ([{"b": 1}, {"c": 2}], [{"b": 1}, {"c": 2}]),
        ([], []),
    ],
)
def test_rows_become_dicts(items: list[Any], dicts: list[dict[str, Any]]) -> None:
    assert Rows(items).to_dicts() == dicts


def test_rows_without_fields_are_refused() -> None:
    with pytest.raises(SpecError, match="got int"):
        Rows([1]).to_dicts()


def test_rows_become_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = Rows([Line("a", {"x": 1.0, "y": 2.0}), Line("b", {"x": 3.0})]).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["name", "where.x", "where.y"]
    assert frame["where.x"].tolist() == [1.0, 3.0]
    assert math.isnan(frame["where.y"][1])
    assert display.data_frame({"a": [1, 2]})["a"].tolist() == [1, 2]


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def absent(name: str) -> Any:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(DependencyMissing, match=r"pip install 'vlmattn\[notebook\]'"):
        Rows([{"a": 1}]).to_pandas()


def pretty(value: object) -> str:
    return str(pytest.importorskip("IPython.lib.pretty").pretty(value))


def test_in_a_terminal_rows_are_a_table_of_bounded_length() -> None:
    told = pretty(Rows([{"word": "a", "share": display.bar(0.25)}, {"word": "long one", "share": display.bar(1.0)}]))
    assert told.splitlines() == ["word      share", "a          0.25", "long one   1.00"]
    assert len(pretty(Rows([{"n": n} for n in range(10**4)])).splitlines()) < 70
    assert pretty(Rows([])) == "[]"


def test_what_is_told_is_told_in_a_notebook_and_a_terminal_alike() -> None:
    @dataclass(frozen=True)
    class Result(Told):
        value: int

        def __str__(self) -> str:
            return f"  <{self.value}>\nsecond line"

    assert pretty(Result(3)) == "  <3>\nsecond line"
    assert check_safe(Result(3)._repr_html_()).said == "  <3>\nsecond line"


# -- real results ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return va.load("scene")


@pytest.fixture(scope="module")
def scene() -> Any:
    return va.scene.split_item("test", seed=0, index=9)[0]


@pytest.fixture(scope="module")
def run(vlm: va.Vlm, scene: Any) -> va.Run:
    return vlm.ask(scene.image, "Please describe the picture.")


def no_model(*_: object, **__: object) -> Any:
    raise AssertionError("the model ran")


def test_a_run_shows_question_answer_words_and_map_without_running_again(
    run: va.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.vlm.model, "forward", no_model)
    page = run._repr_html_()
    read = check_safe(page)
    assert len(page) < 100_000
    assert run.question in read.said
    assert run.answer in read.said
    assert read.tags.count("img") == 1
    first = run.grounding()[0]
    titles = [value for name, value in read.attributes if name == "title"]
    assert titles[0] == f"{first.word}: {first.image_share:.0%} on the picture"
    assert len(titles) == len(run.grounding())


def test_a_checked_run_is_coloured_by_risk(vlm: va.Vlm, scene: Any) -> None:
    run = vlm.ask(scene.image, "Is there a purple ring?", check=True)
    assert run.checked is not None
    read = check_safe(run._repr_html_())
    word = run.checked.words[0]
    assert f"risk {word.risk:.0%}" in [value for name, value in read.attributes if name == "title"]
    assert "risk of being made up" in read.said
    check_safe(run.checked._repr_html_())
    assert run.checked.to_dicts()[0]["risk"] == word.risk


@pytest.mark.hostile
def test_a_hostile_answer_and_question_stay_text(vlm: va.Vlm, scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = vlm.ask(scene.image, "Is there a <script>alert(1)</script>?", answer="yes")
    whole = run.trace.layout.text
    at, end = run.words()[0].char_span
    # The small model cannot write this; a large one can.
    monkeypatch.setitem(run.trace.layout.__dict__, "text", whole[:at] + "<b>" + whole[end:])
    read = check_safe(run._repr_html_())
    assert "<b>" in read.said
    assert "script" not in read.tags


def test_what_was_not_kept_is_left_out(vlm: va.Vlm, scene: Any) -> None:
    run = vlm.ask(scene.image, "How many objects are there?", capture=va.CaptureSpec(rows="question"))
    read = check_safe(run._repr_html_())
    assert run.answer in read.said
    assert read.tags.count("img") == 1


def test_several_pictures_and_videos_have_theirs(vlm: va.Vlm, scene: Any) -> None:
    small = scene.image.resize((60, 40))
    run = vlm.ask([scene.image, small], "How many objects are there?")
    assert check_safe(run._repr_html_()).tags.count("img") == 2


def test_a_refinement_shows_both_looks_and_asks_for_none(run: va.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    closer = run.refine()
    with monkeypatch.context() as held:
        held.setattr(run.vlm.model, "forward", no_model)
        page = check_safe(closer._repr_html_())
    assert page.tags.count("img") == 2
    assert "second answer" not in page.said
    again = closer.ask_again()
    assert again.answer in check_safe(closer._repr_html_()).said
    sure = run.refine(when="uncertain", gate=Gate(bias=-100.0))
    assert "not needed" in check_safe(sure._repr_html_()).said


def test_looks_and_sheets_are_pictures_with_words_for_them(run: va.Run) -> None:
    look = run.map("blue")
    for shown in (look, look.overlay(), run.sheet("blue")):
        data, metadata = shown._repr_mimebundle_()
        (kind,) = set(data) - {"text/plain"}
        assert kind.startswith("image/")
        assert data["text/plain"] == repr(shown) == metadata[kind]["alt"]
        assert len(data[kind]) < 400_000
        assert not hasattr(shown, "_repr_png_"), "a second one would be stored beside it, unbounded"


def test_tables_of_a_run(run: va.Run) -> None:
    words = run.grounding()
    assert isinstance(words, Rows)
    assert words.to_dicts() == [word.to_dict() for word in words]
    check_safe(words._repr_html_())
    found = run.detect(scores=["nll", "image_share"])
    read = check_safe(found._repr_html_())
    assert "nll" in read.said
    assert [row["text"] for row in found.to_dicts()] == [one.text for one in (*found.words, *found.objects)]
    assert pretty(found) == str(found)
    check_safe(run.trace._repr_html_())
    assert f"{len(run.trace.layers)} layers" in run.trace._repr_html_()


def test_what_a_model_is_and_what_a_capture_costs(vlm: va.Vlm, scene: Any) -> None:
    assert "llava" in check_safe(vlm._repr_html_()).said
    assert vlm.describe()["family"] == "llava"
    _, cost = vlm.plan(scene.image, "How many objects are there?")
    read = check_safe(cost._repr_html_())
    assert "image columns" in read.said
    assert pretty(cost) == str(cost)


def test_sinks_found_and_not_found() -> None:
    from vlmattn.sinks import Sinks

    assert issubclass(Sinks, display.Tabular)
    vlm = va.load("scene-sinks")
    run = vlm.ask(Image.new("RGB", (90, 90), (90, 120, 90)), "How many objects are there?")
    found = run.sinks()
    read = check_safe(found._repr_html_())
    assert "2 visual and 0 text sinks" in read.said
    assert [row["position"] for row in found.to_dicts()] == [token.position for token in found.tokens]
    plain = va.load("scene").ask(Image.new("RGB", (90, 90)), "How many objects are there?").sinks()
    assert "no sinks found" in check_safe(plain._repr_html_()).said


def test_an_atlas_and_scores() -> None:
    values = {"mass": np.array([[0.2, 0.6], [0.1, np.nan]])}
    atlas = va.heads.HeadAtlas("<i>mine</i>", 2, (0, 1), values, values, values, {"mass": 5})
    read = check_safe(atlas._repr_html_())
    assert "<i>mine</i>" in read.said
    assert atlas.to_dicts()[3] == {"layer": 1, "head": 1, "mass": None, "mass.low": None, "mass.high": None}
    score = va.hallucination.Score("b", {"accuracy": 0.5}, {"accuracy": {"1": 1.0, "2": 0.0}}, {"parser": "<p>"})
    assert "<p>" in check_safe(score._repr_html_()).said
    assert score.to_dicts() == [{"id": "1", "accuracy": 1.0}, {"id": "2", "accuracy": 0.0}]
    assert pretty(score) == str(score) == "b: accuracy 0.5"


def test_tables_of_gaze() -> None:
    from vlmattn import gaze

    path = gaze.Scanpath([30.5, 52.0], [41.0, 60.5], (96, 96), image="<u>", subject="s1")
    people = gaze.Fixations([path] * 100)
    read = check_safe(people._repr_html_())
    assert "<u>" in read.said
    assert "40 more rows" in read.said
    assert people.to_dicts()[1]["x"] == 52.0
    scores = gaze.score_maps({"<u>": gaze.centre_map((96, 96))}, gaze.Pictures(people, sigma=6.0))
    assert "mean over pictures" in check_safe(scores._repr_html_()).said
    assert scores.to_dicts()[0]["image"] == "<u>"


def test_every_rich_result_is_safe_where_a_class_has_html() -> None:
    """Classes with a ``_repr_html_`` of their own build it from the parts above, never from text alone."""
    root = Path(va.__file__).parent
    builders = [path for path in root.rglob("*.py") if "_repr_html_" in path.read_text(encoding="utf-8")]
    assert len(builders) > 15
    raw = re.compile(r"""["']<(?:div|p|b|span|table|img|script|pre|td|tr)\b""")
    for path in root.rglob("*.py"):
        if path.parts[-2] == "display" or path.name in ("svg.py", "pages.py"):
            continue
        if "vlmattn.display" in path.read_text(encoding="utf-8"):
            assert not raw.search(path.read_text(encoding="utf-8")), path


# -- a browser ---------------------------------------------------------------------------------------------------------


def test_a_browser_shows_pictures_and_runs_nothing(run: va.Run, browser: Any, tmp_path: Path) -> None:
    parts = [make(text) for make in PARTS.values() for text in HOSTILE]
    page_file = tmp_path / "page.html"
    body = "".join([run._repr_html_(), run.refine()._repr_html_(), *parts])
    page_file.write_text(f"<meta charset=utf-8><body style='background:#111;color:#ddd'>{body}", encoding="utf-8")
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert page.evaluate("window.hacked") is None
    widths = page.evaluate("[...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    assert len(widths) >= 3
    assert all(widths)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.querySelectorAll('script, iframe, link, style').length") == 0
    colour = page.evaluate("getComputedStyle(document.querySelector('.vlmattn td')).color")
    assert colour == "rgb(221, 221, 221)", "text keeps the page's colour, so that it reads on dark pages"
