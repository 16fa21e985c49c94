"""What users hold in their hands: load a model, ask it, look at where it looked."""

from __future__ import annotations

from vlmattn.api.checking import Check, Checked
from vlmattn.api.circuits import head_circuits, pursue_heads
from vlmattn.api.clip import Clip, load_clip
from vlmattn.api.detection import DetectedWord, Detection
from vlmattn.api.exporting import EXPORTS
from vlmattn.api.focusing import Placed, fit_focus
from vlmattn.api.grounding import WordGrounding
from vlmattn.api.hallucination_heads import HallucinationHeads, Named, hallucination_heads
from vlmattn.api.head_calibration import CalibratedHeads, calibrate_act, calibrate_dagcd
from vlmattn.api.knockout import knockout_cost, knockout_sweep
from vlmattn.api.loading import load
from vlmattn.api.look import Look
from vlmattn.api.reading import joint_embedding, reasoning_of
from vlmattn.api.refinement import Refinement
from vlmattn.api.run import Run
from vlmattn.api.saved import load_run
from vlmattn.api.searching import Searched
from vlmattn.api.verify import Verification
from vlmattn.api.video_look import VideoLook
from vlmattn.api.vlm import Vlm

__all__ = [
    "EXPORTS",
    "CalibratedHeads",
    "Check",
    "Checked",
    "Clip",
    "DetectedWord",
    "Detection",
    "HallucinationHeads",
    "Look",
    "Named",
    "Placed",
    "Refinement",
    "Run",
    "Searched",
    "Verification",
    "VideoLook",
    "Vlm",
    "WordGrounding",
    "calibrate_act",
    "calibrate_dagcd",
    "fit_focus",
    "hallucination_heads",
    "head_circuits",
    "joint_embedding",
    "knockout_cost",
    "knockout_sweep",
    "load",
    "load_clip",
    "load_run",
    "pursue_heads",
    "reasoning_of",
]
