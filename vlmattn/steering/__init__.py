"""Changes to a running model, one method per module, each in the terms of its paper."""

from __future__ import annotations

from vlmattn.steering.knock_out import KnockOut
from vlmattn.steering.named import NAMED, steering_of
from vlmattn.steering.pai import PAI, PAIContrast
from vlmattn.steering.replace_heads import ReplaceHeads
from vlmattn.steering.saved import load_steering, save_steering
from vlmattn.steering.scale_heads import ScaleHeads
from vlmattn.steering.together import Together
from vlmattn.steering.vaf import VAF
from vlmattn.steering.var import PRESETS, VAR
from vlmattn.steering.vcd import VCD

__all__ = [
    "NAMED",
    "PAI",
    "PRESETS",
    "VAF",
    "VAR",
    "VCD",
    "KnockOut",
    "PAIContrast",
    "ReplaceHeads",
    "ScaleHeads",
    "Together",
    "load_steering",
    "save_steering",
    "steering_of",
]
