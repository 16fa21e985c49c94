"""Scanpaths as strings: edit distance and the longest common subsequence.

Levenshtein, Soviet Physics Doklady 1966; for scanpaths Brandt and Stark, J. Cognitive Neuroscience 1997.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.scanpaths.alignment import align_strings
from vlmattn.gaze.scanpaths.grids import Grid
from vlmattn.gaze.scanpaths.pairs import Array, Index, Strung, check_paths, one_pair

Variant = Literal["grid", "vame"]


def edit_distance(one: ArrayLike, other: ArrayLike, *, substitution: float = 1.0) -> float:
    """Fewest insertions, deletions and substitutions that turn one sequence of symbols into the other; lower is
    better, from 0 to the longer length. An empty sequence costs the other's length. Symmetric.

    Args:
        one, other: (n,), (m,) whole numbers. substitution: what one costs, where an insertion costs 1.

    Example:
        >>> edit_distance([1, 2, 3, 4], [1, 3, 4, 5]), edit_distance([], [7, 7])
        (2.0, 2.0)
    """
    held = [_symbols(one), _symbols(other)]
    zero = np.zeros(1, dtype=np.int64)
    return float(edits(Strung.of(held, np.int64), zero, zero + 1, substitution)[0])


def common_share(one: ArrayLike, other: ArrayLike) -> float:
    """Length of the longest common subsequence over the longer length; higher is better, 0 to 1, 1 for equal
    sequences, NaN if one is empty. Symmetric.

    Example:
        >>> common_share([1, 2, 3, 4], [1, 3, 4, 5])
        0.75
    """
    held = [_symbols(one), _symbols(other)]
    zero = np.zeros(1, dtype=np.int64)
    return float(common(Strung.of(held, np.int64), zero, zero + 1)[0])


def string_edit(
    one: Scanpath, other: Scanpath, *, grid: Grid | None = None, variant: Variant = "grid", normalised: bool = False
) -> float:
    """Edit distance of two scanpaths as strings of grid cells; lower is better, from 0 to the longer length.

    What papers call SED is this count, unless they mean labels of a segmentation (Gazeformer): see
    :func:`semantic_score`. An empty scanpath costs the other's length. Symmetric.

    Args:
        grid: 5x5 cells if None. variant: ``grid``: equal cells. ``vame``: cells of ``width // columns`` by
            ``height // rows`` whole pixels, where what is left over wraps into the next row, as in the code that
            most papers share. normalised: give the similarity 1 - d / longer length instead (0 to 1, higher is
            better, NaN if both are empty).

    Raises:
        SpecError: pictures of two sizes, another variant.

    Example:
        >>> path = Scanpath([10.0, 50, 90], [20.0, 60, 10], (100, 100))
        >>> string_edit(path, path), string_edit(path, path.take([0, 2]))
        (0.0, 1.0)
    """
    told: dict[str, object] = {"grid": grid, "variant": variant, "normalised": normalised}
    return float(one_pair(lambda *pairs: string_edit_pairs(*pairs, **told), one, other)[0])  # type: ignore[arg-type]


def string_edit_pairs(
    paths: Sequence[Scanpath],
    one: Index,
    other: Index,
    *,
    grid: Grid | None = None,
    variant: Variant = "grid",
    normalised: bool = False,
    substitution: float = 1.0,
) -> Array:
    """(p, 1) :func:`string_edit` of pairs, given as numbers (p,) of scanpaths."""
    check_paths(paths)
    letters = symbols_of(grid or Grid(5, 5), variant)
    held = Strung.of([letters(p) for p in paths], np.int64)
    distance = edits(held, one, other, substitution)
    if normalised:
        lengths = held.lengths.astype(np.float64)
        with np.errstate(invalid="ignore"):
            distance = 1 - distance / np.maximum(lengths[one], lengths[other])
    return distance[:, None]


def symbols_of(grid: Grid, variant: Variant) -> Callable[[Scanpath], Index]:
    """How a scanpath becomes a string. Raises SpecError: another variant."""
    if variant == "grid":
        return grid.symbols
    if variant != "vame":
        raise SpecError(f"variant must be 'grid' or 'vame', got {variant!r}")

    def wrapped(path: Scanpath) -> Index:
        width, height = path.image_wh
        steps = np.array([max(width // grid.columns, 1), max(height // grid.rows, 1)])
        column, row = (path.xy // steps).astype(np.int64).T
        return np.asarray(column + row * grid.columns)

    return wrapped


def edits(strings: Strung, one: Index, other: Index, substitution: float = 1.0) -> Array:
    """(p,) edit distances of pairs of strings."""
    lengths = strings.lengths
    distance = 0.0 - align_strings(strings, one, other, (0.0, -substitution), gap=-1.0)
    return np.where(np.isnan(distance), lengths[one] + lengths[other], distance)


def common(strings: Strung, one: Index, other: Index) -> Array:
    """(p,) :func:`common_share` of pairs of strings."""
    lengths = strings.lengths.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(align_strings(strings, one, other, (1.0, 0.0)) / np.maximum(lengths[one], lengths[other]))


def _symbols(sequence: ArrayLike) -> Index:
    held = np.asarray(sequence)
    if held.size == 0:
        return np.zeros(0, dtype=np.int64)
    if held.ndim != 1 or held.dtype.kind not in "iub":
        raise SpecError(f"symbols must be whole numbers (n,), got {held.dtype} of shape {held.shape}")
    return held.astype(np.int64)
