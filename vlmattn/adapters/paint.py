"""Measure where image tokens look, without trusting any geometry: paint a spot, see which embeddings change.

The tower's attention layers are bypassed for the measurement, so that every token depends on its own patch only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.guests import guests_of
from vlmattn.core.errors import ModelError
from vlmattn.core.layout import Box, ImageLayout

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmattn.adapters.adapter import Adapter

Spot = tuple[int, int, int, int]
Cell = tuple[int, int, int]
_GREY, _WHITE = 96, 255
_INSET = 0.15


class _MergedError(Exception):
    """Carries the merged embeddings out of the model, before its language model runs."""

    def __init__(self, embeddings: Any) -> None:
        self.embeddings = embeddings


def _embeddings(given: Mapping[str, Any]) -> Any:
    return given.get("inputs_embeds")


def merged_embeddings(
    model: Any, inputs: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Any] = _embeddings
) -> Any:
    """(B, N, d) embeddings that the language model gets: words and image tokens at their positions.

    The language model itself does not run, but for what it does to pictures before its first layer. ``read`` finds them
    in the keywords that it is called with.
    Raises ModelError if the model does not pass ``inputs_embeds`` on.
    """
    import torch

    def stop(_module: Any, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = read(kwargs)
        if found is not None or not takes_pictures(kwargs):
            raise _MergedError(found)

    def stop_later(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _MergedError(args[0] if args else kwargs.get("hidden_states"))

    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    handles = [decoder.register_forward_pre_hook(stop, with_kwargs=True)]
    if layers is not None and len(layers):  # of a decoder that merges words and pictures itself
        handles.append(layers[0].register_forward_pre_hook(stop_later, with_kwargs=True))
    try:
        with torch.no_grad():
            model(**inputs)
    except _MergedError as merged:
        if merged.embeddings is not None:
            return merged.embeddings
    finally:
        for handle in handles:
            handle.remove()
    raise ModelError(f"{type(model).__name__} does not hand merged embeddings to its language model")


def takes_pictures(kwargs: Mapping[str, Any]) -> bool:
    """Whether a language model is called with pictures, whose tower it runs itself."""
    return kwargs.get("pixel_values") is not None


@contextmanager
def unmixed(model: Any) -> Iterator[None]:
    """The layers of everything before the language model pass their input through unchanged while inside.

    Layers that change the shape of their input are left as they are, and so is attention that stands alone (as in the
    middle of a tokenizer of pictures) and gets more than one input. Models that only have weights without attention
    before their language model are taken as they are; ModelError is raised for those that have none.
    """
    layers, alone = tower_layers(model), lone_attention(model)
    if not layers and not alone and not _weighs_before_words(model):
        raise ModelError(f"no layers of a vision tower were found in {type(model).__name__}")
    try:
        for layer in layers:
            layer.forward = _passing(layer.forward)
        for module in alone:
            module.forward = _passing(module.forward, most=1)
        yield
    finally:
        for layer in (*layers, *alone):
            layer.__dict__.pop("forward", None)


def tower_layers(model: Any) -> list[Any]:
    """The repeated layers, those with attention in them, of everything that is no part of the language model."""
    return [layer for stack in tower_stacks(model) for layer in stack if any(_attends(m) for m in layer.modules())]


def tower_stacks(model: Any) -> list[Any]:
    """The lists of layers, some with attention in them, of everything that is no part of the language model."""
    import torch

    kinds = (torch.nn.ModuleList, torch.nn.Sequential)
    stacks = [m for m in _before_words(model) if isinstance(m, kinds)]
    return [stack for stack in stacks if any(_attends(m) for layer in stack for m in layer.modules())]


def lone_attention(model: Any) -> list[Any]:
    """Attention before the language model that is in none of :func:`tower_layers`, outermost modules only."""
    inside = {id(m) for layer in tower_layers(model) for m in layer.modules()}
    found = [m for m in _before_words(model) if _attends(m) and id(m) not in inside]
    nested = {id(m) for one in found for m in one.modules() if m is not one}
    return [m for m in found if id(m) not in nested]


def _before_words(model: Any) -> list[Any]:
    """All modules that are no part of the language model; models inside it (tokenizers of pictures) are none."""
    from transformers import PreTrainedModel

    decoder = model.get_decoder()
    guests = [m for m in decoder.modules() if isinstance(m, PreTrainedModel) and m is not decoder]
    guests += guests_of(decoder)
    words = {id(m) for m in decoder.modules()} - {id(m) for guest in guests for m in guest.modules()}
    return [m for m in model.modules() if id(m) not in words]


def _weighs_before_words(model: Any) -> bool:
    """Whether anything but the language model and its head has weights."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return any(list(m.parameters(recurse=False)) for m in _before_words(model) if m is not head)


def _attends(module: Any) -> bool:
    name = type(module).__name__.lower()
    return "attention" in name or "attn" in name


