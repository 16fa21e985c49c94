"""HTML of results: no script, no style sheet, nothing from elsewhere, every text escaped and of bounded length.

Colours are laid over whatever the page has, and text keeps the page's own colour, so that all of it reads on light and
on dark pages. Sites that strip styles (GitHub does) still show tables, texts, pictures and titles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup, escape
from PIL import Image

from vlmattn.display.shrink import shrunk

MOST_TEXT = 2000
"""Characters of one text that are shown; how many more there are is said."""
MOST_ROWS = 60
"""Rows of a table that are shown; likewise."""
LOOKED, RISKY = "217,119,6", "220,38,38"
"""Red, green and blue of what was looked at, and of what is likely made up."""

# What no page can show, or what reorders the text around it; surrogates cannot even be encoded.
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_LINE = "border-bottom:1px solid rgba(128,128,128,.3)"
_CELL = f"padding:.15em .7em .15em 0;text-align:left;vertical-align:top;{_LINE}"
_ROOT = "line-height:1.5;max-width:64em;overflow-x:auto"


class Shaded(NamedTuple):
    """A stretch of text, how strongly it is coloured (0 to 1; None for not at all), and what is told of it."""

    text: str
    share: float | None = None
    told: str = ""
    doubtful: bool = False


def text(value: object, most: int = MOST_TEXT) -> Markup:
    """Any text, safe to put into a page: escaped, at most ``most`` characters, control characters as U+FFFD."""
    whole = str(value)
    cut = f"… ({len(whole):,} characters)" if len(whole) > most else ""
    return escape(_UNSEEN.sub("\ufffd", whole[:most]) + cut)


def said(value: Any) -> str:
    """A value in a few characters: numbers in three significant digits, a dash for what is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float, tuple, list, Mapping)):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said(one)}" for name, one in value.items()) or "–"
    if isinstance(value, (tuple, list)):
        return ", ".join(said(one) for one in value) or "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def plain(cell: Any) -> str:
    """What a cell of a table says, without its markup."""
    return cell.striptags() if isinstance(cell, Markup) else said(cell)


def panel(title: object, *parts: Markup, note: object = "") -> str:
    """A result as one block: what it is, its parts, and small print. What notebooks call ``_repr_html_`` for."""
    head = Markup("<div><strong>{}</strong></div>").format(text(title)) if title else Markup()
    foot = Markup('<div style="opacity:.7"><small>{}</small></div>').format(text(note)) if note else Markup()
    # The classes keep mathematics typesetters from reading dollar signs of an answer as formulas.
    root = Markup('<div class="vlmattn tex2jax_ignore mathjax_ignore" style="{}">{}{}{}</div>')
    return str(root.format(_ROOT, head, Markup("").join(parts), foot))


def paragraph(value: object, *, faint: bool = False) -> Markup:
    """A line of text."""
    style = "margin:.2em 0;white-space:pre-wrap" + (";opacity:.75" if faint else "")
    return Markup('<p style="{}" dir="auto">{}</p>').format(style, text(value))


def preformatted(value: object) -> Markup:
    """Text with its own line breaks and columns, as in a terminal."""
    return Markup('<pre style="margin:.3em 0;background:none;white-space:pre-wrap">{}</pre>').format(
        text(value, 20_000)
    )


def html_table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, most: int = MOST_ROWS) -> Markup:
    """A table; cells are Markup of this module, or values as :func:`said` tells them; rows left out are counted."""
    held = list(rows)
    cells = Markup('<th scope="col" style="{}">{}</th>')
    top = Markup("").join(cells.format(_CELL, text(name)) for name in head)
    lines = Markup("").join(_row(row) for row in held[:most])
    more = (
        Markup("<p><small>… and {} more rows</small></p>").format(f"{len(held) - most:,}") if len(held) > most else ""
    )
    whole = (
        '<table style="border-collapse:collapse;margin:.3em 0"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}'
    )
    return Markup(whole).format(top, lines, more)


def _row(row: Sequence[Any]) -> Markup:
    cell = Markup('<td style="{}" dir="auto">{}</td>')
    return Markup("<tr>{}</tr>").format(
        Markup("").join(cell.format(_CELL, one if isinstance(one, Markup) else text(said(one), 200)) for one in row)
    )


