"""Attention sinks: which tokens draw attention without regard to content, what they take, and maps without them."""

from __future__ import annotations

from vlmattn.sinks.background import BackgroundTest, background_test
from vlmattn.sinks.calibration import Observation, Rules, calibrated, candidates
from vlmattn.sinks.coordinates import PUBLISHED, TAU_RELATIVE, SinkCoordinates, published_coordinates
from vlmattn.sinks.detect import attention_received, massive_sinks, received_sinks
from vlmattn.sinks.found import Sinks, SinkToken
from vlmattn.sinks.heads import image_centric_heads
from vlmattn.sinks.massive import MassiveActivation, massive_activations, phi_of, threshold
from vlmattn.sinks.removal import KEEPS, with_sinks
from vlmattn.sinks.roles import SinkRole, sink_roles
from vlmattn.sinks.tower import TowerOverlap, tower_overlap

__all__ = [
    "KEEPS",
    "PUBLISHED",
    "TAU_RELATIVE",
    "BackgroundTest",
    "MassiveActivation",
    "Observation",
    "Rules",
    "SinkCoordinates",
    "SinkRole",
    "SinkToken",
    "Sinks",
    "TowerOverlap",
    "attention_received",
    "background_test",
    "calibrated",
    "candidates",
    "image_centric_heads",
    "massive_activations",
    "massive_sinks",
    "phi_of",
    "published_coordinates",
    "received_sinks",
    "sink_roles",
    "threshold",
    "tower_overlap",
    "with_sinks",
]
