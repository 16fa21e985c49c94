"""Lines over steps as an SVG picture, without a drawing library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from vlmattn.core.errors import SpecError

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 20, 60


def curve_svg(series: Mapping[str, Sequence[float]], steps: Sequence[str], *, x_title: str, y_title: str) -> str:
    """SVG text with one line per series over named steps; 0 is always in the range.

    Args:
        series: values by name, one per step. steps: their names.

    Raises:
        SpecError: no series, no steps, or a series of another length.
    """
    if not series or not steps or any(len(values) != len(steps) for values in series.values()):
        raise SpecError(f"a curve needs one value per step in each series; there are {len(steps)} steps")
    flat = [float(v) for values in series.values() for v in values]
    low, high = min([0.0, *flat]), max([0.0, *flat])
    high = high if high > low else low + 1.0
    across = (_WIDTH - _LEFT - _RIGHT) / max(len(steps) - 1, 1)

    def y_of(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(_WIDTH / 2, _HEIGHT - 8, x_title), _text(14, _HEIGHT / 2, y_title, turned=True)]
    parts += [_line(_LEFT, y_of(v), _WIDTH - _RIGHT, y_of(v)) for v in (low, 0.0, high)]
    parts += [_text(_LEFT - 28, y_of(v) + 4, f"{v:.2f}") for v in dict.fromkeys((low, 0.0, high))]
    every = max(1, len(steps) // 16)
    parts += [_text(_LEFT + i * across, _HEIGHT - _BOTTOM + 18, s) for i, s in enumerate(steps) if i % every == 0]
    for number, (name, values) in enumerate(series.items()):
        points = " ".join(f"{_LEFT + i * across:.1f},{y_of(float(v)):.1f}" for i, v in enumerate(values))
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
        parts.append(_text(_WIDTH - _RIGHT - 90, _HEIGHT - _BOTTOM - 12 - 16 * number, name, colour=colour))
    body = "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">{body}</svg>'


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="#bbb"/>'


def _text(x: float, y: float, text: str, *, colour: str = "#222", turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    place = f'x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="12" text-anchor="middle" font-family="sans-serif"'
    return f"<text {place}{turn}>{escape(text)}</text>"
