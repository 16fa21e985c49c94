"""Maps drawn on pictures: overlays, contact sheets, and the arrays behind them."""

from __future__ import annotations

from vlmattn.overlay.arrays import load_map, save_map
from vlmattn.overlay.colours import COLOUR_MAPS, colour_table
from vlmattn.overlay.draw import Overlay, overlay
from vlmattn.overlay.metadata import read_provenance
from vlmattn.overlay.scanpaths import draw_scanpath
from vlmattn.overlay.sheet import Sheet, contact_sheet

__all__ = [
    "COLOUR_MAPS",
    "Overlay",
    "Sheet",
    "colour_table",
    "contact_sheet",
    "draw_scanpath",
    "load_map",
    "overlay",
    "read_provenance",
    "save_map",
]
