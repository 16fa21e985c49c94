"""Human gaze: fixations and scanpaths, and how well maps of where a model looks agree with them."""

from __future__ import annotations

from vlmattn.gaze.baselines import (
    centre_bias,
    centre_map,
    leave_one_out,
    normalised,
    normalised_scores,
    other_points,
    split_half,
    uniform_map,
)
from vlmattn.gaze.conditional import conditional_auc, conditional_ig, conditional_nss
from vlmattn.gaze.density import BLURS, Blur, fixation_density
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.held_map import HeldMap, held_map, pixels_of, points_of, resized_map
from vlmattn.gaze.map_metrics import cc, fixation_kl, information_gain, kl, nss, nss_each, sim
from vlmattn.gaze.measures import DEFAULT_METRICS, MAP_METRICS, MapCase, MapMetric
from vlmattn.gaze.roc import auc, auc_borji, auc_each, auc_judd, auc_salicon, auc_shuffled
from vlmattn.gaze.scores import MapScores, Pictures, score_baseline, score_maps
from vlmattn.gaze.screen import Screen
from vlmattn.gaze.units import GazeWarning

__all__ = [
    "BLURS",
    "DEFAULT_METRICS",
    "MAP_METRICS",
    "Blur",
    "Fixations",
    "GazeWarning",
    "HeldMap",
    "MapCase",
    "MapMetric",
    "MapScores",
    "Pictures",
    "Scanpath",
    "Screen",
    "auc",
    "auc_borji",
    "auc_each",
    "auc_judd",
    "auc_salicon",
    "auc_shuffled",
    "cc",
    "centre_bias",
    "centre_map",
    "conditional_auc",
    "conditional_ig",
    "conditional_nss",
    "fixation_density",
    "fixation_kl",
    "held_map",
    "information_gain",
    "kl",
    "leave_one_out",
    "normalised",
    "normalised_scores",
    "nss",
    "nss_each",
    "other_points",
    "pixels_of",
    "points_of",
    "resized_map",
    "score_baseline",
    "score_maps",
    "sim",
    "split_half",
    "uniform_map",
]
