"""The JSON inside a report: written, and read back by other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError
from vlmattn.core.files import as_path
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.grid.overlap import cell_spans
from vlmattn.grid.packing import packed
from vlmattn.overlay import colour_table
from vlmattn.overlay.draw import CAUTION
from vlmattn.report.panel import MapView, Panel
from vlmattn.report.pictures import PictureStore, visible

KIND, VERSION = "vlmattn report", 1
OPENING = '<script type="application/json" id="payload">'
_DIGITS = 6


def payload(panels: Sequence[Panel], *, title: str, colours: str) -> dict[str, Any]:
    """A report as plain values; what they mean is told in ``docs/report.md``."""
    store = PictureStore()
    told = [_panel(panel, store) for panel in panels]
    return {
        "kind": KIND,
        "version": VERSION,
        "title": visible(title),
        "caution": CAUTION,
        "colours": {"name": colours, "table": packed(colour_table(colours))},
        "pictures": store.to_list(),
        "panels": told,
    }


def to_script(value: Any) -> str:
    """JSON that may stand inside a ``script`` element: plain ASCII, with nothing that could end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def read_report(path: str | Path) -> dict[str, Any]:
    """The JSON of a report that was written before; its grids are read by ``QuantisedGrids.from_dict``.

    Raises:
        FileError: no such file, no report, or one of another version.
    """
    try:
        text = as_path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read a report from {str(path)!r}: {error}") from error
    inside = text.partition(OPENING)[2].partition("</script>")[0]
    try:
        held = json.loads(inside)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not a report that vlmattn wrote: {error}") from error
    if not isinstance(held, dict) or held.get("kind") != KIND:
        raise FileError(f"{path} is not a report that vlmattn wrote")
    if held.get("version") != VERSION:
        raise FileError(f"{path} has version {held.get('version')}; this program reads version {VERSION}")
    return held


def _panel(panel: Panel, store: PictureStore) -> dict[str, Any]:
    return {
        "title": visible(panel.title),
        "model": visible(panel.model),
        "method": panel.method,
        "unit": panel.unit,
        "depth": panel.depth,
        "question": [list(piece) for piece in panel.question],
        "answer": [list(piece) for piece in panel.answer],
        "words": [asdict(word) for word in panel.words],
        "pictures": [
            {"picture": store.number(seen)} | layout
            for seen, layout in zip(panel.pictures, _layouts(panel.layouts), strict=True)
        ],
        "views": [_view(view) for view in panel.views],
        "boxes": [{"label": b.label, "box_xyxy": list(b.box_xyxy), "picture": b.picture} for b in panel.boxes],
        "sinks": None if panel.sinks is None else [{"cell": s.cell, "layers": list(s.layers)} for s in panel.sinks],
        "notes": list(panel.notes),
        "risk_by": panel.risk_by,
        "provenance": panel.provenance.to_dict(),
    }


def _layouts(layouts: Sequence[ImageLayout]) -> list[dict[str, Any]]:
    found, start = [], 0
    for layout in layouts:
        tiles = []
        for tile in layout.tiles:
            tiles.append(_tile(tile, start))
            start += tile.grid_hw[0] * tile.grid_hw[1]
        slices = {"slices": [list(group) for group in layout.slices]} if layout.times else {}
        found.append({"image_wh": list(layout.image_wh), "tiles": tiles} | slices)
    return found


def _tile(tile: Tile, first: int) -> dict[str, Any]:
    x, y = cell_spans(tile)
    frames = {"frames": list(tile.frames)} if tile.frames else {}
    told = {"kind": tile.kind, "first_cell": first, "grid_hw": list(tile.grid_hw)}
    return told | {"cols": np.round(x, _DIGITS).tolist(), "rows": np.round(y, _DIGITS).tolist()} | frames


def _view(view: MapView) -> dict[str, Any]:
    return {
        "heads": view.heads,
        "source": view.source,
        "sinks": view.sinks,
        "layers": list(view.layers),
        "weights": list(view.weights),
        "grids": view.grids.to_dict(),
        "hidden": None if view.visible is None else packed(np.packbits(~view.visible)),
        "share": _rounded(view.share),
    }


def _rounded(share: NDArray[np.float32]) -> list[Any]:
    """(W, L, P) as lists, with four significant digits; None for what is not known."""
    return [[[None if np.isnan(v) else float(f"{v:.4g}") for v in line] for line in word] for word in share]
