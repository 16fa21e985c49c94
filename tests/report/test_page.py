"""The page in a real browser: what it draws, how it is used, and that nothing of the payload runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import traces
from tests.report.made import picture_of, trace_of
from tests.report.opened import WIDE, Opened, opened
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.videos import Video
from vlmattn.grid import to_pixels
from vlmattn.maps import raw_attention
from vlmattn.report import panel_of
from vlmattn.report.from_trace import spans_of

HOSTILE = (
    "</script><script>window.ran=1</script><img src=x onerror=window.ran=1><!-- \u2028 \"'`&amp; \u202eexe.gpj ${1}"
)


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Two tiles over one place; four words of a question, and three of an answer."""
    panel = panel_of(
        traces.trace(), [picture_of((40, 20))], boxes=(), judged={6: {"risk": 0.9}, 7: {"risk": 0.3}}, risk_by="by hand"
    )
    return opened(browser, tmp_path_factory.mktemp("page"), panel)


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Any:
    if "page" in request.fixturenames:
        page = request.getfixturevalue("page")
        page.page.reload()
        page.page.wait_for_selector("html[data-ready]")
    yield
    if "page" in request.fixturenames:
        assert page.wrong == []


def drawn_levels(trace: Any, what: Any, ends: tuple[float, float], **options: Any) -> Any:
    """Step of the colour scale of every pixel of the original, by the library's own way to pixels."""
    pixels = to_pixels(raw_attention(trace, what, **options), merge="mean", kind="density")
    level = np.rint(255 * (pixels.values - ends[0]) / (ends[1] - ends[0])).clip(0, 255)
    return np.where(pixels.seen, level, -1)


def test_the_canvas_shows_the_maps(page: Opened) -> None:
    trace = traces.trace()
    page.switch("Map only").click()
    for text, what in (("cup", spans_of(trace)[4]), ("not", spans_of(trace)[7]), ("whole answer", None)):
        page.word(text).click()
        for layers in ([0, 1], [1]):
            page.slide("To layer", 1)
            page.slide("From layer", layers[0])
            wanted = drawn_levels(trace, what, page.ends(), layers=layers)
            assert np.abs(page.levels((40, 20)) - wanted).max() <= 1
            page.slide("From layer", 0)
    assert len(np.unique(page.levels((40, 20)))) > 3


def test_the_scale_reaches_the_highest_of_all_words(page: Opened) -> None:
    trace = traces.trace()
    pixels = [
        to_pixels(raw_attention(trace, span), merge="mean", kind="density").values.max() for span in spans_of(trace)[1:]
    ]
    page.word("the").hover()
    assert page.ends() == (0, pytest.approx(max(pixels), rel=5e-3))
    page.word("cup").hover()
    page.choose("Colour scale", "word")
    assert page.ends()[1] == pytest.approx(pixels[3], rel=5e-3)


def test_an_even_look_is_one(page: Opened) -> None:
    page.choose("Values", "even")
    page.choose("Colour scale", "word")
    trace = traces.trace()
    from vlmattn.maps import normalise

    page.word("not").hover()
    pixels = to_pixels(normalise(raw_attention(trace, "not"), "uniform"), merge="mean", kind="density")
    assert page.ends()[1] == pytest.approx(float(pixels.values.max()), rel=1e-2)


def test_hovering_shows_and_clicking_keeps(page: Opened) -> None:
    page.word("not").hover()
    assert page.status.startswith("not · all 2 layers · peak at")
    page.word("cup").click()
    assert page.word("cup").get_attribute("aria-pressed") == "true"
    page.word("not").hover()
    assert page.status.startswith("not ·")
    page.page.locator("h1").hover()
    assert page.status.startswith("cup ·")
    page.word("cup").click()
    assert page.word("cup").get_attribute("aria-pressed") == "false"