def _passing(forward: Callable[..., Any], most: int | None = None) -> Callable[..., Any]:
    """A layer's forward that gives back what it got, in the shape of what it would have given.

    ``most``: with more inputs than that it stays as it is.
    """

    def passed(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        if most is not None and len(args) + len(kwargs) > most:
            return out
        states = next(given for given in (*args, *kwargs.values()) if hasattr(given, "shape"))
        made = out[0] if isinstance(out, tuple) else out
        if getattr(made, "shape", None) != states.shape:
            return out
        return (states, *out[1:]) if isinstance(out, tuple) else states

    return passed


def paintable(layout: ImageLayout, tile: int, row: int, col: int) -> Spot | None:
    """Whole pixels well inside a cell and inside the picture, (x0, y0, x1, y1); None if there are none."""
    x0, y0, x1, y1 = layout.tiles[tile].cell_box(row, col)
    dx, dy = _INSET * (x1 - x0), _INSET * (y1 - y0)
    left, top = max(0, math.ceil(x0 + dx)), max(0, math.ceil(y0 + dy))
    right, bottom = min(layout.image_wh[0], math.floor(x1 - dx)), min(layout.image_wh[1], math.floor(y1 - dy))
    return (left, top, right, bottom) if right > left and bottom > top else None


def speck(layout: ImageLayout, tile: int, row: int, col: int) -> Spot | None:
    """The pixel that holds the middle of a cell, (x0, y0, x1, y1); None if that lies outside the picture."""
    x0, y0, x1, y1 = layout.tiles[tile].cell_box(row, col)
    left, top = math.floor((x0 + x1) / 2), math.floor((y0 + y1) / 2)
    inside = 0 <= left < layout.image_wh[0] and 0 <= top < layout.image_wh[1]
    return (left, top, left + 1, top + 1) if inside else None


def grey_picture(image_wh: tuple[int, int], spots: Sequence[Spot] = (), *, own_scale: bool = False) -> Image:
    """A grey picture, with white spots (x0, y0, x1, y1).

    ``own_scale``: for models that scale each picture by its own contrast, which a spot would change: noise, not grey.
    """
    from PIL import Image

    pixels = np.full((image_wh[1], image_wh[0], 3), _GREY, dtype=np.uint8)
    if own_scale:
        pixels += np.random.default_rng(0).integers(-_GREY, _GREY, pixels.shape, dtype=np.int16).astype(np.uint8)
    for x0, y0, x1, y1 in spots:
        pixels[y0:y1, x0:x1] = _WHITE
    return Image.fromarray(pixels)


def painted_embeddings(adapter: Adapter, image_wh: tuple[int, int], spots: Sequence[Spot]) -> Any:
    """What stands behind each of N tokens, (N, d), of a grey picture with white spots, and its layout."""
    encoded = adapter.encode([grey_picture(image_wh, spots, own_scale=adapter.own_scale)], "?")
    model = adapter.model
    merged = adapter.states_seen(encoded.to(next(model.parameters()).device, model.dtype).inputs)
    return merged[0].float().cpu().numpy(), encoded.layouts[0]


def paint_faults(
    adapter: Adapter, image_wh: tuple[int, int], rng: np.random.Generator, *, spots: int = 4, most: int = 20
) -> tuple[list[str], int]:
    """Paint corners and ``spots`` random cells of each tile, one at a time: (faults, cells painted).

    Of more than ``most`` cells, where a picture has many tiles, every second is painted, or every third and so on.

    In the painted cell's own tile the largest change must be at the very token that the layout names; in every other
    tile, at a token whose cell overlaps the spot (if the spot's centre lies in that tile at all).
    """
    faults: list[str] = []
    painted = 0
    with unmixed(adapter.model):
        plain, layout = painted_embeddings(adapter, image_wh, [])
        picture = layout.images[0]
        for tile, row, col in some_of(chosen_cells(picture, rng, spots), most):
            spot = paintable(picture, tile, row, col)
            if spot is None:
                continue
            painted += 1
            change, found = _change(adapter, image_wh, [spot], plain, layout)
            faults += [*found, *_misplaced(layout, change, (tile, row, col), spot)]
    return faults, painted


def together_faults(
    adapter: Adapter, image_wh: tuple[int, int], rng: np.random.Generator, *, spots: int = 2
) -> tuple[list[str], int]:
    """Paint one corner, then the others and ``spots`` random cells of each tile at once: (faults, cells painted).

    As many tokens of the tile as were painted must change more than the rest, and they must be those that the layout
    names. Two passes per tile, where :func:`paint_faults` takes one per cell; all at once, a mirrored picture would not
    be told apart. Cells too small for that, of a picture that
    is enlarged, are painted by single pixels, one after the other: the cell that changes most must lie there.
    """
    faults: list[str] = []
    painted = 0
    with unmixed(adapter.model):
        plain, layout = painted_embeddings(adapter, image_wh, [])
        picture = layout.images[0]
        cells = chosen_cells(picture, rng, spots)
        for tile in range(len(picture.tiles)):
            mine = [cell for cell in cells if cell[0] == tile]
            whole = {cell: spot for cell in mine if (spot := paintable(picture, *cell)) is not None}
            for part in filter(None, (sorted(whole)[:1], sorted(whole)[1:])):
                change, found = _change(adapter, image_wh, [whole[cell] for cell in part], plain, layout)
                faults += [*found, *_misplaced_together(layout, change, part)]
            specks = [] if whole else [s for cell in mine if (s := speck(picture, *cell)) is not None]
            for spot in specks:
                change, found = _change(adapter, image_wh, [spot], plain, layout)
                faults += [*found, *_far(layout, change, tile, spot)]
            painted += len(whole) + len(specks)
    return faults, painted


def _change(
    adapter: Adapter, image_wh: tuple[int, int], spots: list[Spot], plain: NDArray[np.floating], layout: Any
) -> tuple[NDArray[np.floating], list[str]]:
    """(N,) how much each token changes where ``spots`` are painted, and the fault if words do."""
    change = np.linalg.norm(painted_embeddings(adapter, image_wh, spots)[0] - plain, axis=1)
    words = change[layout.image < 0].max(initial=0.0) > 0
    return change, [f"painting {spots} changed embeddings of text"] if words else []


def chosen_cells(picture: ImageLayout, rng: np.random.Generator, spots: int) -> list[Cell]:
    """Corners and random cells of every tile."""
    chosen = set()
    for index, tile in enumerate(picture.tiles):
        rows, cols = tile.grid_hw
        chosen |= {(index, 0, 0), (index, rows - 1, cols - 1), (index, 0, cols - 1), (index, rows - 1, 0)}
        chosen |= {(index, int(rng.integers(rows)), int(rng.integers(cols))) for _ in range(spots)}
        chosen -= {(index, *cell) for cell in tile.lost}
    return sorted(chosen)


def some_of(cells: Sequence[Cell], most: int) -> Sequence[Cell]:
    """At most ``most`` of them, at even distances."""
    return cells[:: math.ceil(len(cells) / most) or 1]


def _misplaced(layout: Any, change: NDArray[np.floating], cell: Cell, spot: Spot) -> list[str]:
    faults = []
    picture = layout.images[0]
    for index, tile in enumerate(picture.tiles):
        at = np.flatnonzero(layout.tile == index)
        top = at[int(change[at].argmax())]
        found = (index, int(layout.row[top]), int(layout.col[top]))
        if index == cell[0]:
            if found != cell:
                faults.append(f"painting cell {cell} of {picture.image_wh} changed cell {found} most")
        elif _holds(tile.source_box_xyxy, spot) and not _overlap(tile.cell_box(*found[1:]), spot):
            faults.append(f"painting {spot} of {picture.image_wh} changed {found} most, which lies elsewhere")
    return faults


def _misplaced_together(layout: Any, change: NDArray[np.floating], cells: list[Cell]) -> list[str]:
    at = np.flatnonzero((layout.image == 0) & (layout.tile == cells[0][0]))
    top = at[np.argsort(-change[at], kind="stable")[: len(cells)]]
    found = {(cells[0][0], int(layout.row[k]), int(layout.col[k])) for k in top}
    missed = sorted(set(cells) - found)
    wh, instead = layout.images[0].image_wh, sorted(found - set(cells))
    return [f"painting cells {missed} of {wh} and others changed cells {instead} more"] if missed else []


def _far(layout: Any, change: NDArray[np.floating], tile: int, spot: Spot) -> list[str]:
    at = np.flatnonzero((layout.image == 0) & (layout.tile == tile))
    top = at[int(change[at].argmax())]
    found = (int(layout.row[top]), int(layout.col[top]))
    box = layout.images[0].tiles[tile].cell_box(*found)
    # Enlarging spreads a pixel by about one more on every side, which cells of less than a pixel tell apart.
    dx, dy = int(box[2] - box[0] < 1), int(box[3] - box[1] < 1)
    if _overlap(box, (spot[0] - dx, spot[1] - dy, spot[2] + dx, spot[3] + dy)):
        return []
    return [f"painting pixel {spot[:2]} of {layout.images[0].image_wh} changed cell {found} most, which lies elsewhere"]


def _holds(box: Box, spot: Spot) -> bool:
    return box[0] <= spot[0] and box[1] <= spot[1] and spot[2] <= box[2] and spot[3] <= box[3]


def _overlap(box: Box, spot: Spot) -> bool:
    return box[0] < spot[2] and spot[0] < box[2] and box[1] < spot[3] and spot[1] < box[3]
