"""Human gaze: fixations and scanpaths, and how well maps of where a model looks agree with them."""

from __future__ import annotations

from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.screen import Screen
from vlmattn.gaze.units import GazeWarning

__all__ = ["Fixations", "GazeWarning", "Scanpath", "Screen"]
