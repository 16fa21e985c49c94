"""What a head does, from its weights alone.

Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021. For tokens i, j with embeddings e (after the
layer's own input norm, of the embedding alone):

    query-key circuit      QK[i, j] = scale * (W_Q e_i) . (W_K e_j)         attention score of i for j
    output-value circuit   OV[i, j] = U_j . W_O W_V e_i                     what attending to i adds to the logit of j

QK is without rotary embedding, which is the score at relative offset 0; soft caps and position biases are left out. OV
uses the unembedding as it is: the final norm, which scales all of a head's logits by one factor and each coordinate by
its gain, is not folded in. Biases are part of both.

The copying score is that of the paper: the sum of the eigenvalues of OV (tokens x tokens, over the same tokens on both
sides) by the sum of their sizes, -1 to 1; a head that raises the tokens it attends to is near 1. They are found in the
D_v x D_v matrix that has the same nonzero eigenvalues, so that a whole vocabulary takes no tokens x tokens matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.display import Told


@dataclass(frozen=True)
class TokenPair:
    """A pair of tokens in a circuit: attending to ``source`` from, or writing, ``other``; ``value`` is QK or OV."""

    source: str
    other: str
    value: float

    def __str__(self) -> str:
        return f"{self.source.strip() or repr(self.source)}>{self.other.strip() or repr(self.other)}"


@dataclass(frozen=True)
class HeadCircuit:
    """One head's weights, in words.

    Attributes:
        layer, head: which. copying: -1 to 1. positive_share: share of the eigenvalues' sizes with a positive real
            part, 0 to 1. ov_diagonal: share of the tokens that are their own best output, 0 to 1. qk_diagonal: share
            that attend to themselves more than to any other.
        qk: pairs (from, to) with the highest scores, best first. ov: pairs (attended to, written) likewise.
    """

    layer: int
    head: int
    copying: float
    positive_share: float
    qk_diagonal: float
    ov_diagonal: float
    qk: tuple[TokenPair, ...] = ()
    ov: tuple[TokenPair, ...] = ()


@dataclass(frozen=True)
class HeadCircuits(Told):
    """The circuits of heads, over some tokens.

    Attributes:
        heads: by layer and number. tokens: how many tokens they are over.
    """

    heads: tuple[HeadCircuit, ...]
    tokens: int

    def of(self, layer: int, head: int) -> HeadCircuit:
        """One head.

        Raises:
            SpecError: it is not among them.
        """
        for one in self.heads:
            if (one.layer, one.head) == (layer, head):
                return one
        raise SpecError(f"head {head} of layer {layer} was not looked at")

    def copying(self, count: int = 8) -> tuple[HeadCircuit, ...]:
        """The heads with the highest copying score, best first."""
        return tuple(sorted(self.heads, key=lambda one: (-one.copying, one.layer, one.head))[:count])

    def table(self) -> str:
        """A line per head."""
        lines = ["layer  head  copying  positive  own output  own score  highest scores; highest outputs"]
        for h in self.heads:
            said = f"{' '.join(map(str, h.qk[:3]))}; {' '.join(map(str, h.ov[:3]))}"
            lines.append(
                f"{h.layer:5d} {h.head:5d} {h.copying:8.2f} {h.positive_share:9.2f} {h.ov_diagonal:11.2f} "
                f"{h.qk_diagonal:10.2f}  {said}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"tokens": self.tokens, "heads": [_plain(h) for h in self.heads]}

    def __str__(self) -> str:
        return self.table()


def _plain(head: HeadCircuit) -> dict[str, Any]:
    told: dict[str, Any] = {n: getattr(head, n) for n in head.__dataclass_fields__ if n not in ("qk", "ov")}
    pairs = {name: [[p.source, p.other, p.value] for p in getattr(head, name)] for name in ("qk", "ov")}
    return told | pairs


def eigenvalue_shares(small_vv: NDArray[Any]) -> tuple[float, float]:
    """(copying score, positive share) of the matrix with the nonzero eigenvalues of OV; NaN where all are 0.

    Args:
        small_vv: (D_v, D_v), sum over tokens of v_i (U_i W_O): values times the outer product with what is written.

    Raises:
        SpecError: no square matrix.

    Example:
        >>> import numpy as np
        >>> [round(x, 2) for x in eigenvalue_shares(np.diag([3.0, -1.0]))]
        [0.5, 0.75]
    """
    matrix = np.asarray(small_vv, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise SpecError(f"expected a square matrix (D_v, D_v), got {matrix.shape}")
    values = np.linalg.eigvals(matrix)
    size = np.abs(values)
    if not size.sum() > 0:
        return float("nan"), float("nan")
    return float(values.real.sum() / size.sum()), float(size[values.real > 0].sum() / size.sum())


def highest_pairs(matrix_nm: NDArray[Any], count: int) -> list[tuple[int, int, float]]:
    """(row, column, value) of the highest entries, best first; equal ones in order of rows, then columns."""
    flat = np.asarray(matrix_nm, dtype=np.float64).reshape(-1)
    count = min(count, len(flat))
    cut = np.partition(flat, len(flat) - count)[len(flat) - count] if count else np.inf
    hits = np.flatnonzero(flat >= cut)
    order = hits[np.argsort(-flat[hits], kind="stable")][:count]
    width = np.asarray(matrix_nm).shape[1]
    return [(int(i) // width, int(i) % width, float(flat[i])) for i in order]


def own_share(matrix_nn: NDArray[Any], offset: int = 0) -> float:
    """Share of rows whose highest entry is their own column (row + ``offset``)."""
    matrix = np.asarray(matrix_nn)
    return float((matrix.argmax(axis=1) == np.arange(len(matrix)) + offset).mean())


def merged_pairs(
    parts: Sequence[Sequence[tuple[int, int, float]]], names: Sequence[str], count: int
) -> tuple[TokenPair, ...]:
    """The highest pairs of several parts of one matrix, with the names of their tokens."""
    best = sorted((pair for part in parts for pair in part), key=lambda p: (-p[2], p[0], p[1]))[:count]
    return tuple(TokenPair(names[i], names[j], value) for i, j, value in best)
