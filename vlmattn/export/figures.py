"""Figures for papers: maps on pictures with vector text, sized in columns, on one shared scale.

Drawn by matplotlib without pyplot, so no window, no display and no global state. SVG keeps text as text, PDF embeds
TrueType fonts.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path, atomic_write_bytes
from vlmattn.core.optional import require
from vlmattn.export.subject import Mapped, each, is_mapped, pixels_of, title_of
from vlmattn.overlay.colours import DEFAULT, colour_table
from vlmattn.overlay.draw import CAUTION, record_of
from vlmattn.overlay.heat import Scale, cover_of, is_flat, painted, scale_of
from vlmattn.overlay.sheet import Small, common_provenance, shrunk

COLUMN_WIDTHS = {"single": 3.25, "onehalf": 5.0, "double": 6.875}
"""Widths in inches of one and of two columns of CVPR's style, and of one between."""
FIGURE_ENDINGS = (".pdf", ".svg", ".png", ".webp")
_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "PingFang SC",
    "Microsoft YaHei", "Droid Sans Fallback", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari",
    "Noto Sans Thai", "Noto Emoji", "Noto Sans Symbols 2", "Symbola", "Unifont",
)  # fmt: skip
_LABELS_IN, _CAPTION_POINTS, _POINTS = 0.9, 5.0, 7.0
_MOST_DPI, _MOST_INCHES = 1200, 100.0


