"""Attention heads: what they do, from their weights, their outputs and what happens without them."""

from __future__ import annotations

from vlmattn.heads.circuits import HeadCircuit, HeadCircuits, TokenPair, eigenvalue_shares
from vlmattn.heads.curve import curve_svg
from vlmattn.heads.joint import REDUCTIONS, JointEmbedding, aligned, reduced
from vlmattn.heads.knockout import DEFAULT_BLOCKS, Block, KnockoutCost, KnockoutSweep, block_named, layer_windows
from vlmattn.heads.pursuit import HeadPursuit, Pursued, PursuedHead, matching_pursuit
from vlmattn.heads.reasoning import Reasoning, Trend, trend

__all__ = [
    "DEFAULT_BLOCKS",
    "REDUCTIONS",
    "Block",
    "HeadCircuit",
    "HeadCircuits",
    "HeadPursuit",
    "JointEmbedding",
    "KnockoutCost",
    "KnockoutSweep",
    "Pursued",
    "PursuedHead",
    "Reasoning",
    "TokenPair",
    "Trend",
    "aligned",
    "block_named",
    "curve_svg",
    "eigenvalue_shares",
    "layer_windows",
    "matching_pursuit",
    "reduced",
    "trend",
]
