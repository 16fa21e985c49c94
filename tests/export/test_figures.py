"""Figures keep text as text, embed TrueType, have the asked width and one scale, and touch no global state."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from tests.export.conftest import FLAT, PEAKED, made
from vlmattn.core.errors import FileError, SpecError
from vlmattn.export import COLUMN_WIDTHS, figure
from vlmattn.overlay import read_provenance

pytest.importorskip("matplotlib")
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: bytes) -> list[str]:
    return ["".join(one.itertext()) for one in ET.fromstring(svg).iter(f"{SVG}text")]


def test_text_in_svg_is_text_and_says_word_unit_and_origin(run: Any) -> None:
    shown = texts(figure([[run.map("red"), run.map("cup")]]).encoded(".svg"))
    assert "red" in shown
    assert "cup (answer, 1 of 2)" in shown
    assert "attention on a patch, of 1 for all tokens" in shown
    assert any(one.startswith("scene · float32") for one in shown)
    assert "could come from" in " ".join(shown)


def test_pdf_embeds_truetype_and_keeps_the_record() -> None:
    content = figure(made(PEAKED)).encoded(".pdf")
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content  # a TrueType program
    assert re.search(rb"/Subtype\s*/(Type0|CIDFontType2|TrueType)", content)
    assert b"/Type3" not in content
    assert b"CreationDate" not in content


@pytest.mark.parametrize(("size", "inches"), [*COLUMN_WIDTHS.items(), (4.5, 4.5), (2, 2.0)])
def test_the_width_is_the_one_asked_for(size: Any, inches: float, tmp_path: Path) -> None:
    made_of = figure(made(PEAKED), size=size, dpi=100)
    assert made_of.size_in[0] == pytest.approx(inches)
    with Image.open(made_of.save(tmp_path / "f.png")) as image:
        assert image.width == pytest.approx(inches * 100, abs=1)
    root = ET.fromstring(made_of.encoded(".svg"))
    assert float(root.get("width", "").removesuffix("pt")) == pytest.approx(inches * 72, abs=0.1)


def test_panels_share_one_scale_and_the_record_says_what_is_where(tmp_path: Path) -> None:
    high, low = made(PEAKED, label="high"), made(np.array(PEAKED) / 10, label="low")
    both = figure([[high], [low]], row_titles=["first", "second"], column_titles=["only"])
    assert both.record["scale"] == [0.0, pytest.approx(0.9)]
    assert {"first", "second", "only", "0.9", "0.45", "0"} <= set(texts(both.encoded(".svg")))
    for ending in (".png", ".webp"):
        record = read_provenance(both.save(tmp_path / f"x{ending}"))
        assert [row[0]["label"] for row in record["cells"]] == ["high", "low"]
        assert record["cells"][0][0]["provenance"]["model"] == "hand"
    description = ET.fromstring(both.encoded(".svg")).find(".//{http://purl.org/dc/elements/1.1/}description")
    assert description is not None
    assert json.loads(description.text or "")["rows"] == ["first", "second"]
    # The lower map is painted by the shared scale, not by its own.
    alone = pictures(figure(low).encoded(".svg"))[0]
    shared = pictures(both.encoded(".svg"))[1]
    plain = np.asarray(low.picture.image, dtype=float)
    assert np.abs(shared[..., :3] - plain).mean() < 0.5 * np.abs(alone[..., :3] - plain).mean()


def pictures(svg: bytes) -> list[np.ndarray]:
    """The pictures inside, as arrays, the widest bar left out."""
    import base64

    found = []
    for one in ET.fromstring(svg).iter(f"{SVG}image"):
        href = one.get("{http://www.w3.org/1999/xlink}href", "")
        with Image.open(io.BytesIO(base64.b64decode(href.partition(",")[2]))) as image:
            found.append(np.asarray(image.convert("RGB"), dtype=float))
    return [one for one in found if one.shape[:2] == (30, 40)]


def test_maps_of_different_kinds_have_no_scale_in_common(run: Any, tmp_path: Path) -> None:
    raw, value = run.map("red"), run.map("red", method="value")
    with pytest.raises(SpecError, match=r"no scale in common: .*normalise='share'"):
        figure([raw, value])
    run.export(tmp_path / "m.svg", "red", methods=["raw", "value"])
    shown = texts((tmp_path / "m.svg").read_bytes())
    assert {"raw", "value", "share of the map's total"} <= set(shown)


def test_steered_and_plain_stand_side_by_side(vlm: Any, run: Any, tmp_path: Path) -> None:
    import vlmattn as va

    with vlm.steer(va.steering.PAI(alpha=0.5, first_layer=0)):
        steered = vlm.ask(run.pictures[0], "Describe the picture.", answer=run.answer)
    run.export(tmp_path / "s.svg", ["red", "cup"], beside={"PAI": steered}, size="double")
    shown = texts((tmp_path / "s.svg").read_bytes())
    assert {"plain", "PAI", "red"} <= set(shown)
    assert any(one.startswith("cup (answer") for one in shown)
    for beside in ({}, {"plain": steered}, [steered], {"PAI": "x"}):
        with pytest.raises(SpecError, match="beside"):
            run.export(tmp_path / "s.svg", "red", beside=beside)


def test_words_by_layers(run: Any, tmp_path: Path) -> None:
    run.export(tmp_path / "l.svg", ["red", "cup"], over="layers", layers=[1, 2], size="double", caption="Ours.")
    shown = texts((tmp_path / "l.svg").read_bytes())
    assert {"layer 1", "layer 2", "red", "Ours."} <= set(shown)
    assert "layer 0" not in shown


@pytest.mark.hostile
@pytest.mark.filterwarnings("error")
def test_any_word_can_be_drawn(tmp_path: Path) -> None:
    labels = [
        "$x_{",
        "猫 😀",
        "a\x00b\n" + "\ud800".encode("utf-8", "replace").decode(),
        "w" * 500,
        r"\frac",
        "مرحبا",
        "%&#",
    ]
    looks = [made(PEAKED, label=label) for label in labels]
    for ending in (".pdf", ".svg", ".png"):
        figure([[one] for one in looks], row_titles=labels, caption="$\\bad{ " + labels[1]).save(
            tmp_path / f"x{ending}"
        )
    assert "$x_{" in texts((tmp_path / "x.svg").read_bytes())


@pytest.mark.parametrize("wh", [(1, 1), (1, 400), (400, 1), (3, 5)])
def test_odd_pictures_can_be_drawn(wh: tuple[int, int], tmp_path: Path) -> None:
    one = figure(made([[0.0, 1.0]] if wh[0] > 1 else [[1.0]], wh), dpi=50)
    with Image.open(one.save(tmp_path / "x.png")) as image:
        assert image.width == pytest.approx(3.25 * 50, abs=1)
        assert image.height < 600


def test_a_flat_map_is_said_to_be_flat() -> None:
    assert "flat map" in texts(figure([made(FLAT), made(PEAKED)]).encoded(".svg"))
    zero = texts(figure(made(np.zeros((2, 2)))).encoded(".svg"))
    assert "flat maps: every seen pixel has the same value" in zero


def test_a_photograph_is_drawn_at_the_asked_resolution() -> None:
    one = figure(made(PEAKED, (2400, 1800)), dpi=100)
    assert len(one.encoded(".pdf")) < 600_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "triple"}, "size must be 'single'"),
        ({"size": 0.2}, "size must be 'single'"),
        ({"size": True}, "size must be 'single'"),
        ({"dpi": 5}, "dpi must be a whole number"),
        ({"row_titles": ["a", "b"]}, "2 row titles and 0 column titles for 1 rows"),
        ({"scale": (1, 0)}, "scale must be"),
        ({"cmap": "jet"}, "colour map 'jet' does not exist"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        figure(made(PEAKED), **options)


def test_other_endings_and_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot write a figure as \.eps"):
        figure(made(PEAKED)).save(tmp_path / "x.eps")
    with pytest.raises(SpecError, match="nothing to export"):
        figure([])


def test_equal_figures_give_equal_files() -> None:
    one, other = (figure(made(PEAKED)) for _ in range(2))
    for ending in (".pdf", ".svg", ".png"):
        assert one.encoded(ending) == other.encoded(ending)


def test_no_display_no_pyplot_and_settings_as_they_were() -> None:
    code = (
        "import os, sys; os.environ.pop('DISPLAY', None)\n"
        "import matplotlib\n"
        "before = matplotlib.rcParams.copy()  # dict() would ask for a backend\n"
        "import numpy as np\n"
        "from types import SimpleNamespace\n"
        "from vlmattn.core.images import load_image\n"
        "from vlmattn.core.layout import ImageLayout, Tile\n"
        "from vlmattn.export import figure\n"
        "from vlmattn.grid import PatchMap, to_pixels\n"
        "layout = ImageLayout((8, 8), (Tile('base', (2, 2), (0, 0, 8, 8)),))\n"
        "one = PatchMap(([[0.0, 1.0], [0.5, 0.2]],), layout)\n"
        "picture = load_image(np.zeros((8, 8, 3), np.uint8))\n"
        "look = SimpleNamespace(label='x', picture=picture, patch_map=one, pixels=to_pixels(one))\n"
        "assert figure(look).encoded('.svg')\n"
        "assert repr(matplotlib.rcParams.copy()) == repr(before)\n"
        "print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "False False"