@dataclass(frozen=True, eq=False)
class PaperFigure:
    """A figure.

    Attributes:
        figure: matplotlib's ``Figure``, to be changed further. record: what is on it; written into every file.
        dpi: of pictures inside, and of PNG and WebP.
    """

    figure: Any
    record: dict[str, Any] = field(default_factory=dict)
    dpi: int = 300

    @property
    def size_in(self) -> tuple[float, float]:
        """Width and height in inches."""
        width, height = self.figure.get_size_inches()
        return float(width), float(height)

    def save(self, path: str | Path) -> Path:
        """Write ``.pdf``, ``.svg``, ``.png`` or ``.webp``, atomically, with the record inside; equal figures give equal
        files.

        Raises:
            FileError: another ending, or a place that cannot be written.
        """
        target = as_path(path)
        return atomic_write_bytes(target, self.encoded(target.suffix.lower()))

    def encoded(self, suffix: str = ".pdf") -> bytes:
        """The file's bytes.

        Raises:
            FileError: an ending that is not known.
        """
        import json

        if suffix not in FIGURE_ENDINGS:
            raise FileError(
                f"cannot write a figure as {suffix or 'a file without ending'}: {', '.join(FIGURE_ENDINGS)}"
            )
        if suffix in (".png", ".webp"):
            return self._raster(suffix)
        text = json.dumps(self.record, ensure_ascii=True, sort_keys=True)
        dates = {"CreationDate": None, "ModDate": None} if suffix == ".pdf" else {"Date": None}
        notes = {"Subject": text} if suffix == ".pdf" else {"Description": text}
        return self._drawn(suffix[1:], metadata=dates | notes | {"Creator": "vlmattn"})

    def _raster(self, suffix: str) -> bytes:
        from PIL import Image

        from vlmattn.overlay.metadata import encoded

        with Image.open(io.BytesIO(self._drawn("png"))) as image:
            return encoded(image.convert("RGB"), self.record, suffix)

    def _drawn(self, kind: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        with _settings(), warnings.catch_warnings():
            # Of a letter that only Pillow finds a font for; the whole label stands in the record.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
            self.figure.savefig(stream, format=kind, dpi=self.dpi, facecolor="white", **options)
        return stream.getvalue()

    def _repr_png_(self) -> bytes:
        return self._raster(".png")


@lru_cache(maxsize=1)
def _more_families() -> tuple[str, ...]:
    """Typefaces of this system for characters that the first one lacks."""
    manager = require("matplotlib.font_manager", extra="export").fontManager
    there = {one.name for one in manager.ttflist}
    return tuple(name for name in _FAMILIES if name in there)


@contextmanager
def _settings() -> Iterator[None]:
    matplotlib = require("matplotlib", extra="export")
    wanted = {
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.hashsalt": "vlmattn",
        "font.family": ["DejaVu Sans", *_more_families()],
        "font.size": _POINTS,
        "text.usetex": False,
        "axes.unicode_minus": True,
        "savefig.bbox": None,
    }
    with matplotlib.rc_context(wanted):
        yield


def figure(
    looks: Mapped | Iterable[Mapped] | Sequence[Sequence[Mapped]],
    *,
    size: str | float = "single",
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    scale: Scale | None = None,
    cmap: str = DEFAULT,
    caption: bool | str = True,
    colour_bar: bool = True,
    dpi: int = 300,
) -> PaperFigure:
    """Maps on their pictures as a figure for a paper, all on one scale, whose colour bar says the unit.

    Args:
        looks: one look, a row of them, or rows of them (words x layers, methods side by side, steered and plain); a
            look at a video gives one for every frame.
        size: width: one of :data:`COLUMN_WIDTHS`, or inches. The height follows from the pictures.
        row_titles, column_titles: without them, a row has its words as titles.
        scale: values of the first and last colour; default: 0 (or the lowest value) to the highest of all maps.
        cmap: one of :data:`vlmattn.overlay.COLOUR_MAPS`.
        caption: small print below: how the maps were made; or a text instead, or False for none.
        colour_bar: below, with what the numbers are.
        dpi: of pictures inside and of PNG and WebP, up to 1200; larger pictures are averaged down to it.

    Raises:
        SpecError: nothing given, another size, too many titles, or maps whose numbers are of different kinds and so can
            have no scale in common: give ``normalise="share"`` to ``run.map``.
        DependencyMissing: matplotlib is not installed.
    """
    rows = _rows(looks)
    width = _width(size)
    _check(rows, row_titles, column_titles, dpi)
    unit = shared_unit([look for row in rows for look in row])
    columns = max(len(row) for row in rows)
    side = _side(row_titles)
    cell = (width - side) / columns
    small = [[_small(look, cell, dpi) for look in row] for row in rows]
    every = [one for row in small for one in row]
    ends = scale_of(list(every), scale)
    made = common_provenance([one.provenance for one in every])
    text = caption if isinstance(caption, str) else f"{made.summary()} · {CAUTION}" if caption else ""
    titles = (list(row_titles), list(column_titles))
    drawn = _Page(width, side, cell, small, ends, cmap, unit if colour_bar else None, text).drawn(*titles)
    record = {
        "scale": list(ends),
        "colour_map": cmap,
        "rows": titles[0],
        "columns": titles[1],
        "cells": [[record_of(one, ends, cmap, is_flat(one)) for one in row] for row in small],
    }
    return PaperFigure(drawn, record, dpi)


def _rows(looks: Any) -> list[list[Mapped]]:
    if is_mapped(looks):
        return [each(looks)]
    given = list(looks) if isinstance(looks, Iterable) else [looks]
    if given and all(isinstance(row, (list, tuple)) for row in given):
        return [each(row) for row in given]
    return [each(given)]


def _width(size: str | float) -> float:
    if isinstance(size, str) and size in COLUMN_WIDTHS:
        return COLUMN_WIDTHS[size]
    if not isinstance(size, Real) or isinstance(size, bool) or not 1 <= float(size) <= _MOST_INCHES:
        known = ", ".join(f"{name!r} ({inches:g} in)" for name, inches in COLUMN_WIDTHS.items())
        raise SpecError(f"size must be {known}, or a width of 1 to {_MOST_INCHES:g} inches; got {size!r}")
    return float(size)


def _check(rows: list[list[Mapped]], row_titles: Sequence[str], column_titles: Sequence[str], dpi: Any) -> None:
    columns = max(len(row) for row in rows)
    if len(row_titles) > len(rows) or len(column_titles) > columns:
        told = f"{len(row_titles)} row titles and {len(column_titles)} column titles"
        raise SpecError(f"{told} for {len(rows)} rows and {columns} columns")
    if not isinstance(dpi, int) or isinstance(dpi, bool) or not 10 <= dpi <= _MOST_DPI:
        raise SpecError(f"dpi must be a whole number from 10 to {_MOST_DPI}, got {dpi!r}")


def shared_unit(looks: Sequence[Mapped]) -> str:
    """What the numbers of all maps are, in words.

    Raises:
        SpecError: they are of different kinds, so that one colour would mean different things.
    """
    made = [look.patch_map.provenance for look in looks]
    units = list(dict.fromkeys(one.unit for one in made))
    scaled = {one.normalisation for one in made}
    if len(units) > 1 and (len(scaled) > 1 or scaled & {"", "none"}):
        raise SpecError(
            f"these maps have no scale in common: {'; '.join(unit or 'unknown' for unit in units)}. Make them with "
            "run.map(..., normalise='share') to compare them"
        )
    return units[0] if len(units) == 1 else units[0].partition(": ")[2] or units[0]


def _side(row_titles: Sequence[str]) -> float:
    """Inches that the titles of rows take."""
    from vlmattn.overlay.text import length, printable

    size = round(_POINTS * 10)
    longest = max((length(printable(title[:80], size), size) / 720 for title in row_titles), default=0.0)
    return min(_LABELS_IN, longest + 0.1) if row_titles else 0.0


def _small(look: Mapped, cell_in: float, dpi: int) -> Small:
    small = shrunk(look.picture, pixels_of(look), max(1, min(round(cell_in * dpi), look.picture.wh[0])))
    return replace(small, label=title_of(look))


@dataclass(frozen=True)
class _Page:
    """Everything that is drawn, in inches."""

    width: float
    side: float
    cell: float
    small: list[list[Small]]
    scale: Scale
    cmap: str
    unit: str | None
    caption: str

    gap = 0.04

    def drawn(self, row_titles: list[str], column_titles: list[str]) -> Any:
        canvas = require("matplotlib.backends.backend_agg", extra="export")
        figures = require("matplotlib.figure", extra="export")
        own = not (row_titles or column_titles)
        line = _POINTS * 1.35 / 72
        heights = [max(self._height(one) for one in row) + (line if own else 0) + self.gap for row in self.small]
        head = 0.03 + (line if column_titles else 0.0)
        lines = _wrapped(self.caption, self.width, _CAPTION_POINTS)
        # The bar, its numbers and what they are; then the small print.
        bar = 0.1 + 2.4 * line if self.unit is not None else 0.0
        foot = bar + len(lines) * _CAPTION_POINTS * 1.3 / 72 + 0.05
        whole = head + sum(heights) + foot
        if whole > 10 * _MOST_INCHES:
            raise SpecError(f"the figure would be {whole:.0f} inches high: give fewer rows, or wider pictures")
        with _settings():
            page = figures.Figure(figsize=(self.width, whole))
            canvas.FigureCanvasAgg(page)
            put = _Put(page, self.width, whole)
            for number, title in enumerate(column_titles):
                put.text(self.side + (number + 0.5) * self.cell, 0.03, title, self.cell, middle=True)
            top = head
            for number, row in enumerate(self.small):
                if number < len(row_titles):
                    put.text(0.02, top, row_titles[number], self.side, lines=max(1, int(heights[number] / line)))
                self._row(put, row, top, line if own else 0)
                top += heights[number]
            self._foot(put, top, line, bar, lines)
        return page

    def _row(self, put: _Put, row: list[Small], top: float, head: float) -> None:
        for number, one in enumerate(row):
            left = self.side + number * self.cell + self.gap / 2
            wide, high = self._size(one)
            if head:
                put.text(left, top, one.label, self.cell - self.gap)
            hot = painted(one.pixels, one, self.scale, cmap=self.cmap, alpha="value", alpha_max=0.75, flat=is_flat(one))
            put.picture(left, top + head, wide, high, hot)
            if is_flat(one):
                put.text(left, top + head, "flat map", wide, points=_CAPTION_POINTS)

    def _size(self, one: Small) -> tuple[float, float]:
        wide = self.cell - self.gap
        high = wide * one.pixels.shape[0] / one.pixels.shape[1]
        # Tall pictures are at most twice as high as wide, as on contact sheets.
        return (wide, high) if high <= 2 * wide else (2 * wide * wide / high, 2 * wide)

    def _height(self, one: Small) -> float:
        return self._size(one)[1]

    def _foot(self, put: _Put, top: float, line: float, bar: float, lines: list[str]) -> None:
        if self.unit is not None:
            put.bar(self.side + self.gap / 2, top + 0.03, self.width - self.side - self.gap, self)
        for number, text in enumerate(lines):
            at = top + bar + number * _CAPTION_POINTS * 1.3 / 72
            put.text(0.02, at, text, self.width, points=_CAPTION_POINTS, colour="0.35", cut=False)


@dataclass(frozen=True)
class _Put:
    """Puts things on a page, measured in inches from its top-left corner."""

    page: Any
    width: float
    height: float

    def text(
        self,
        x: float,
        y: float,
        text: str,
        room: float,
        *,
        points: float = _POINTS,
        middle: bool = False,
        colour: str = "0.1",
        lines: int = 1,
        cut: bool = True,
    ) -> None:
        shown = "\n".join(_wrapped(text, room, points, most=lines)) if cut else text
        self.page.text(
            x / self.width,
            1 - y / self.height,
            shown,
            fontsize=points,
            color=colour,
            ha="center" if middle else "left",
            va="top",
            # A word may hold a dollar sign, which would begin mathematics.
            parse_math=False,
        )

    def axes(self, x: float, y: float, wide: float, high: float) -> Any:
        where = (x / self.width, 1 - (y + high) / self.height, wide / self.width, high / self.height)
        return self.page.add_axes(where)

    def picture(self, x: float, y: float, wide: float, high: float, pixels: NDArray[np.uint8]) -> None:
        axes = self.axes(x, y, wide, high)
        axes.imshow(pixels, interpolation="none", aspect="auto")
        axes.set_axis_off()

    def bar(self, x: float, y: float, wide: float, page: _Page) -> None:
        axes = self.axes(x, y, wide, 0.08)
        low, high = page.scale
        if high > low:
            share = cover_of("value", 0.75)[:, None] / 255
            colours = np.round(255 * (1 - share) + colour_table(page.cmap) * share).astype(np.uint8)
            axes.imshow(colours[None], aspect="auto", extent=(low, high, 0, 1), interpolation="none")
            axes.set_xticks([low, (low + high) / 2, high], [f"{v:.3g}" for v in (low, (low + high) / 2, high)])
            for label, side in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=True):
                label.set_ha(side)
        else:
            axes.set_xticks([])
        axes.tick_params(length=1.5, width=0.4, pad=1, labelsize=_CAPTION_POINTS + 1)
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_linewidth(0.4)
        told = page.unit if high > low else "flat maps: every seen pixel has the same value"
        axes.set_xlabel(told or "", fontsize=_CAPTION_POINTS + 1, labelpad=1, parse_math=False)


def _wrapped(text: str, room_in: float, points: float, most: int | None = None) -> list[str]:
    from vlmattn.overlay.text import wrapped

    # Measured in the type of the other pictures, at ten pixels a point, which is the same typeface where there is one.
    size = round(points * 10)
    return wrapped(text, size, max(1, int((room_in - 0.04) * 720)), most=most)
