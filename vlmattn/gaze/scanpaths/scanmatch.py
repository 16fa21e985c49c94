"""ScanMatch: scanpaths as strings of grid cells, aligned with scores that fall with the cells' distance.

Cristino, Mathôt, Theeuwes and Gilchrist, Behavior Research Methods 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.alignment import Form, align_strings
from vlmattn.gaze.scanpaths.grids import Grid
from vlmattn.gaze.scanpaths.pairs import Array, Index, Strung, check_paths, one_pair


@dataclass(frozen=True)
class ScanMatch:
    """Settings of ScanMatch.

    Attributes:
        columns, rows: of the grid. threshold: in bins; cells farther from each other than this score below 0 (the
            authors advise twice the deviation of saccade amplitudes). gap: score of a gap, 0 or below.
        bin_s: with it, each symbol is repeated once per this many seconds of its fixation (0.05 in most papers on
            models); one shorter than half of it vanishes. Without it, durations do not count.
        variant: how gaps count: ``matlab`` (the authors' toolbox) or ``gazeparser`` (a gap before the start, so that
            equal scanpaths get less than 1, and the best score anywhere). They agree if ``gap`` is 0.
    """

    columns: int = 16
    rows: int = 12
    threshold: float = 3.5
    gap: float = 0.0
    bin_s: float | None = None
    variant: Literal["matlab", "gazeparser"] = "matlab"

    def __post_init__(self) -> None:
        if self.variant not in ("matlab", "gazeparser"):
            raise SpecError(f"variant must be 'matlab' or 'gazeparser', got {self.variant!r}")
        Grid(self.columns, self.rows)
        if not (np.isfinite(self.threshold) and self.threshold > 0):
            raise SpecError(f"threshold must be above 0 bins, got {self.threshold!r}")
        if not (np.isfinite(self.gap) and self.gap <= 0):
            raise SpecError(f"gap must be 0 or below, got {self.gap!r}")
        if self.bin_s is not None and not (np.isfinite(self.bin_s) and self.bin_s > 0):
            raise SpecError(f"bin_s must be above 0 seconds or None, got {self.bin_s!r}")

    @property
    def name(self) -> str:
        """With the variant and settings."""
        timed = "" if self.bin_s is None else f", {self.bin_s * 1000:g} ms"
        gap = "" if self.gap == 0 else f", gap {self.gap:g}"
        return f"scanmatch[{self.variant}, {self.columns}x{self.rows}, T {self.threshold:g}{gap}{timed}]"

    def table(self) -> Array:
        """(cells, cells) scores of symbols that face each other."""
        return _table(self.columns, self.rows, self.threshold)

    def symbols(self, path: Scanpath) -> Index:
        """Numbers of cells, row by row, repeated by duration if that counts."""
        check_paths([path], durations=self._timed)
        return np.asarray(self._strings([path]).flat)

    @property
    def _timed(self) -> str | None:
        return None if self.bin_s is None else "ScanMatch with bins of time"

    def _strings(self, paths: Sequence[Scanpath]) -> Strung:
        held = Strung.of([p.x for p in paths])
        if not len(paths):
            return held
        down = np.concatenate([p.y for p in paths])
        cells = Grid(self.columns, self.rows).cells(np.trunc(held.flat), np.trunc(down), paths[0].image_wh)
        strings = Strung(cells, held.starts, held.lengths)
        if self.bin_s is None:
            return strings
        lasting = np.concatenate([np.asarray(p.duration) for p in paths])
        return strings.repeated(repeats(lasting, self.bin_s))

    def __call__(self, one: Scanpath, other: Scanpath) -> float:
        """The score of two scanpaths: see :func:`scanmatch`."""
        return float(one_pair(self.pairs, one, other)[0])

    def pairs(self, paths: Sequence[Scanpath], one: Index, other: Index) -> Array:
        """(p, 1) scores of pairs, given as numbers (p,) of scanpaths."""
        check_paths(paths, durations=self._timed)
        strings = self._strings(paths)
        lengths = strings.lengths
        form: Form = "anywhere" if self.variant == "gazeparser" else "corner"
        score = align_strings(strings, one, other, self.table(), self.gap, form)
        with np.errstate(invalid="ignore"):
            return np.asarray(score / (self.threshold * np.maximum(lengths[one], lengths[other])))[:, None]


@lru_cache(maxsize=16)
def _table(columns: int, rows: int, threshold: float) -> Array:
    row, column = np.divmod(np.arange(columns * rows), columns)
    table = np.asarray(threshold - np.hypot(row[:, None] - row, column[:, None] - column))
    table.setflags(write=False)
    return table


def repeats(duration: Array, bin_s: float) -> Index:
    """How often a symbol stands for a fixation of ``duration`` seconds: whole milliseconds over the bin, halves to
    even."""
    milliseconds = np.trunc(np.round(np.asarray(duration) * 1000, 6))
    return np.asarray(np.round(milliseconds / (bin_s * 1000)), dtype=np.int64)


def scanmatch(one: Scanpath, other: Scanpath, settings: ScanMatch | None = None) -> float:
    """Similarity of two scanpaths as aligned strings of grid cells; higher is better, 1 for equal ones.

    At least 0 if gaps cost nothing. Symmetric. Coordinates are cut to whole pixels first. Fixations off the picture
    count in its nearest cell; NaN if a scanpath has no fixation (or none long enough for a bin of time).

    Args:
        settings: 16x12 cells, threshold 3.5, without durations, if None.

    Raises:
        SpecError: pictures of two sizes, or durations that are missing and needed.

    Example:
        >>> path = Scanpath([10.0, 400, 700], [20.0, 300, 500], (800, 600), duration=[0.2, 0.3, 0.25])
        >>> scanmatch(path, path), scanmatch(path, path.take([0, 2]), ScanMatch(bin_s=0.05)) < 1
        (1.0, True)
    """
    return (settings or ScanMatch())(one, other)
