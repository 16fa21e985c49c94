"""Contrastive refinement: where to look again, what to show there, and whether a second look is worth its price."""

from __future__ import annotations

from vlmattn.refine.complexity import attention_entropy, colour_complexity, texture_complexity
from vlmattn.refine.contrast import contrast
from vlmattn.refine.gate import FittedGate, Gate, Signs, fit_gate, signs_of
from vlmattn.refine.places import Place, place_of
from vlmattn.refine.recipes import RECIPES, SUFFIX, Recipe
from vlmattn.refine.refined import Refined, refine_picture
from vlmattn.refine.search import SEARCHES, SearchPath, SearchRule, Seen, Visit, search

__all__ = [
    "RECIPES",
    "SEARCHES",
    "SUFFIX",
    "FittedGate",
    "Gate",
    "Place",
    "Recipe",
    "Refined",
    "SearchPath",
    "SearchRule",
    "Seen",
    "Signs",
    "Visit",
    "attention_entropy",
    "colour_complexity",
    "contrast",
    "fit_gate",
    "place_of",
    "refine_picture",
    "search",
    "signs_of",
    "texture_complexity",
]
