"""Queries and keys of a head in one space, after "AttentionViz: A Global View of Transformer Attention", Yeh et al.,
IEEE TVCG 2024, arXiv 2305.03210.

Attention depends on q . k alone and, in each row, not on a vector added to all keys. So before they are put in one
picture, the keys of a head are moved so that their mean is that of the queries (each row's softmax stays what it was),
and queries are multiplied by c, keys divided by it (each product stays), so that both have one mean length.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path
from vlmattn.core.optional import require

Reduction = Literal["pca", "tsne", "umap"]
REDUCTIONS = ("pca", "tsne", "umap")
"""How points are brought to two or three dimensions."""


def aligned(
    queries_qd: NDArray[Any], keys_kd: NDArray[Any], *, move: bool = True, scale: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Queries and keys made comparable; the softmax of every row of q . k stays what it was.

    Args:
        queries_qd: (Q, D). keys_kd: (K, D). move: give the keys the queries' mean. scale: give both one mean length.

    Raises:
        SpecError: other shapes.

    Example:
        >>> import numpy as np
        >>> q, k = aligned(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]]), move=False)
        >>> round(float(np.linalg.norm(q)), 3), round(float(np.linalg.norm(k, axis=1).mean()), 3)
        (1.414, 1.414)
    """
    queries, keys = np.asarray(queries_qd, dtype=np.float64), np.asarray(keys_kd, dtype=np.float64)
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1] or not len(queries) or not len(keys):
        raise SpecError(f"expected queries (Q, D) and keys (K, D), got {queries.shape} and {keys.shape}")
    if move:
        keys = keys - keys.mean(axis=0) + queries.mean(axis=0)
    long, other = np.linalg.norm(queries, axis=1).mean(), np.linalg.norm(keys, axis=1).mean()
    if scale and long > 0 and other > 0:
        c = float(np.sqrt(other / long))
        queries, keys = queries * c, keys / c
    return queries, keys


def reduced(points_nd: NDArray[Any], how: Reduction = "pca", dims: int = 2, *, seed: int = 0) -> NDArray[np.float64]:
    """(N, dims) points in two or three dimensions.

    Args:
        how: ``pca`` (largest variance first; each axis points to where its largest loading is positive), ``tsne``
            (needs scikit-learn) or ``umap`` (needs umap-learn). seed: of the last two.

    Raises:
        SpecError: no such way, other dimensions than 2 or 3, or fewer points than dimensions. DependencyMissing.
    """
    points = np.asarray(points_nd, dtype=np.float64)
    if how not in REDUCTIONS or dims not in (2, 3):
        raise SpecError(f"a reduction is one of {', '.join(REDUCTIONS)} to 2 or 3 dimensions; got {how!r} to {dims!r}")
    if points.ndim != 2 or min(points.shape) < dims or not np.isfinite(points).all():
        raise SpecError(f"expected at least {dims} finite points of {dims} or more coordinates, got {points.shape}")
    if how == "pca":
        centred = points - points.mean(axis=0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:dims]
        signs = np.sign(axes[np.arange(dims), np.abs(axes).argmax(axis=1)])
        return np.asarray(centred @ (axes * signs[:, None]).T)
    if how == "tsne":
        near = min(30.0, (len(points) - 1) / 3)
        made = require("sklearn.manifold", extra="embedding").TSNE(dims, perplexity=near, init="pca", random_state=seed)
    else:
        made = require("umap", extra="embedding").UMAP(n_components=dims, random_state=seed)
    return np.asarray(made.fit_transform(points), dtype=np.float64)


@dataclass(frozen=True)
class JointEmbedding:
    """Queries and keys of heads, in two or three dimensions.

    Attributes:
        heads: (layer, head) of each. xy_hnc: (heads, N, 2|3) coordinates, one reduction per head.
        is_key_n: (N,) whether a point is a key; queries come first. labels, kinds: text and kind of each point's token.
        positions_n: (N,) token positions. places_n: (N, 4) picture, tile, row and column; -1 for none.
        reduction, moved, scaled: how it was made.
    """

    heads: tuple[tuple[int, int], ...]
    xy_hnc: NDArray[np.float64]
    is_key_n: NDArray[np.bool_]
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    positions_n: NDArray[np.int64]
    places_n: NDArray[np.int64]
    reduction: str = "pca"
    moved: bool = True
    scaled: bool = True

    def __post_init__(self) -> None:
        want = (len(self.heads), len(self.labels))
        if self.xy_hnc.ndim != 3 or self.xy_hnc.shape[:2] != want:
            raise SpecError(
                f"xy_hnc must have shape (heads, N, 2|3) = ({want[0]}, {want[1]}, …), got {self.xy_hnc.shape}"
            )

    def rows(self) -> list[dict[str, Any]]:
        """One plain record per head and point."""
        out = []
        for (layer, head), points in zip(self.heads, self.xy_hnc, strict=True):
            for n, xy in enumerate(points):
                place = dict(zip(("image", "tile", "row", "col"), map(int, self.places_n[n]), strict=True))
                told = {
                    "layer": layer,
                    "head": head,
                    "role": "key" if self.is_key_n[n] else "query",
                    "position": int(self.positions_n[n]),
                    "kind": self.kinds[n],
                    "label": self.labels[n],
                }
                out.append(told | place | dict(zip("xyz", map(float, xy), strict=False)))
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"reduction": self.reduction, "moved": self.moved, "scaled": self.scaled, "points": self.rows()}

    def save(self, path: str | Path) -> Path:
        """Write ``.npz`` (arrays), ``.csv`` or ``.json`` (one record per point).

        Raises:
            FileError: another ending, or it cannot be written.
        """
        target = as_path(path)
        if target.suffix not in (".npz", ".csv", ".json"):
            raise FileError(f"an embedding is saved as .npz, .csv or .json, not {target.suffix or 'without ending'!r}")
        try:
            self._write(target)
        except OSError as error:
            raise FileError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
        return target

    def _write(self, target: Path) -> None:
        if target.suffix == ".npz":
            names = ("heads", "xy_hnc", "is_key_n", "labels", "kinds", "positions_n", "places_n")
            arrays: dict[str, Any] = {name: np.array(getattr(self, name)) for name in names}
            arrays["made"] = np.array([self.reduction, str(self.moved), str(self.scaled)])
            np.savez_compressed(target, **arrays)
        elif target.suffix == ".json":
            target.write_text(json.dumps(self.to_dict(), ensure_ascii=False), encoding="utf-8")
        else:
            rows = self.rows()
            with target.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
