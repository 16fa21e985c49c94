"""Changes to a running model, one method per module, each in the terms of its paper."""

from __future__ import annotations

from vlmattn.steering.act import ACT
from vlmattn.steering.ad_hh import ADHH
from vlmattn.steering.dagcd import DAGCD, fit_dagcd
from vlmattn.steering.damro import DAMRO
from vlmattn.steering.deco import DeCo
from vlmattn.steering.dola import DoLa
from vlmattn.steering.eah import EAH
from vlmattn.steering.focus import Focus
from vlmattn.steering.hgai import HGAI
from vlmattn.steering.icd import ICD
from vlmattn.steering.knock_out import KnockOut
from vlmattn.steering.m3id import M3ID
from vlmattn.steering.named import NAMED, steering_of
from vlmattn.steering.opera import OPERA
from vlmattn.steering.pai import PAI, PAIContrast
from vlmattn.steering.paint import PAINT
from vlmattn.steering.replace_heads import ReplaceHeads
from vlmattn.steering.saved import load_steering, save_steering
from vlmattn.steering.scale_heads import ScaleHeads
from vlmattn.steering.spin import SPIN
from vlmattn.steering.together import Together
from vlmattn.steering.vaf import VAF
from vlmattn.steering.var import PRESETS, VAR
from vlmattn.steering.vcd import VCD
from vlmattn.steering.vhr import VHR

__all__ = [
    "ACT",
    "ADHH",
    "DAGCD",
    "DAMRO",
    "EAH",
    "HGAI",
    "ICD",
    "M3ID",
    "NAMED",
    "OPERA",
    "PAI",
    "PAINT",
    "PRESETS",
    "SPIN",
    "VAF",
    "VAR",
    "VCD",
    "VHR",
    "DeCo",
    "DoLa",
    "Focus",
    "KnockOut",
    "PAIContrast",
    "ReplaceHeads",
    "ScaleHeads",
    "Together",
    "fit_dagcd",
    "load_steering",
    "save_steering",
    "steering_of",
]
