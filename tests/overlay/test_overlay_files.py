"""What is saved comes back: pictures with their provenance, maps as arrays, sheets with one scale."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.core.provenance import Provenance
from vlmattn.grid import PixelMap
from vlmattn.overlay import contact_sheet, load_map, overlay, read_provenance, save_map
from vlmattn.overlay import sheet as sheet_module
from vlmattn.overlay import text as text_module
from vlmattn.overlay.draw import CAUTION
from vlmattn.overlay.heat import is_flat
from vlmattn.overlay.text import draw_lines, font, length, line_height, printable, wrapped

MADE = Provenance(model="scene", prompt="Où est le chat ? 猫 😀", steps=("one", "two"), seed=3)


def ramp(width: int = 40, height: int = 30, **more: Any) -> PixelMap:
    values = np.linspace(0, 1, width * height, dtype=np.float32).reshape(height, width)
    return PixelMap(values, np.ones((height, width), bool), provenance=MADE, **more)


def black(width: int = 40, height: int = 30) -> Image.Image:
    return Image.new("RGB", (width, height))


@pytest.mark.parametrize("ending", ["png", "webp", "jpg", "jpeg", "PNG"])
@pytest.mark.parametrize("figure", [True, False])
def test_a_saved_overlay_tells_where_it_comes_from(tmp_path: Path, ending: str, figure: bool) -> None:
    drawn = overlay(black(), ramp(label="«猫»"))
    path = drawn.save(tmp_path / f"a.{ending}", figure=figure)
    record = read_provenance(path)
    assert record == json.loads(json.dumps(drawn.record))
    assert record["label"] == "«猫»"
    assert record["provenance"]["prompt"] == MADE.prompt
    with Image.open(path) as image:
        assert image.size == ((drawn.figure if figure else drawn.image).size)


def test_png_holds_the_picture_bit_for_bit_and_bytes_repeat(tmp_path: Path) -> None:
    drawn = overlay(black(), ramp())
    one, two = drawn.save(tmp_path / "1.png", figure=False), overlay(black(), ramp()).save(tmp_path / "2.png")
    with Image.open(one) as image:
        assert np.array_equal(np.asarray(image), np.asarray(drawn.image))
    assert two.read_bytes() == drawn.save(tmp_path / "3.png").read_bytes()


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["a.gif", "a", "no/folder/a.png"])
def test_a_place_or_format_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="cannot write"):
        overlay(black(), ramp()).save(tmp_path / name)


@pytest.mark.hostile
def test_a_picture_too_wide_for_webp_is_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="WEBP"):
        overlay(black(17000, 2), ramp(17000, 2)).save(tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


@pytest.mark.hostile
def test_pictures_without_our_record_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"x")
    black().save(tmp_path / "bare.png")
    black().save(tmp_path / "bare.jpg")
    for name, says in [("none.png", "exist"), ("no.png", "not a picture"), ("bare.png", "no prov"), ("bare.jpg", "no")]:
        with pytest.raises(FileError, match=says):
            read_provenance(tmp_path / name)


def test_a_large_record_survives_jpeg(tmp_path: Path) -> None:
    sheet = contact_sheet([[("w", black(), ramp())] * 15] * 15, cell_width=20)
    assert len(json.dumps(sheet.record)) > 70_000
    for ending in ("jpg", "webp", "png"):
        assert read_provenance(sheet.save(tmp_path / f"s.{ending}")) == json.loads(json.dumps(sheet.record))


@pytest.mark.hostile
def test_a_record_that_fits_nowhere_is_refused_instead_of_cut(tmp_path: Path) -> None:
    noise = "".join(np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz0123456789"), 200_000))
    one = PixelMap(ramp().values, ramp().seen, provenance=Provenance(prompt=noise))
    with pytest.raises(FileError, match=r"save as \.png"):
        overlay(black(), one).save(tmp_path / "a.jpg", figure=False)
    path = overlay(black(), one).save(tmp_path / "a.png", figure=False)
    assert read_provenance(path)["provenance"]["prompt"] == noise


def test_a_map_comes_back_equal_and_its_bytes_repeat(tmp_path: Path) -> None:
    seen = np.ones((30, 40), bool)
    seen[:4] = False
    one = PixelMap(np.where(seen, ramp().values, 0), seen, 0.25, "猫", MADE)
    path = save_map(tmp_path / "m.npz", one)
    back = load_map(path)
    assert np.array_equal(back.values, one.values)
    assert back.values.dtype == np.float32
    assert np.array_equal(back.seen, one.seen)
    assert (back.outside, back.label, back.provenance) == (0.25, "猫", MADE)
    assert save_map(tmp_path / "again.npz", one).read_bytes() == path.read_bytes()


def _npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _npz(path: Path, head: Any) -> None:
    np.savez(path, values=np.zeros((2, 2), np.float32), seen=np.ones((2, 2), bool), head=np.array(head))


@pytest.mark.hostile
@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.unlink(),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"hello"),
        lambda p: p.write_bytes(p.read_bytes()[:-30]),
        lambda p: p.write_bytes(p.read_bytes()[:200]),
        lambda p: np.savez(p, values=np.zeros(3)),
        _npy,
        lambda p: _npz(p, '{"format": 99}'),
        lambda p: _npz(p, "[]"),
        lambda p: _npz(p, '{"format": 1}'),
        lambda p: _npz(p, '{"format": 1, "outside": 0, "label": "", "provenance": 3}'),
        lambda p: np.savez(p, values=np.array([{}]), seen=np.ones(1), head=np.array("{}")),
    ],
)
def test_each_broken_map_file_gets_one_clear_error(tmp_path: Path, spoil: Any) -> None:
    path = save_map(tmp_path / "m.npz", ramp())
    spoil(path)
    with pytest.raises(FileError):
        load_map(path)


def test_a_sheet_has_one_scale_for_all(tmp_path: Path) -> None:
    small = PixelMap(ramp().values * 0.1, ramp().seen)
    sheet = contact_sheet([[("a", black(), ramp()), ("b", black(), small)]], cell_width=40)
    assert sheet.record["scale"][0] == 0
    assert {tuple(c["scale"]) for c in sheet.record["cells"][0]} == {tuple(sheet.record["scale"])}
    given_ = contact_sheet([[("a", black(), small)]], scale=(0, 2), row_titles=["r"], column_titles=["c"])
    assert given_.record["scale"] == [0.0, 2.0]


def test_cells_average_areas_over_seen_pixels_before_colouring() -> None:
    values, seen = np.zeros((40, 40), np.float32), np.ones((40, 40), bool)
    seen[:, :15] = False
    values[:, 15:] = 1
    values[0, 39] = 0
    sheet = contact_sheet([[("", black(40, 40), PixelMap(values, seen))]], cell_width=4)
    assert sheet.record["cells"][0][0]["seen_share"] == 0.5
    assert sheet.record["scale"] == [0.0, 1.0]  # a cell half unseen keeps the value of its seen half
    checker = np.indices((40, 40)).sum(axis=0) % 2
    fine = contact_sheet([[("", black(40, 40), PixelMap(checker, seen | True))]], cell_width=4)
    assert fine.record["scale"] == [0.0, 0.5]


def test_a_sheet_of_flat_maps_says_so() -> None:
    flat = PixelMap(np.zeros((30, 40)), np.ones((30, 40), bool))
    assert is_flat(flat)
    sheet, other = contact_sheet([[("", black(), flat)]]), contact_sheet([[("", black(), ramp())]])
    strip = [np.asarray(s.image)[-80:] for s in (sheet, other)]
    assert (strip[0].max(axis=2) - strip[0].min(axis=2)).max() == 0  # words, no colours
    assert (strip[1].max(axis=2) - strip[1].min(axis=2)).max() > 100


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("cells", "options", "error"),
    [
        ([], {}, SpecError),
        ([[]], {}, SpecError),
        ([[("", black(), ramp())]], {"cell_width": 0}, SpecError),
        ([[("", black(), ramp())]], {"row_titles": ["a", "b"]}, SpecError),
        ([[("", black(), ramp())]], {"column_titles": ["a", "b"]}, SpecError),
        ([[("", black(41), ramp())]], {}, MapError),
        ([[("", np.zeros((30, 40)), ramp())]], {}, MapError),
    ],
)
def test_sheets_that_cannot_be_drawn(cells: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        contact_sheet(cells, **options)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain", "plain"), ("a\u00a0b", "a b"), ("a\tb\n", "a b "), ("\x07", "\\x07"), ("\u200b", "\\u200b")],
)
def test_no_character_vanishes(text: str, shown: str) -> None:
    assert printable(text, 16) == shown


def test_a_character_that_the_font_lacks_is_spelled_out() -> None:
    assert printable("\U000e0fff", 16) == "\\U000e0fff"
    assert printable("\ue123", 16) == "\\ue123"


def test_long_lines_are_broken_and_keep_every_letter() -> None:
    text = "word " * 30 + "x" * 300
    lines = wrapped(text, 16, 200)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped("", 16, 100) == []
    for line in lines:
        assert font(16).getlength(line) <= 200
    page = black(220, line_height(16) * len(lines))
    draw_lines(page, (0, 0), lines, 16, (255, 255, 255))
    assert np.asarray(page).any()


def test_characters_that_the_first_font_lacks_are_drawn_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, other = ImageFont.load_default(16), ImageFont.truetype("DejaVuSans.ttf", 16)
    monkeypatch.setattr(text_module, "font", lambda size: plain)
    monkeypatch.setattr(text_module, "_more_fonts", lambda size: ())
    assert printable("a\u2192b", 16) == "a\\u2192b"
    monkeypatch.setattr(text_module, "_more_fonts", lambda size: (other,))
    assert printable("a\u2192b", 16) == "a\u2192b"
    assert length("a\u2192b", 16) == plain.getlength("a") + other.getlength("\u2192") + plain.getlength("b")
    page = black(60, 30)
    draw_lines(page, (0, 0), ["a\u2192b"], 16, (255, 255, 255))
    alone = black(60, 30)
    draw_lines(alone, (0, 0), ["a"], 16, (255, 255, 255))
    assert np.asarray(page).sum() > np.asarray(alone).sum()


RELATIVE = Provenance(
    model="scene", question="Is it red?", answer="yes", method="relative", normalisation="uniform", layers="layers 1"
)


def test_a_figure_says_question_answer_method_and_what_its_numbers_are() -> None:
    one = PixelMap(ramp().values, ramp().seen, label="red", provenance=RELATIVE)
    caption = overlay(black(), one).caption
    assert caption.title == "red \u00b7 Is it red? yes"
    assert (
        overlay(black(), PixelMap(one.values, one.seen, label="yes", provenance=RELATIVE)).caption.title
        == "Is it red? yes"
    )
    assert overlay(black(), one, title="mine").caption.title == "mine"
    assert caption.unit == "relative attention: 1 is an even look"
    for words in ("relative attention", "normalised: uniform", "question: Is it red?", CAUTION):
        assert words in caption.small_print
    plain = overlay(black(), PixelMap(one.values, one.seen, provenance=replace(RELATIVE, normalisation=""))).caption
    assert "not normalised" in plain.small_print


def test_a_sheet_carries_what_its_maps_share_and_the_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(sheet_module, "draw_lines", lambda image, xy, lines, *rest: drawn.extend(lines))
    cells = [PixelMap(ramp().values, ramp().seen, provenance=replace(RELATIVE, layers=f"layers {n}")) for n in (1, 2)]
    contact_sheet([[("", black(), one) for one in cells]])
    told = " ".join(drawn)
    assert "scene" in told
    assert "relative attention" in told
    assert CAUTION in told
    assert "layers" not in told
    mixed = [PixelMap(ramp().values, ramp().seen, provenance=replace(RELATIVE, normalisation=n)) for n in ("max", "")]
    drawn.clear()
    contact_sheet([[("", black(), one) for one in mixed]])
    assert "normalised: various" in " ".join(drawn)


@pytest.mark.parametrize("word", ["ring", "red", "left", "w"])
def test_a_short_row_title_stays_on_one_line(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(sheet_module, "draw_lines", lambda image, xy, lines, *rest: drawn.append(lines))
    contact_sheet([[("", black(), ramp())]], row_titles=[word], column_titles=["c"])
    assert [word] in drawn
