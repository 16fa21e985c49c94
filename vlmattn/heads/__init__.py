"""Attention heads: what they do, from their weights, their outputs and what happens without them."""

from __future__ import annotations

from vlmattn.heads.curve import curve_svg
from vlmattn.heads.knockout import DEFAULT_BLOCKS, Block, KnockoutCost, KnockoutSweep, block_named, layer_windows
from vlmattn.heads.pursuit import HeadPursuit, Pursued, PursuedHead, matching_pursuit

__all__ = [
    "DEFAULT_BLOCKS",
    "Block",
    "HeadPursuit",
    "KnockoutCost",
    "KnockoutSweep",
    "Pursued",
    "PursuedHead",
    "block_named",
    "curve_svg",
    "layer_windows",
    "matching_pursuit",
]
