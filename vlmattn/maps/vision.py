"""The vision tower on the picture: what its class, register and patch tokens look at, where its output comes from, and
which patches it marks with high norms.

A patch of the language model may be made of several tokens of the tower (merged in squares, shrunk); its value is the
mean of theirs, but for :func:`through_tower`, which moves mass and keeps its sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import Box, ImageLayout
from vlmattn.core.provenance import ranges
from vlmattn.grid import PatchMap
from vlmattn.trace import TowerTrace

Start = Literal["class", "register", "patches"]
NormRule = Literal["median", "absolute"]
PUBLISHED_NORM_CUT = 150.0
"""Norm above which Darcet et al. (ICLR 2024) call tokens of DINOv2-g outliers; other towers have cuts of their own."""


@dataclass(frozen=True)
class HighNormToken:
    """A patch of the tower with an unusually high norm.

    Attributes:
        norm: of the residual stream, after the layer asked for. times_median: the same over the picture's median.
        tile, row, col: the cell that it goes into most; None where the language model gets none of it. box_xyxy: of
            that cell, original pixels. view, place: of the token in the tower.
    """

    norm: float
    times_median: float
    view: int
    place: int
    tile: int | None = None
    row: int | None = None
    col: int | None = None
    box_xyxy: Box | None = None


def class_attention(
    tower: TowerTrace, *, image: int = 0, layers: int | Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> PatchMap:
    """What the tower's class tokens look at, mean over them, over heads and over layers; 0 to 1 per tower token.

    Args:
        layers: of the tower; None for the last that reaches the language model. heads: None for all.

    Raises:
        SpecError: the tower has no class token, or there is no such picture, layer or head.
    """
    return _special(tower, "class", image, layers, heads)


def register_attention(
    tower: TowerTrace, *, image: int = 0, layers: int | Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> PatchMap:
    """What the tower's register tokens look at; see :func:`class_attention`. Registers: Darcet et al., ICLR 2024."""
    return _special(tower, "register", image, layers, heads)


def received_attention(
    tower: TowerTrace, *, image: int = 0, layers: int | Sequence[int] | None = None, heads: Sequence[int] | None = None
) -> PatchMap:
    """What patches receive from all tokens of their view, mean over these, heads and layers; 1 / n each is even.

    Tokens that a layer's window hides from a patch count as giving it 0. Arguments as in :func:`class_attention`.
    """
    line, said = _reduced(tower, tower.received_lht, layers, heads)
    return _mapped(tower, line[tower.tokens_of(image)], image, "received", said)


def rollout(tower: TowerTrace, *, image: int = 0, start: Start | None = None) -> PatchMap:
    """Attention rollout over the tower: Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020.

    Args:
        start: whose output is followed back: ``class`` or ``register`` tokens, or the mean of all ``patches``; None for
            the class token where there is one, else for all patches.

    Returns:
        Shares of the output, 0 to 1 per tower token; over all tokens of a view they sum to 1.

    Raises:
        SpecError: no such picture or token. MapError: the trace was made without ``flow="rollout"``.
    """
    if tower.flows and tower.flow != "rollout":
        raise MapError(f"the tower was kept with flow={tower.flow!r}: ask for flow='rollout'")
    flows = tower.flows_of(image)
    cells = tower.cells[image]
    kind = start or ("class" if len(cells.special("classes")) else "patches")
    values = []
    for view, flow in zip(cells.views, flows, strict=True):
        patches = sorted(set(range(len(view))) - {*view.classes, *view.registers})
        rows = {"class": view.classes, "register": view.registers, "patches": patches}.get(kind)
        if not rows:
            raise _no_such(kind)
        values.append(flow[list(rows)].mean(axis=0))
    said = f"layers 0-{tower.read - 1} of {tower.depth}"
    return _mapped(tower, np.concatenate(values), image, "rollout", (said, "mean over heads"), f" from {kind}")


def patch_norms(tower: TowerTrace, *, image: int = 0, layer: int | None = None) -> PatchMap:
    """Norm of the tower's residual stream at each patch, after ``layer`` (None: the last that is read)."""
    number = _layer_of(tower, layer)
    line = tower.norm_lt[number][tower.tokens_of(image)]
    return _mapped(tower, line, image, "norm", (f"layer {number} of {tower.depth}", ""))


def high_norm_tokens(
    tower: TowerTrace,
    *,
    image: int = 0,
    layer: int | None = None,
    rule: NormRule = "median",
    threshold: float | None = None,
) -> tuple[HighNormToken, ...]:
    """Patches whose norm stands out, highest first: Darcet et al., "Vision Transformers Need Registers", ICLR 2024.

    Args:
        layer: after which; None for the last that is read.
        rule: ``median``: a norm above ``threshold`` (default 3) times the median of the picture's patches, our rule for
            towers without a published cut; ``absolute``: above ``threshold`` (default :data:`PUBLISHED_NORM_CUT`).

    Raises:
        SpecError: no such rule, picture or layer, or a threshold that is not above 0.
    """
    if rule not in ("median", "absolute"):
        raise SpecError(f"rule must be 'median' or 'absolute', got {rule!r}")
    cut = threshold if threshold is not None else 3.0 if rule == "median" else PUBLISHED_NORM_CUT
    if not cut > 0:
        raise SpecError(f"threshold must be above 0, got {threshold!r}")
    line = tower.norm_lt[_layer_of(tower, layer)][tower.tokens_of(image)]
    cells = tower.cells[image]
    patches = np.flatnonzero(cells.patches)
    median = float(np.median(line[patches]))
    found = patches[line[patches] > cut * (median if rule == "median" else 1.0)]
    ordered = found[np.argsort(-line[found], kind="stable")]
    return tuple(_high(tower, image, int(t), float(line[t]), float(line[t]) / (median or 1.0)) for t in ordered)


