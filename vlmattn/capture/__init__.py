"""The capture engine: attention rows of a running model, exactly, under its own kernel."""

from __future__ import annotations

from vlmattn.capture.kept import Candidates, HiddenStats, KeptRows
from vlmattn.capture.session import Session
from vlmattn.capture.sites import AttentionSite, ModelSites, model_sites
from vlmattn.capture.spec import CaptureEstimate, CaptureSpec
from vlmattn.capture.steering import Seen, Steering, Where
from vlmattn.capture.tower_pass import KeptTower, TowerPass
from vlmattn.capture.whole import HeldLayer, WholePass

__all__ = [
    "AttentionSite",
    "Candidates",
    "CaptureEstimate",
    "CaptureSpec",
    "HeldLayer",
    "HiddenStats",
    "KeptRows",
    "KeptTower",
    "ModelSites",
    "Seen",
    "Session",
    "Steering",
    "TowerPass",
    "Where",
    "WholePass",
    "model_sites",
]