def test_the_keyboard_walks_words_and_layers_and_gets_away(page: Opened) -> None:
    keys = page.page.keyboard
    page.word("Is").focus()
    walked = [page.status.partition(" ·")[0]]
    for _ in range(4):
        keys.press("ArrowRight")
        walked.append(page.status.partition(" ·")[0])
    assert walked == ["Is", "the", "red (question, 1 of 2)", "cup", "red (question, 2 of 2)"]
    keys.press("ArrowLeft")
    assert page.status.startswith("cup")
    keys.press("End")
    assert page.status.startswith("whole answer")
    keys.press("Home")
    assert page.status.startswith("Is")
    told = []
    for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown"):
        keys.press(key)
        told.append(page.status.split(" · ")[1])
    assert told == ["layer 0 of 0 to 1", "layer 1 of 0 to 1", "all 2 layers", "layer 1 of 0 to 1"]
    page.page.set_viewport_size({"width": 800, "height": 240})
    before = page.page.evaluate("scrollY")
    keys.press("ArrowDown")
    assert page.page.evaluate("scrollY") == before, "the arrow keys go through layers, and do not scroll as well"
    page.page.set_viewport_size(WIDE)
    keys.press("Enter")
    assert page.word("Is").get_attribute("aria-pressed") == "true"
    keys.press("Escape")
    assert page.word("Is").get_attribute("aria-pressed") == "false"
    keys.press("Tab")
    assert page.page.evaluate("document.activeElement.className") != "word"
    keys.press("Shift+Tab")
    assert "word" in page.page.evaluate("document.activeElement.className")


