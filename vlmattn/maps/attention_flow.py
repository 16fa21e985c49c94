"""Attention flow: how much could get from a token to a row through the attention of all layers.

Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020: tokens of every layer are nodes of a graph, and
an edge from token i above to token j below has the capacity Ā_ij = ½ (A + I)_ij, A the mean over heads. The relevance
of a token is the largest flow from the row, at the top, to that token at the bottom; each token has a flow of its own,
so flows do not add up.

A flow takes time in the third power of the nodes, so neighbouring tokens may be contracted to one node, whose
capacities are the sums of theirs. What can flow to a contracted node is at least what can flow to any of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.maps.attention_rollout import mean_attention

if TYPE_CHECKING:
    import torch

    from vlmattn.capture.whole import HeldLayer, WholePass

MOST_NODES = 128
"""Nodes of a layer up to which tokens stay by themselves when nothing else is said."""
_PARTS = 10**9


def contracted(
    passed: WholePass, groups: NDArray[np.int64], *, heads: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """(L, G, G) capacities between groups of tokens, lowest layer first: sums of ½ (A + I).

    Args:
        passed: all layers of one sequence. groups: (N,) group of each token, from 0. heads: None for all.

    Raises:
        SpecError: not one group per token.
    """
    import torch

    count = next(iter(passed.layers.values())).call.key.shape[2]
    if groups.shape != (count,) or groups.min() < 0:
        raise SpecError(f"groups must give one number, at least 0, for each of {count} tokens; got {groups.shape}")
    inside = torch.nn.functional.one_hot(torch.as_tensor(groups)).T.float()
    sizes = np.bincount(groups).astype(np.float64)

    def mean(held: HeldLayer, rows: slice) -> torch.Tensor:
        return mean_attention(held, rows, heads)

    found = []
    for held in passed.layers.values():
        home = inside.to(held.call.key.device)
        block = held.fold(home, mean) @ home.T
        found.append(0.5 * np.asarray(block.cpu().numpy(), dtype=np.float64) + 0.5 * np.diag(sizes))
    return np.stack(found)


def attention_flow(capacities_lgg: NDArray[np.floating], source: int, sinks: Sequence[int]) -> NDArray[np.float64]:
    """(S,) largest flow from the node ``source`` above the top layer to each of ``sinks`` below the lowest one.

    Args:
        capacities_lgg: (L, G, G), lowest layer first, from the node above (axis 1) to the node below (axis 2); counted
            in billionths of what leaves the source.

    Raises:
        SpecError: a node that does not exist, or capacities that are no numbers from 0 on.
    """
    from scipy.sparse.csgraph import maximum_flow

    capacities = np.asarray(capacities_lgg, dtype=np.float64)
    depth, nodes = _checked(capacities, (source, *sinks))
    most = float(capacities[-1, source].sum())
    if most == 0:
        return np.zeros(len(sinks))
    graph, unit = _graph(capacities, most), most / _PARTS
    # The bottom of the graph is the level 0, the row stands in the level ``depth``.
    flows = [maximum_flow(graph, depth * nodes + source, sink).flow_value for sink in sinks]
    return np.asarray(flows, dtype=np.float64) * unit


def _checked(capacities: NDArray[np.float64], named: Sequence[int]) -> tuple[int, int]:
    if capacities.ndim != 3 or capacities.shape[1] != capacities.shape[2]:
        raise SpecError(f"capacities must be (layers, nodes, nodes), got {capacities.shape}")
    if not np.isfinite(capacities).all() or (capacities < 0).any():
        raise SpecError("capacities must be numbers of 0 or more")
    depth, nodes, _ = capacities.shape
    wrong = [node for node in named if not 0 <= node < nodes]
    if wrong:
        raise SpecError(f"nodes {wrong} do not exist; there are nodes 0 to {nodes - 1}")
    return depth, nodes


def _graph(capacities: NDArray[np.float64], most: float) -> object:
    # No edge carries more than what leaves the source, so what is above that is cut; the solver counts in 32 bits.
    from scipy.sparse import coo_matrix

    depth, nodes, _ = capacities.shape
    layer, above, below = np.nonzero(capacities)
    weight = np.rint(np.minimum(capacities[layer, above, below] / most, 1) * _PARTS).astype(np.int32)
    shape = ((depth + 1) * nodes,) * 2
    return coo_matrix((weight, ((layer + 1) * nodes + above, layer * nodes + below)), shape=shape).tocsr()


def grouped(
    kinds: NDArray[np.integer],
    places: Sequence[tuple[int, int, int, int] | None],
    rows: Sequence[int],
    cells: int | None,
) -> NDArray[np.int64]:
    """(N,) group of each token: every asked row by itself, the first token by itself; other text in runs of one kind,
    image tokens in blocks, unless ``cells`` is None.

    Args:
        kinds: (N,) kind of each token. places: (picture, tile, block row, block column) of image tokens, else None.
        rows: positions that stay by themselves. cells: None to leave every token by itself.
    """
    if cells is None:
        return np.arange(len(kinds))
    names: list[tuple[object, ...]] = []
    run = 0
    for at, (kind, place) in enumerate(zip(kinds, places, strict=True)):
        alone = at in rows or at == 0
        if at and (kind != kinds[at - 1] or at in rows or at - 1 in rows):
            run += 1
        names.append(("alone", at) if alone else ("picture", *place) if place is not None else ("text", run))
    known: dict[tuple[object, ...], int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names])
