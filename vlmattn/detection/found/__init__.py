"""Detectors of the models in the box, fitted by ``benchmarks/shipped_detector.py`` on drawn scenes."""

from __future__ import annotations

__all__: list[str] = []
