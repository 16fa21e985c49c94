"""MultiMatch: five similarities of two scanpaths as chains of saccades.

Jarodzka, Holmqvist and Nyström, ETRA 2010; Dewhurst et al., Behavior Research Methods 2012.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import hypot
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.alignment import apart, warp
from vlmattn.gaze.scanpaths.pairs import (
    Array,
    Index,
    Strung,
    check_paths,
    chunks,
    filled,
    kernels,
    one_pair,
)
from vlmattn.gaze.scanpaths.simplification import Saccades, simplified

Ties = Literal["diagonal", "package"]
PARTS = ("shape", "direction", "length", "position", "duration")


@dataclass(frozen=True)
class Simplification:
    """When neighbouring saccades are taken as one.

    Attributes:
        angle_deg: below this angle between them. amplitude_px: the first is shorter. duration: seconds; the fixation
            between or before is shorter. Jarodzka et al. take 45 degrees and 10 % of the screen's diagonal.
    """

    angle_deg: float
    amplitude_px: float
    duration: float

    def __post_init__(self) -> None:
        for name in ("angle_deg", "amplitude_px", "duration"):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0:
                raise SpecError(f"{name} must be 0 or more, got {value!r}")


@dataclass(frozen=True)
class MultiMatch:
    """Five similarities; each 1 for equal scanpaths, from 0 if all fixations are on the picture (below it where they
    are not), NaN if a scanpath has fewer than three fixations.

    Attributes:
        shape: of saccades as vectors. direction, length: of saccades. position: of the fixations they start at.
        duration: of those fixations; NaN without durations. variant: how it was computed.
    """

    shape: float
    direction: float
    length: float
    position: float
    duration: float
    variant: str

    @property
    def values(self) -> tuple[float, ...]:
        """The five, in the order of :data:`PARTS`."""
        return astuple(self)[:5]


def multimatch(
    one: Scanpath, other: Scanpath, *, simplify: Simplification | None = None, ties: Ties = "diagonal"
) -> MultiMatch:
    """Similarity of two scanpaths in shape, direction, length, position and duration; higher is better.

    Saccades are aligned by the cheapest way through the table of their vector differences; each similarity is one
    minus the median difference of aligned saccades over its largest value. The last fixation's place and duration do
    not count. Symmetric; moving a scanpath changes nothing but ``position``. Unlike scanpaths score high, too: give
    the values of chance beside it.

    Args:
        one, other: on pictures of one size; durations may be missing. simplify: join short saccades first.
        ties: where several alignments cost the same (fixations on a coarse grid): ``diagonal`` takes steps in both
            scanpaths, then in the first; ``package`` takes the one that multimatch_gaze 0.1.3 takes (slower).

    Raises:
        SpecError: pictures of two sizes, something that is no scanpath.

    Example:
        >>> path = Scanpath([10.0, 50, 90, 30], [20.0, 60, 10, 80], (100, 100), duration=[0.2, 0.3, 0.25, 0.4])
        >>> moved = Scanpath([15.0, 55, 95, 35], [25.0, 65, 15, 85], (100, 100), duration=[0.4, 0.6, 0.5, 0.8])
        >>> [round(v, 6) for v in multimatch(path, moved).values]
        [1.0, 1.0, 1.0, 0.95, 0.5]
    """
    values = one_pair(lambda *pairs: multimatch_pairs(*pairs, simplify=simplify, ties=ties), one, other)
    shape, direction, length, position, duration = values.tolist()
    return MultiMatch(shape, direction, length, position, duration, _named(simplify, ties))


def _named(simplify: Simplification | None, ties: str) -> str:
    joined = ""
    if simplify is not None:
        joined = f", simplified {simplify.angle_deg:g} deg {simplify.amplitude_px:g} px {simplify.duration:g} s"
    return f"multimatch[ties={ties}{joined}]"


def multimatch_pairs(
    paths: Sequence[Scanpath],
    one: Index,
    other: Index,
    *,
    simplify: Simplification | None = None,
    ties: Ties = "diagonal",
) -> Array:
    """(p, 5) :func:`multimatch` of pairs, given as numbers (p,) of scanpaths."""
    if ties not in ("diagonal", "package"):
        raise SpecError(f"ties must be 'diagonal' or 'package', got {ties!r}")
    check_paths(paths, durations=None if simplify is None else "MultiMatch with simplification")
    if not len(paths):
        return np.zeros((0, 5))
    chains = Chains.of([(p.x, p.y, p.duration) for p in paths], simplify)
    return similarities(chains, one, other, paths[0].image_wh, ties=ties)


@dataclass(frozen=True)
class Chains:
    """Saccades of all scanpaths, one scanpath after the other.

    Attributes:
        saccades: (7, s) way across and down, length, angle from 0 to 2 pi, start x and y, duration of the fixation at
            the start (NaN if not known). starts, lengths: (u,) of each scanpath's part; 0 long below three fixations.
    """

    saccades: Array
    starts: Index
    lengths: Index

    @classmethod
    def of(cls, paths: Sequence[tuple[Array, Array, Array | None]], simplify: Simplification | None = None) -> Chains:
        """From fixations: x, y, and duration or None of each scanpath."""
        if simplify is not None:
            told = (simplify.angle_deg, simplify.amplitude_px, simplify.duration)
            joined = [simplified(Saccades.of(*p), *told) for p in paths]
            held = Strung.of([s.dx for s in joined])
            dy, x, y = (np.concatenate([getattr(s, name) for s in joined]) for name in ("dy", "x", "y"))
            lasting = np.concatenate([s.duration[: s.count] for s in joined])
            enough = np.array([len(p[0]) >= 3 for p in paths])
            return cls._with(held.flat, dy, x, y, lasting, held.starts, np.where(enough, held.lengths, 0))
        held, y = Strung.of([p[0] for p in paths]), np.concatenate([p[1] for p in paths])
        lasting = np.concatenate([np.full(len(p[0]), np.nan) if p[2] is None else p[2] for p in paths])
        # What goes from one scanpath's end to the next's start stays, in no scanpath's part.
        dx, dy = (np.append(v[1:] - v[:-1], 0.0) if len(v) else v for v in (held.flat, y))
        return cls._with(dx, dy, held.flat, y, lasting, held.starts, np.where(held.lengths >= 3, held.lengths - 1, 0))

    @classmethod
    def _with(cls, dx: Array, dy: Array, x: Array, y: Array, duration: Array, starts: Index, lengths: Index) -> Chains:
        angle = np.arctan2(dy, dx)
        angle = np.where(angle < 0, angle + 2 * np.pi, angle)
        return cls(np.stack([dx, dy, np.sqrt(dx * dx + dy * dy), angle, x, y, duration]), starts, lengths)


def similarities(
    chains: Chains, one: Index, other: Index, image_wh: tuple[int, int], *, ties: Ties = "diagonal"
) -> Array:
    """(p, 5) as :func:`multimatch_pairs`, from saccades."""
    values = np.full((len(one), 5), np.nan)
    pairs = filled(chains.lengths, one, other)
    if compiled := kernels():
        told = (chains.saccades, chains.starts, chains.lengths, one[pairs], other[pairs])
        values[pairs], only = compiled.medians(*told)
        pairs = pairs[~only] if ties == "package" else pairs[:0]
    if len(pairs):
        held = _Columns(chains)
        for chunk in chunks(chains.lengths[one[pairs]], chains.lengths[other[pairs]]):
            values[pairs[chunk]] = held.medians(one[pairs[chunk]], other[pairs[chunk]], ties)
    diagonal = hypot(*image_wh)
    return np.asarray(1 - values / np.array([2 * diagonal, np.pi, diagonal, diagonal, 1.0]))


class _Columns:
    """Saccades of all scanpaths, padded."""

    def __init__(self, chains: Chains) -> None:
        held = Strung(chains.saccades[0], chains.starts, chains.lengths)
        padded = [held.padded(values).values for values in chains.saccades]
        self.dx, self.dy, self.amplitude, self.angle, self.x, self.y, self.duration = padded
        self.lengths = chains.lengths

    def medians(self, one: Index, other: Index, ties: Ties) -> Array:
        """(p, 5) medians of differences of aligned saccades."""
        ends = self.lengths[one], self.lengths[other]
        local = apart(self._first(ends[0], one), self._first(ends[1], other))
        i, j, length, unique = warp(local, *ends, keep_moves=True, free_start=True).path()
        if ties == "package" and not unique.all():
            i, j, length = self._as_package(i, j, length, unique, one, other)
        return _medians(self._differences((i, one), (j, other)), length)

    def _first(self, ends: Index, which: Index) -> tuple[Array, Array]:
        longest = int(ends.max())
        return self.dx[:longest, which], self.dy[:longest, which]

    def _differences(self, mine: tuple[Index, Index], theirs: tuple[Index, Index]) -> Array:
        """(5, l, p)"""
        shape = _distance(self.dx, self.dy, mine, theirs)
        turned = np.abs(self.angle[mine] - self.angle[theirs])
        turned = np.where(turned > np.pi, 2 * np.pi - turned, turned)
        longer = np.abs(self.amplitude[mine] - self.amplitude[theirs])
        place = _distance(self.x, self.y, mine, theirs)
        a, b = self.duration[mine], self.duration[theirs]
        with np.errstate(invalid="ignore"):
            lasting = np.abs(a - b) / np.maximum(a, b)
        return np.stack([shape, turned, longer, place, lasting])

    def _as_package(self, i: Index, j: Index, length: Index, unique: Any, one: Index, other: Index) -> Any:
        """The same, with the alignment of multimatch_gaze for pairs that have several of one cost."""
        rows, columns, length = i.copy(), j.copy(), length.copy()
        for pair in np.flatnonzero(~unique):
            a, b = one[pair], other[pair]
            n, m = int(self.lengths[a]), int(self.lengths[b])
            x, y = (v[:n, a, None] - v[None, :m, b] for v in (self.dx, self.dy))
            nodes = cheapest_way(np.sqrt(x**2 + y**2))
            if len(nodes) > len(rows):
                more = ((0, len(nodes) - len(rows)), (0, 0))
                rows, columns = np.pad(rows, more), np.pad(columns, more)
            rows[:, pair] = columns[:, pair] = 0
            rows[: len(nodes), pair], columns[: len(nodes), pair] = nodes // m, nodes % m
            length[pair] = len(nodes)
        return rows, columns, length


def _distance(x: Array, y: Array, mine: tuple[Index, Index], theirs: tuple[Index, Index]) -> Array:
    across, down = x[mine] - x[theirs], y[mine] - y[theirs]
    return np.asarray(np.sqrt(across * across + down * down))


def _medians(differences: Array, length: Index) -> Array:
    """(p, k) medians over the first ``length`` rows of (k, l, p); NaN where one of them is NaN."""
    beyond = np.arange(differences.shape[1])[:, None] >= length
    ranked = np.where(beyond, np.inf, differences)
    missing = np.isnan(ranked).any(axis=1)
    ranked = np.sort(ranked.transpose(0, 2, 1), axis=2)
    pairs = np.arange(len(length))
    low, high = ranked[:, pairs, (length - 1) // 2], ranked[:, pairs, length // 2]
    return np.asarray(np.where(missing, np.nan, (low + high) / 2)).T


def cheapest_way(costs: Array) -> NDArray[np.int64]:
    """Cells of the cheapest way through a table (n, m), counted row by row, as scipy's Dijkstra breaks ties, which is
    what multimatch_gaze uses; the order of edges is its, too."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    n, m = costs.shape
    cell = np.arange(n * m).reshape(n, m)
    steps = [(cell[:, :-1], cell[:, 1:]), (cell[:-1], cell[1:]), (cell[:-1, :-1], cell[1:, 1:])]
    start = np.concatenate([a.ravel() for a, _ in steps])
    end = np.concatenate([b.ravel() for _, b in steps])
    graph = csr_matrix((costs.ravel()[end], (start, end)), shape=(n * m, n * m))
    _, before = dijkstra(graph, directed=True, indices=0, return_predecessors=True)
    nodes = [n * m - 1]
    while before[nodes[-1]] >= 0:
        nodes.append(int(before[nodes[-1]]))
    return np.array(nodes, dtype=np.int64)