def facts(told: Mapping[str, Any]) -> Markup:
    """Names and values, one pair a line; those that are empty are left out."""
    shown = {name: value for name, value in told.items() if value not in (None, "", [], (), {})}
    name_of = Markup('<th scope="row" style="{}">{}</th>')
    lines = [
        Markup('<tr>{}<td style="{}">{}</td></tr>').format(
            name_of.format(_CELL, text(name)), _CELL, value if isinstance(value, Markup) else text(said(value), 400)
        )
        for name, value in shown.items()
    ]
    return Markup('<table style="border-collapse:collapse;margin:.3em 0"><tbody>{}</tbody></table>').format(
        Markup("").join(lines)
    )


def bar(share: float | None, *, colour: str = LOOKED, told: str | None = None) -> Markup:
    """A share of 1 as a bar with its number; a dash for what is not known."""
    if share is None or math.isnan(share):
        return text("–")
    width = 100 * min(max(share, 0.0), 1.0)
    outer = "display:inline-block;width:5em;height:.7em;margin-right:.5em;background:rgba(128,128,128,.25)"
    inner = f"display:block;height:100%;width:{width:.0f}%;background:rgb({colour})"
    drawn = Markup('<span style="{}"><span style="{}"></span></span>{}')
    return drawn.format(outer, inner, text(f"{share:.2f}" if told is None else told))


def shaded(stretches: Sequence[Shaded], *, colour: str = LOOKED) -> Markup:
    """A text whose stretches are coloured by their shares, on a scale from 0 to 1 that is the same everywhere."""
    room, out = MOST_TEXT, []
    for one in stretches:
        if room <= 0:
            left = sum(len(rest.text) for rest in stretches) - MOST_TEXT
            out.append(text(f"… ({left:,} characters more)"))
            break
        out.append(_stretch(one, colour, room))
        room -= len(one.text)
    return Markup('<p style="font-size:1.15em;margin:.3em 0;white-space:pre-wrap" dir="auto">{}</p>').format(
        Markup("").join(out)
    )


def _stretch(one: Shaded, colour: str, room: int) -> Markup:
    if one.share is None and not one.told:
        return text(one.text, room)
    share = 0.0 if one.share is None or math.isnan(one.share) else min(max(one.share, 0.0), 1.0)
    style = f"background:rgba({colour},{0.65 * share:.2f});border-radius:.2em;padding:.05em .15em"
    style += f";text-decoration:underline wavy rgb({RISKY})" if one.doubtful else ""
    return Markup('<span style="{}" title="{}">{}</span>').format(style, text(one.told, 300), text(one.text, room))


def image(picture: Image.Image, alt: object, *, width: int = 320) -> Markup:
    """A picture inside the page, shown at most ``width`` pixels wide, in twice as many at most; where that is less than
    there are, its size is told. Very small ones are shown enlarged, their pixels as squares."""
    small = shrunk(picture, 2 * width)
    shown = small.image.width if small.image.width > width // 2 else small.image.width * (width // small.image.width)
    shown = min(width, shown)
    told = Markup("<br><small>{}</small>").format(small.said) if small.said else ""
    drawn = Markup('<img src="{}" alt="{}" width="{}" style="vertical-align:top;{}">{}')
    sharp = "image-rendering:pixelated" if shown >= 2 * small.image.width else ""
    return drawn.format(Markup(small.address()), text(alt, 300), shown, sharp, told)


def beside(*parts: Markup) -> Markup:
    """Parts side by side where there is room, below each other where there is not."""
    cell = Markup('<div style="flex:0 1 auto">{}</div>')
    row = Markup('<div style="display:flex;flex-wrap:wrap;gap:1.2em;align-items:flex-start">{}</div>')
    return row.format(Markup("").join(cell.format(one) for one in parts))


def folded(summary: object, *parts: Markup) -> Markup:
    """Parts behind a line that opens them."""
    return Markup("<details><summary>{}</summary>{}</details>").format(text(summary), Markup("").join(parts))
