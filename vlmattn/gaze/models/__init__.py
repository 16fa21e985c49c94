"""Scanpaths without people: of maps, of a model's own order of looking, of what serves its aim, of chance."""

from __future__ import annotations

from vlmattn.gaze.models.attention import Inhibition, drawn_places, sampled_scanpath, winner_take_all
from vlmattn.gaze.models.chance import centre_scanpath, other_scanpath, random_walk, uniform_scanpath
from vlmattn.gaze.models.foveation import blurred, fovea, foveated
from vlmattn.gaze.models.neva import Chosen, Neva, cosine_loss, neva_clip, neva_places
from vlmattn.gaze.models.reading_order import place_of, places_scanpath, reading_scanpath
from vlmattn.gaze.models.saliency import itti_koch, spectral_residual
from vlmattn.gaze.models.timing import CONSTANT, Durations

__all__ = [
    "CONSTANT",
    "Chosen",
    "Durations",
    "Inhibition",
    "Neva",
    "blurred",
    "centre_scanpath",
    "cosine_loss",
    "drawn_places",
    "fovea",
    "foveated",
    "itti_koch",
    "neva_clip",
    "neva_places",
    "other_scanpath",
    "place_of",
    "places_scanpath",
    "random_walk",
    "reading_scanpath",
    "sampled_scanpath",
    "spectral_residual",
    "uniform_scanpath",
    "winner_take_all",
]
