"""Alignment of many pairs of sequences at once, by dynamic programming along anti-diagonals.

Every cell of an anti-diagonal depends on the two before it only, so a diagonal of all pairs of a batch is one array
operation. Arrays are (n, p): position along the sequence, pair. Sequences are padded; a pair's result is read in the
cell where its own sequences end, which no padding has touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.gaze.scanpaths.pairs import Array, Index, Strung, chunks, filled, kernels

Local = Callable[[int, int, int], Array]
"""Values of the cells (i, k - i) for ``lo <= i < hi``, (hi - lo, p), from ``lo``, ``hi``, ``k``."""
Form = Literal["corner", "anywhere"]
DOWN, RIGHT, TIED = 1, 2, 4


def facing(one: NDArray[np.generic], other: NDArray[np.generic]) -> Callable[[int, int, int], tuple[NDArray, NDArray]]:  # type: ignore[type-arg]
    """The entries of two padded (n, p) and (m, p) arrays that meet on a diagonal."""
    back, last = np.ascontiguousarray(other[::-1]), len(other) - 1

    def pick(lo: int, hi: int, k: int) -> tuple[NDArray, NDArray]:  # type: ignore[type-arg]
        return one[lo:hi], back[last - k + lo : last - k + hi]

    return pick


def looked_up(one: Index, other: Index, table: Array) -> Local:
    """Values of a (s, s) table for two sequences of symbols."""
    flat, pick = table.ravel(), facing(one * len(table), other)

    def local(lo: int, hi: int, k: int) -> Array:
        mine, theirs = pick(lo, hi, k)
        return flat.take(mine + theirs)

    return local


def equal(one: Index, other: Index, same: float, different: float) -> Local:
    """One value where symbols are equal and another where they differ."""
    pick = facing(one, other)

    def local(lo: int, hi: int, k: int) -> Array:
        mine, theirs = pick(lo, hi, k)
        return np.where(mine == theirs, same, different)

    return local


def apart(one: tuple[Array, Array], other: tuple[Array, Array]) -> Local:
    """Euclidean distance of two sequences of points, each given as x and y."""
    across, down = facing(one[0], other[0]), facing(one[1], other[1])

    def local(lo: int, hi: int, k: int) -> Array:
        (ax, bx), (ay, by) = across(lo, hi, k), down(lo, hi, k)
        x, y = ax - bx, ay - by
        return np.asarray(np.sqrt(x * x + y * y))

    return local


def _ends(one: Index, other: Index) -> Callable[[int], Index]:
    """Which pairs end on a diagonal."""
    total = one + other
    order = np.argsort(total, kind="stable")
    ranked = total[order]

    def at(diagonal: int) -> Index:
        lo, hi = np.searchsorted(ranked, (diagonal, diagonal + 1))
        return np.asarray(order[lo:hi])

    return at


def align(local: Local, one: Index, other: Index, gap: float = 0.0, form: Form = "corner") -> Array:
    """(p,) the score of the best global alignment (Needleman and Wunsch 1970): higher is better.

    Args:
        local: score of two symbols that face each other. one, other: (p,) lengths, 1 or more. gap: score of a gap.
        form: ``corner``: the score where both sequences end. ``anywhere``: the highest score of any cell, with a
            start that costs one gap already, as GazeParser has it; equal if ``gap`` is 0.
    """
    n, m = int(one.max()), int(other.max())
    extra = 1 if form == "anywhere" else 0
    old, now, new = (np.zeros((n + 1, len(one))) for _ in range(3))
    border = gap * (np.arange(n + m + 1) + extra)
    old[0], now[: min(2, n + 1)] = border[0], border[1]
    result, ends = np.full(len(one), -np.inf), _ends(one, other)
    running = form == "anywhere" and gap != 0
    rows = np.arange(n + 1)[:, None]
    for k in range(2, n + m + 1):
        lo, hi = max(1, k - m), min(n, k - 1)
        inner = new[lo : hi + 1]
        best = np.maximum(now[lo - 1 : hi], now[lo : hi + 1])
        if gap:
            best += gap
        np.add(old[lo - 1 : hi], local(lo - 1, hi, k - 2), out=inner)
        np.maximum(inner, best, out=inner)
        if k <= m:
            new[0] = border[k]
        if k <= n:
            new[k] = border[k]
        if running:
            rows_k = rows[lo : hi + 1]
            mine = (rows_k <= one) & (k - rows_k <= other)
            np.maximum(result, np.where(mine, inner, -np.inf).max(axis=0), out=result)
        else:
            done = ends(k)
            result[done] = new[one[done], done]
        old, now, new = now, new, old
    if running:
        edges = gap * (1 + np.arange(max(n, m) + 1))
        result = np.maximum(result, np.maximum(edges[0], np.maximum(edges[one], edges[other])))
    return result


def align_strings(
    strings: Strung,
    one: Index,
    other: Index,
    scores: Array | tuple[float, float],
    gap: float = 0.0,
    form: Form = "corner",
) -> Array:
    """(p,) :func:`align` of pairs of strings of symbols; NaN where one is empty.

    Args:
        scores: a table (s, s) of symbols that face each other, or what equal and different ones score.
    """
    same, different = (0.0, 0.0) if isinstance(scores, np.ndarray) else scores
    result = np.full(len(one), np.nan)
    if compiled := kernels():
        pairs = filled(strings.lengths, one, other)
        held = (strings.flat, strings.starts, strings.lengths, one[pairs], other[pairs])
        table = scores if isinstance(scores, np.ndarray) else np.zeros((0, 0))
        result[pairs] = compiled.aligned(*held, table, same, different, float(gap), form == "anywhere")
        return result
    lengths, values = strings.lengths, strings.padded().values
    for chunk in chunks(lengths[one], lengths[other]):
        ends = lengths[one[chunk]], lengths[other[chunk]]
        a, b = values[: ends[0].max(), one[chunk]], values[: ends[1].max(), other[chunk]]
        local = looked_up(a, b, scores) if isinstance(scores, np.ndarray) else equal(a, b, same, different)
        result[chunk] = align(local, *ends, gap, form)
    return result


@dataclass(frozen=True)
class Warped:
    """The cheapest way through each pair's table.

    Attributes:
        total: (p,) its cost. moves: (n + m - 1, n, p) how each cell is entered, by diagonal and row: 0 from both
            before, 1 (down) from the first's, 2 (right) from the second's, plus 4 where another way costs the same;
            None if it was not asked for.
    """

    total: Array
    moves: NDArray[np.int8] | None
    one: Index
    other: Index

    def path(self) -> tuple[Index, Index, Index, NDArray[np.bool_]]:
        """Positions (l, p) in both sequences from the end to the start, how long each way is, and whether it is
        the only cheapest one. Rows after the start repeat (0, 0)."""
        if self.moves is None:
            raise ValueError("moves were not kept")
        i, j = self.one - 1, self.other - 1
        pairs, length = np.arange(len(i)), np.ones(len(i), dtype=np.int64)
        unique, rows, columns = np.ones(len(i), dtype=bool), [i], [j]
        while (going := (i > 0) | (j > 0)).any():
            move = self.moves[i + j, i, pairs]
            unique &= move < TIED
            move = move % TIED
            i = i - ((move != RIGHT) & going)
            j = j - ((move != DOWN) & going)
            length += going
            rows.append(i)
            columns.append(j)
        return np.stack(rows), np.stack(columns), length, unique


def warp(
    local: Local,
    one: Index,
    other: Index,
    *,
    join: Callable[..., Array] = np.add,
    keep_moves: bool = False,
    free_start: bool = False,
) -> Warped:
    """The cheapest way from the first cell to the last, by steps down, right or both (dynamic time warping).

    Args:
        local: cost of a cell. one, other: (p,) lengths, 1 or more. join: how a cell's cost joins that of the way to
            it: their sum, or the larger (discrete Fréchet distance). free_start: the first cell costs nothing.
    """
    n, m, p = int(one.max()), int(other.max()), len(one)
    old, now, new = (np.full((n + 1, p), np.inf) for _ in range(3))
    moves = np.zeros((n + m - 1, n, p), dtype=np.int8) if keep_moves else None
    total, ends = np.empty(p), _ends(one, other)
    for k in range(n + m - 1):
        lo, hi = max(0, k - m + 1), min(n, k + 1)
        both, above, left = old[lo:hi], now[lo:hi], now[lo + 1 : hi + 1]
        cost = local(lo, hi, k)
        best = np.minimum(np.minimum(both, above), left) if k else np.zeros_like(cost)
        if moves is not None and k:
            moves[k, lo:hi] = _entered(both, above, left, best)
        new[:] = np.inf
        join(best, cost if k or not free_start else best, out=new[lo + 1 : hi + 1])
        done = ends(k + 2)
        total[done] = new[one[done], done]
        old, now, new = now, new, old
    return Warped(total, moves, one, other)


def _entered(both: Array, above: Array, left: Array, best: Array) -> NDArray[np.int8]:
    """How cells are entered: both before down before right where they cost the same."""
    diagonal, down, right = both == best, above == best, left == best
    move = np.where(diagonal, 0, np.where(down, DOWN, RIGHT)).astype(np.int8)
    ways = diagonal.astype(np.int8) + down + right
    return move + TIED * (ways > 1).astype(np.int8)