def through_tower(look: PatchMap, tower: TowerTrace, *, image: int = 0) -> PatchMap:
    """A text-side map carried through the tower: text to patch, times patch to patch.

    The value of each patch is divided among its tower tokens, moved to where their output comes from
    (``tower.flow``), and gathered by the patches that hold those tokens. What goes to class and register tokens, or to
    tokens of no patch, is lost; the rest keeps its sum.

    Raises:
        MapError: the map is of another picture, or the trace holds no flow.
    """
    flows, cells = tower.flows_of(image), tower.cells[image]
    if look.layout != tower.pictures[image]:
        raise MapError(f"the map and picture {image} of the tower have different tiles: they are of different pictures")
    mass = cells.to_tokens(np.concatenate([v.reshape(-1) for v in look.values]).astype(np.float64))
    ends = [*cells.starts, cells.tokens]
    moved = [mass[a:b] @ flow for a, b, flow in zip(ends[:-1], ends[1:], flows, strict=True)]
    values = cells.mass_of_cells(np.concatenate(moved))
    kind = "rollout" if tower.flow == "rollout" else "last layer's attention"
    provenance = look.provenance.then(f"through the vision tower's {kind}, layers before {tower.read} of {tower.depth}")
    grids = _grids(values, look.layout)
    return PatchMap(grids, look.layout, provenance=provenance, label=look.label, visible=look.visible)


# -- shared ------------------------------------------------------------------------------------------------------------


def _special(
    tower: TowerTrace, kind: str, image: int, layers: int | Sequence[int] | None, heads: Sequence[int] | None
) -> PatchMap:
    where = tower.tokens_of(image)
    first = tower.cells[image].views[0]
    classes, registers = len(first.classes), len(first.registers)
    slots = list(range(classes)) if kind == "class" else list(range(classes, classes + registers))
    if not slots:
        raise _no_such(kind)
    line, said = _reduced(tower, tower.special_lhst[:, :, slots].mean(axis=2), layers, heads)
    return _mapped(tower, line[where], image, kind, said)


def _no_such(kind: str) -> SpecError:
    if kind not in ("class", "register", "patches"):
        return SpecError(f"start must be class, register or patches, got {kind!r}")
    return SpecError(f"the vision tower has no {kind} token: use 'received', or rollout from 'patches'")


def _reduced(
    tower: TowerTrace,
    values: NDArray[np.float32],
    layers: int | Sequence[int] | None,
    heads: Sequence[int] | None,
) -> tuple[NDArray[np.float32], tuple[str, str]]:
    """(T,) of (L, H, T), and what was chosen, in words."""
    slots, count = tower.layer_slots(layers), values.shape[1]
    chosen = list(range(count)) if heads is None else [int(h) + count if h < 0 else int(h) for h in heads]
    if not chosen or any(not 0 <= h < count for h in chosen):
        raise SpecError(f"heads must be among 0 to {count - 1} of the tower, got {heads}")
    told = f"layers {ranges([tower.layers[int(s)] for s in slots])} of {tower.depth}"
    said = f"{count} heads" if heads is None else f"heads {', '.join(str(h) for h in chosen)}"
    return values[slots][:, chosen].mean(axis=(0, 1)), (told, said)


def _layer_of(tower: TowerTrace, layer: int | None) -> int:
    number = tower.read - 1 if layer is None else layer + tower.read if layer < 0 else layer
    if not 0 <= number < tower.depth:
        raise SpecError(f"layer {layer} does not exist; the tower has layers 0 to {tower.depth - 1}")
    return number


def _mapped(
    tower: TowerTrace, line: NDArray[np.floating], image: int, method: str, said: tuple[str, str], more: str = ""
) -> PatchMap:
    picture = tower.pictures[image]
    provenance = tower.provenance.then(
        f"vision tower: {method}{more}", method=f"tower_{method}", layers=said[0], heads=said[1], reduction="mean"
    )
    values = tower.cells[image].to_cells(line)
    return PatchMap(_grids(values, picture), picture, provenance=provenance, label=f"vision tower: {method}{more}")


def _grids(values: NDArray[np.float64], picture: ImageLayout) -> tuple[NDArray[np.float64], ...]:
    sizes = [t.grid_hw[0] * t.grid_hw[1] for t in picture.tiles]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return tuple(part.reshape(t.grid_hw) for part, t in zip(parts, picture.tiles, strict=True))


def _high(tower: TowerTrace, image: int, token: int, norm: float, times: float) -> HighNormToken:
    cells, picture = tower.cells[image], tower.pictures[image]
    view = int(np.searchsorted(cells.starts, token, side="right")) - 1
    place = token - cells.starts[view]
    mine = np.flatnonzero(cells.token == token)
    if not len(mine):
        return HighNormToken(norm, times, view, place)
    number = int(cells.cell[mine[np.argmax(cells.weight[mine])]])
    for index, tile in enumerate(picture.tiles):
        rows, cols = tile.grid_hw
        if number < rows * cols:
            row, col = divmod(number, cols)
            return HighNormToken(norm, times, view, place, index, row, col, tile.cell_box(row, col))
        number -= rows * cols
    raise MapError(f"cell {number} lies outside the picture's tiles")
