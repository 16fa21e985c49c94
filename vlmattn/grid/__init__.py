"""Values on patch grids, values on the original's pixels, and the exact way between them. Imports without torch."""

from vlmattn.grid.frame_mass import FrameMass, frame_mass
from vlmattn.grid.locate import cell_at, cell_coverage, cells_of_box, pool_pixels
from vlmattn.grid.packing import QuantisedGrids, quantised
from vlmattn.grid.patch_map import PatchMap, Peak
from vlmattn.grid.pixel_map import PixelMap
from vlmattn.grid.project import to_pixels

__all__ = [
    "FrameMass",
    "PatchMap",
    "Peak",
    "PixelMap",
    "QuantisedGrids",
    "cell_at",
    "cell_coverage",
    "cells_of_box",
    "frame_mass",
    "pool_pixels",
    "quantised",
    "to_pixels",
]
