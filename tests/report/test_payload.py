"""The file: its schema, its pictures, its size, and how it is read back."""

from __future__ import annotations

import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.report.made import picture_of, trace_of
from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.images import Picture
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.grid import QuantisedGrids
from vlmattn.report import panel_of, read_report, report_html, write_report
from vlmattn.report.payload import OPENING, to_script
from vlmattn.report.pictures import PictureStore, encoded, visible

HOSTILE = "</script><!-- \u2028 \u202e \"'& \ud800"


def panel(**options: Any) -> Any:
    return panel_of(trace_of(), [picture_of()], **options)


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    one = panel(title="one")
    held = read_report(write_report(tmp_path / "page.html", [one, panel(title="two")], title="Both"))
    assert (held["kind"], held["version"], held["title"]) == ("vlmattn report", 1, "Both")
    assert [p["title"] for p in held["panels"]] == ["one", "two"]
    assert len(held["pictures"]) == 1
    grids = QuantisedGrids.from_dict(held["panels"][0]["views"][0]["grids"])
    assert (grids.values == one.views[0].grids.values).all()
    tile = held["panels"][0]["pictures"][0]["tiles"][0]
    assert tile["grid_hw"] == [4, 6]
    assert tile["cols"][1] == [10, 20]
    assert tile["first_cell"] == 0
    assert held["panels"][0]["provenance"]["method"] == "raw"


def test_every_field_is_told_in_the_docs() -> None:
    docs = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    held = json.loads(re.search(r'id="payload">(.*?)</script>', report_html(panel()))[1])  # type: ignore[index]

    def names(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {n for k, one in value.items() if k not in ("provenance", "times") for n in names(one)}
        return {n for one in value for n in names(one)} if isinstance(value, list) else set()

    assert {n for n in names(held) if f"`{n}`" not in docs} == set()


@pytest.mark.hostile
def test_json_cannot_end_its_element() -> None:
    text = to_script({"a": HOSTILE, "b": ["<", ">", "&", "\u2029"]})
    assert not set(text) & set("<>&\u2028\u2029")
    assert text.isascii()
    assert json.loads(text) == {"a": HOSTILE, "b": ["<", ">", "&", "\u2029"]}


@pytest.mark.hostile
def test_text_that_cannot_be_seen_is_spelt_out() -> None:
    assert visible("a\u202eb\u2028c\x00d\ufeff") == "a[U+202E]b[U+2028]c[U+0000]d[U+FEFF]"
    assert visible("rød 猫 🐈") == "rød 猫 🐈"


@pytest.mark.hostile
def test_a_lone_surrogate_in_a_name_is_written(tmp_path: Path) -> None:
    named = panel_of(trace_of(), [picture_of(name="a\ud800.png")])
    assert read_report(write_report(tmp_path / "page.html", named))["pictures"][0]["name"] == "a[U+D800].png"


def test_the_policy_names_the_very_script_and_style() -> None:
    import base64
    import hashlib

    page = report_html(panel())
    script = re.search(r"<script>(.*?)</script>", page, flags=re.DOTALL)[1]  # type: ignore[index]
    style = re.search(r"<style>(.*?)</style>", page, flags=re.DOTALL)[1]  # type: ignore[index]
    for text in (script, style):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


@cache
def photograph() -> Image.Image:
    """12 megapixels with the grain of a sensor, which is what compresses worst."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize(
        (4000, 3000), Image.Resampling.BICUBIC
    )
    grain = rng.integers(-12, 13, (300, 400, 3), dtype=np.int16)
    pixels = np.asarray(small).astype(np.int16) + np.tile(grain, (10, 10, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_a_photograph_of_12_megapixels_makes_a_page_under_2_mb(tmp_path: Path) -> None:
    layout = ImageLayout((4000, 3000), (Tile("base", (24, 24), (0, 0, 4000, 3000)),))
    trace = trace_of("What is on the table?", "word " * 30, [layout], layers=12, heads=1)
    path = write_report(tmp_path / "page.html", panel_of(trace, [Picture(photograph(), "photo.jpg")]))
    assert path.stat().st_size < 2_000_000
    told = read_report(path)["pictures"][0]
    assert told["image_wh"] == [4000, 3000]
    assert told["shown_wh"][0] >= 800
    assert "scaled down to" in told["shown_as"]


def test_small_pictures_keep_every_pixel() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    address, size, how = encoded(image, 100_000)
    import base64

    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as again:
        assert (np.asarray(again) == np.asarray(image)).all()
    assert (size, how) == ((40, 30), "PNG, every pixel")


def test_the_smallest_step_is_taken_where_nothing_fits() -> None:
    _, size, how = encoded(photograph().crop((0, 0, 900, 600)), 10)
    assert max(size) == 320
    assert "quality 50" in how


def test_a_picture_is_carried_once() -> None:
    store = PictureStore()
    assert [store.number(p) for p in (picture_of(), picture_of(), picture_of(name="b"), picture_of((20, 20)))] == [
        0,
        0,
        1,
        2,
    ]
    assert len(store.to_list()) == 3


@pytest.mark.parametrize("wh", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_pictures_are_drawn(wh: tuple[int, int]) -> None:
    layout = ImageLayout(wh, (Tile("base", (2, 2), (0, 0, *wh)),))
    assert len(report_html(panel_of(trace_of(images=[layout]), [picture_of(wh)]))) > 1000


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("shown", "options", "told"),
    [
        ([], {}, "1 to 24 panels, got 0"),
        ([3], {}, "of runs or panels, got int"),
        ("text", {}, "of runs or panels, got str"),
        (panel(), {"colours": "rainbow"}, "colour map 'rainbow' does not exist"),
        (panel(), {"methods": ["raw"]}, "a panel is made already"),
        ([panel()] * 25, {}, "got 25: write several files"),
    ],
)
def test_what_cannot_be_shown_is_told(shown: Any, options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=told):
        write_report(tmp_path / "page.html", shown, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.hostile
def test_files_that_are_no_reports_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write"):
        write_report(tmp_path / "no" / "page.html", panel())
    with pytest.raises(FileError, match="cannot read"):
        read_report(tmp_path / "absent.html")
    page = write_report(tmp_path / "page.html", panel())
    text = page.read_text(encoding="utf-8")
    for wrong, told in (
        ("<html></html>", "not a report"), (text[: text.index(OPENING) + 200], "not a report"),
        (text.replace('"version":1', '"version":9'), "has version 9"),
        (text.replace("vlmattn report", "other"), "not a report"),
    ):  # fmt: skip
        (tmp_path / "wrong.html").write_text(wrong, encoding="utf-8")
        with pytest.raises(FileError, match=told):
            read_report(tmp_path / "wrong.html")
