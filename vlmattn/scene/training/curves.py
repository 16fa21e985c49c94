"""Draws the log of a training: losses and scores over steps."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError
from vlmattn.core.optional import require

_LOSSES = ("answer", "patch", "align", "contrast")
_NOT_SCORES = ("stage", "step", "pace", "time", *_LOSSES)


def draw_curves(log: Path, picture: Path) -> Path:
    """A PNG with two panels for each stage that has scores, one for each other: smoothed losses, and scores.

    Raises:
        FileError: no log there, or an empty one. DependencyMissing: without matplotlib.
    """
    try:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise FileError(f"{log} is no training log: {error}") from error
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    if not stages:
        raise FileError(f"{log} has no lines")
    figure = require("matplotlib.figure", extra="export").Figure(figsize=(10, 3 * len(stages)), layout="constrained")
    axes = figure.subplots(len(stages), 2, squeeze=False)
    for row, stage in zip(axes, stages, strict=True):
        mine = [line for line in lines if line["stage"] == stage]
        _panel(row[0], f"{stage}: losses", _series(mine, lambda name: name in _LOSSES), smooth=5)
        _panel(row[1], f"{stage}: validation", _series(mine, lambda name: name not in _NOT_SCORES), smooth=1)
    figure.savefig(picture, dpi=110)
    return picture


def _series(lines: list[dict[str, Any]], wanted: Any) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in lines:
        for name, value in line.items():
            if wanted(name):
                found[name].append((line["step"], value))
    return found


def _panel(axis: Any, title: str, series: dict[str, list[tuple[int, float]]], smooth: int) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("step", fontsize=8)
    for name, points in sorted(series.items()):
        steps, values = zip(*points, strict=True)
        means = [sum(values[max(0, i - smooth + 1) : i + 1]) / min(i + 1, smooth) for i in range(len(values))]
        axis.plot(steps, means, label=name, linewidth=1)
    if series:
        axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