def test_every_control_is_reached_by_tab_once_and_has_a_name(page: Opened) -> None:
    count = page.page.locator("button:not(.word), input, select, summary").count() + 1
    page.page.locator("body").click(position={"x": 2, "y": 2})
    reached = []
    for _ in range(count):
        page.page.keyboard.press("Tab")
        reached.append(page.page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(set(reached)) == count
    assert reached == sorted(reached)
    last = "[...document.querySelectorAll('summary')].at(-1) === document.activeElement"
    assert page.page.evaluate(last), "the words of a panel are one stop"
    tree = page.page.context.new_cdp_session(page.page).send("Accessibility.getFullAXTree")["nodes"]
    names: dict[str, list[str]] = {}
    for node in tree:
        if not node.get("ignored"):
            role, name = node.get("role", {}).get("value"), node.get("name", {}).get("value", "")
            names.setdefault(role, []).append(name.strip())
    for role in ("button", "slider", "combobox", "image", "region", "heading", "DisclosureTriangle"):
        assert names[role]
        assert all(names[role]), role
    assert names["slider"] == ["From layer", "To layer", "Opacity"]
    assert names["combobox"] == ["Heads", "Values", "Colour scale", "Colour words by"]
    assert len(names["status"]) == 1


def test_the_live_region_tells_word_layer_peak_and_share(page: Opened) -> None:
    page.word("cup").focus()
    page.page.keyboard.press("ArrowUp")
    trace = traces.trace()
    look = raw_attention(trace, "cup", layers=[0])
    pixels = to_pixels(look, merge="mean", kind="density")
    x, y = pixels.peak_xy
    share = float(trace.mass("image:0")[0, :, 4].mean())
    told = f"peak at {x:g}, {y:g} ({_three(float(pixels.values.max()))})"
    assert page.status == (
        f"cup · layer 0 of 0 to 1 · {told} · {_three(100 * share)} % of its attention on the picture"
    )


def _three(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def test_risk_has_a_colour_and_a_sign_and_is_told(page: Opened) -> None:
    high, middle = (page.page.locator(".answer .word").nth(n) for n in (0, 1))
    assert "risk-high" in high.get_attribute("class")
    assert high.locator(".sign").inner_text() == "✗"
    assert high.get_attribute("aria-label") == "red (answer, 1 of 2), risk 90 %"
    assert "risk-middle" in middle.get_attribute("class")
    assert middle.locator(".sign").inner_text() == "?"
    assert "wavy" in high.evaluate("(node) => getComputedStyle(node).textDecoration")
    page.choose("Colour words by", "share")
    assert "risk-high" not in high.get_attribute("class")
    assert "% on the picture" in high.get_attribute("aria-label")


def test_opacity_and_switches_do_what_they_say(page: Opened) -> None:
    page.word("cup").click()
    strong = page.pixels()[..., 3].max()
    page.slide("Opacity", 20)
    assert page.pixels()[..., 3].max() < strong / 2
    assert page.page.locator(".mark.peak").count() == 2
    page.switch("Peak").click()
    assert page.page.locator(".mark.peak").count() == 0
    assert page.page.locator(".mark.own").count() == 0
    page.switch("Box of the top tenth").click()
    box = to_pixels(raw_attention(traces.trace(), "cup"), merge="mean", kind="density").box_xyxy()
    assert page.page.locator(".mark.own").last.get_attribute("d") == f"M{box[0]} {box[1]}H{box[2]}V{box[3]}H{box[0]}Z"
    page.switch("Map only").click()
    assert set(np.unique(page.pixels()[..., 3])) == {255}
    assert page.page.locator(".stage img").evaluate("(node) => getComputedStyle(node).visibility") == "hidden"


def test_words_in_numbers(page: Opened) -> None:
    page.page.get_by_text("All words in numbers").click()
    page.page.locator("tbody tr").first.wait_for()  # browsers tell of an opened part a moment later
    assert page.page.locator("tbody tr").count() == 9
    row = page.page.locator("tbody tr").nth(4).inner_text()
    assert row.startswith("cup\tquestion\t")


def test_it_asks_for_nothing_but_itself(page: Opened) -> None:
    assert {url for url in page.asked if not url.startswith("data:")} == {page.page.url}
    policy = page.page.locator("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_dark_and_print(page: Opened) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.page.evaluate(paper)
    page.page.emulate_media(color_scheme="dark")
    dark = page.page.evaluate(paper)
    page.page.emulate_media(color_scheme="dark", media="print")
    printed = page.page.evaluate(paper)
    assert light != dark
    assert printed == "rgb(255, 255, 255)"
    assert not page.page.get_by_role("slider").first.is_visible()
    assert page.page.locator(".stage canvas").is_visible()
    page.page.emulate_media(color_scheme="light", media="screen", reduced_motion="reduce")
    assert page.word("cup").evaluate("(node) => getComputedStyle(node).transitionDuration") == "0s"
    page.page.emulate_media(color_scheme="light", media="screen", reduced_motion="no-preference")


@pytest.mark.parametrize("panels", [1, 3])
def test_a_narrow_window_needs_no_sideways_scrolling(browser: Any, tmp_path: Path, panels: int) -> None:
    long = trace_of("What " + "o" * 90, "supercalifragilistic" * 6 + " cup", seed=1)
    shown = opened(
        browser,
        tmp_path,
        [panel_of(long, [picture_of()])] * panels,
        context={"viewport": {"width": 400, "height": 800}},
    )
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert not shown.wrong


@pytest.mark.hostile
def test_nothing_of_the_payload_runs(browser: Any, tmp_path: Path) -> None:
    trace = trace_of(HOSTILE, HOSTILE)
    panel = panel_of(trace, [picture_of(name=HOSTILE)], title=HOSTILE, boxes=())
    shown = opened(browser, tmp_path, panel, title=HOSTILE)
    assert shown.wrong == []
    assert shown.page.evaluate("window.ran") is None
    assert {url for url in shown.asked if not url.startswith("data:")} == {shown.page.url}
    assert shown.page.locator("script").count() == 2
    assert shown.page.locator("article img").count() == 1
    said = shown.page.locator(".answer").evaluate("(node) => node.textContent")
    assert said.replace("✗", "") == HOSTILE
    assert "[U+202E]" in shown.page.title()
    assert shown.word("script").evaluate("(node) => getComputedStyle(node).unicodeBidi") == "isolate"


def test_boxes_hold_the_top_tenth_as_the_library_has_it(browser: Any, tmp_path: Path) -> None:
    fine = ImageLayout((120, 120), (Tile("base", (12, 12), (0, 0, 120, 120)),))
    trace = trace_of(images=[fine], seed=4)
    shown = opened(browser, tmp_path, [panel_of(trace, [picture_of((120, 120))])])
    shown.switch("Box of the top tenth").click()
    for word in ("red", "cup"):
        shown.word(word).hover()
        pixels = to_pixels(raw_attention(trace, word), merge="mean", kind="density")
        x0, y0, x1, y1 = pixels.box_xyxy()
        assert pixels.box_xyxy(quantile=0.8) != (x0, y0, x1, y1)
        assert shown.page.locator(".mark.own").last.get_attribute("d") == f"M{x0} {y0}H{x1}V{y1}H{x0}Z"
    assert not shown.wrong


def test_a_box_leaves_out_what_has_the_lowest_value(browser: Any, tmp_path: Path) -> None:
    fine = ImageLayout((120, 120), (Tile("base", (12, 12), (0, 0, 120, 120)),))
    trace = trace_of(images=[fine])
    trace.attn_lhqk[..., [n for n in range(144) if n not in (40, 41)]] = 0.0
    shown = opened(browser, tmp_path, [panel_of(trace, [picture_of((120, 120))])])
    shown.switch("Box of the top tenth").click()
    shown.word("red").hover()
    assert to_pixels(raw_attention(trace, "red"), merge="mean", kind="density").box_xyxy() == (40, 30, 60, 40)
    assert shown.page.locator(".mark.own").last.get_attribute("d") == "M40 30H60V40H40Z"
    assert not shown.wrong


def test_panels_share_one_scale(browser: Any, tmp_path: Path) -> None:
    one, other = trace_of(answer="a red cup", seed=1), trace_of(answer="a blue cup", seed=2, layers=6, peaked=9)
    shown = opened(
        browser,
        tmp_path,
        [panel_of(one, [picture_of()], title="plain"), panel_of(other, [picture_of()], title="steered")],
    )
    shown.switch("Map only").click()
    shown.word("cup").hover()
    ends = shown.ends()
    for stage, trace in enumerate((one, other)):
        wanted = drawn_levels(trace, "cup", ends)
        assert np.abs(shown.levels((60, 40), stage) - wanted).max() <= 1
    first, highest = (
        max(to_pixels(raw_attention(t, s), kind="density").values.max() for s in spans_of(t)[1:]) for t in (one, other)
    )
    assert highest > 1.2 * first
    assert ends[1] == pytest.approx(highest, rel=1e-2)
    shown.word("blue", 1).hover()
    said = shown.page.locator("article").nth(0).locator(".said").inner_text()
    assert "this answer lacks the word: whole answer" in said
    # Six layers: the third of them lies where the second of three does.
    shown.slide("From layer", 2)
    shown.slide("To layer", 3)
    assert "layer 1 of 0 to 2" in shown.page.locator("article").nth(0).locator(".said").inner_text()
    assert not shown.wrong


def test_methods_of_other_units_are_compared_as_even_looks(browser: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    panel = panel_of(trace_of(), [picture_of()])
    shown = opened(browser, tmp_path, [panel, replace(panel, method="relative attention", unit="times")])
    assert shown.page.get_by_label("Values").input_value() == "even"
    assert shown.page.locator("option[value=raw]").is_disabled()


def test_what_was_not_seen_is_hatched(browser: Any, tmp_path: Path) -> None:
    cropped = ImageLayout((60, 40), (Tile("base", (4, 4), (10, 0, 50, 40), lost=((0, 0),)),))
    shown = opened(browser, tmp_path, panel_of(trace_of(images=[cropped]), [picture_of()]))
    path = shown.page.locator(".unseen").get_attribute("d")
    rows = ("0 0H20V10H0", "50 0H60V10H50", "0 10H10V20H0", "50 10H60V20H50", "0 20H10V30H0", "50 20H60V30H50")
    assert path == "".join(f"M{row}Z" for row in (*rows, "0 30H10V40H0", "50 30H60V40H50"))
    shown.switch("Map only").click()
    levels = shown.levels((60, 40))
    assert (levels[:, :10] == -1).all()
    assert (levels[10:, 10:50] >= 0).all()
    shown.switch("Unseen area").click()
    assert shown.page.locator(".unseen").count() == 0


def test_a_frame_of_a_video_is_chosen(browser: Any, tmp_path: Path) -> None:
    tiles = tuple(Tile("base", (2, 3), (0, 0, 60, 40), frames=group) for group in ((0, 1), (2,)))
    layout = ImageLayout((60, 40), tiles, times=(0.0, 0.5, 1.0))
    trace = trace_of(images=[layout])
    video = Video([np.full((40, 60, 3), 60 * n, np.uint8) for n in range(3)], fps=2.0)
    shown = opened(browser, tmp_path, panel_of(trace, [video]))
    shown.switch("Map only").click()
    shown.word("cup").click()
    slider = shown.page.get_by_role("slider").first
    assert "with frame 1" in slider.get_attribute("aria-valuetext")
    source = shown.page.locator(".stage img").get_attribute("src")
    for frame in (1, 2):
        slider.fill(str(frame))
        pixels = to_pixels(raw_attention(trace, "cup").frame(frame), kind="density")
        wanted = np.rint(255 * pixels.values / shown.ends()[1])
        assert np.abs(shown.levels((60, 40)) - wanted).max() <= 1
    assert shown.page.locator(".stage img").get_attribute("src") != source
    assert not shown.wrong


def test_a_flat_map_is_called_flat(browser: Any, tmp_path: Path) -> None:
    trace = trace_of()
    even = np.full_like(trace.attn_lhqk, 0.01)
    from dataclasses import replace

    shown = opened(browser, tmp_path, panel_of(replace(trace, attn_lhqk=even), [picture_of()]))
    assert "flat, no peak" in shown.status
    assert (shown.pixels()[..., 3] == 0).all()


def test_without_a_script_question_and_answer_are_there(browser: Any, tmp_path: Path) -> None:
    from vlmattn.report import write_report

    path = write_report(tmp_path / "page.html", panel_of(trace_of(HOSTILE, "a <b>cup</b>"), [picture_of()]))
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(path.as_uri())
    assert "a <b>cup</b>" in page.locator("noscript").inner_text()


def test_every_verdict_has_its_colour() -> None:
    from importlib.resources import files
    from typing import get_args

    from vlmattn.faithfulness.verdict import Verdict

    script = (files("vlmattn.report") / "words.js").read_text(encoding="utf-8")
    for verdict in get_args(Verdict):
        assert f"{verdict}: " in script


def test_a_whole_answer_has_its_own_scale(page: Opened) -> None:
    page.word("whole answer").hover()
    pixels = to_pixels(raw_attention(traces.trace()), merge="mean", kind="density")
    assert page.ends()[1] == pytest.approx(float(pixels.values.max()), rel=5e-3)
    assert "scale of the whole answer" in page.page.locator(".unit").inner_text()


def test_it_begins_with_the_sharpest_word_of_the_answer(page: Opened) -> None:
    heights = [
        to_pixels(raw_attention(traces.trace(), s), merge="mean", kind="density").values.max()
        for s in spans_of(traces.trace())[6:]
    ]
    names = ["red (answer, 1 of 2)", "not", "Red (answer, 2 of 2)"]
    assert page.status.startswith(f"{names[int(np.argmax(heights))]} ·")


def test_what_is_folded_is_printed_open(page: Opened) -> None:
    page.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.page.locator("details:not([open])").count() == 0
    assert page.page.locator("tbody tr").count() == 9
    page.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.page.locator("details[open]").count() == 0
