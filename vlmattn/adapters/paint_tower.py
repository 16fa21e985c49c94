"""Measure which tokens of the vision tower a cell is made of: paint it, see which input of the first layer changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.paint import Spot, chosen_cells, grey_picture, paintable, some_of, tower_stacks
from vlmattn.adapters.tower_cells import cell_numbers
from vlmattn.core.errors import UnsupportedModel
from vlmattn.core.tower_cells import TowerCells

if TYPE_CHECKING:
    from vlmattn.adapters.adapter import Adapter
    from vlmattn.core.layout import ImageLayout


def knows_tower(adapter: Adapter) -> bool:
    """Whether the model has layers with attention before its language model, and the family says what they hold."""
    try:
        adapter.tower_cells(adapter.plan((64, 64)).layout)
    except UnsupportedModel:
        return False
    return bool(tower_stacks(adapter.model))


def tower_faults(
    adapter: Adapter, image_wh: tuple[int, int], rng: np.random.Generator, *, spots: int = 2, most: int = 20
) -> tuple[list[str], int]:
    """Paint at most ``most`` cells, one at a time: (what changed in the wrong place, spots painted).

    Of the tokens that the cells of a tile are made of, the one that changes most must be among the painted cell's own.
    """
    plain, picture = _tower_input(adapter, image_wh, [])
    cells = adapter.tower_cells(picture)
    before = _in_order(plain, cells)
    if before is None:
        said = ", ".join(str(tuple(p.shape)) for p in plain) or "nothing"
        return [f"the tower holds {said}, tower_cells says {cells.tokens} tokens in {len(cells.views)} views"], 1
    faults, painted = [], 0
    numbers = cell_numbers(picture)
    for tile, row, col in some_of(chosen_cells(picture, rng, spots), most):
        spot = paintable(picture, tile, row, col)
        if spot is None:
            continue
        painted += 1
        after = _in_order(_tower_input(adapter, image_wh, [spot])[0], cells)
        change = np.linalg.norm((after if after is not None else before) - before, axis=1)
        tokens = cells.token[np.isin(cells.cell, numbers[tile])]
        most = int(tokens[change[tokens].argmax()])
        if most not in cells.token[cells.cell == numbers[tile][row, col]]:
            faults.append(f"painting cell {(tile, row, col)} of {image_wh} changed token {most} of the tower most")
    return faults, painted


def _tower_input(
    adapter: Adapter, image_wh: tuple[int, int], spots: list[Spot]
) -> tuple[list[NDArray[np.float32]], ImageLayout]:
    """What the first layer of the first stack to run gets, call by call."""
    seen: list[tuple[int, Any]] = []

    def look(stack: int) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states = next(given for given in (*args, *kwargs.values()) if hasattr(given, "shape"))
            seen.append((stack, states.detach().float().cpu().numpy().copy()))

        return hook

    stacks = tower_stacks(adapter.model)
    handles = [s[0].register_forward_pre_hook(look(i), with_kwargs=True) for i, s in enumerate(stacks)]
    try:
        encoded = adapter.encode([grey_picture(image_wh, spots, own_scale=adapter.own_scale)], "?")
        model = adapter.model
        adapter.states_seen(encoded.to(next(model.parameters()).device, model.dtype).inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [states for stack, states in seen if stack == seen[0][0]], encoded.layouts[0].images[0]


def _in_order(parts: list[NDArray[np.float32]], cells: TowerCells) -> NDArray[np.float32] | None:
    """(T, d) without padding; None if the number of tokens is another."""
    flat = [part.reshape(-1, part.shape[-1]) for part in parts]
    if sum(len(p) for p in flat) == cells.tokens:
        return np.concatenate(flat)
    views = [view for part in parts for view in (part if part.ndim == 3 else part[None])]
    if len(views) != len(cells.views) or any(len(v) < len(c) for v, c in zip(views, cells.views, strict=True)):
        return None
    return np.concatenate([v[: len(c)] for v, c in zip(views, cells.views, strict=True)])
