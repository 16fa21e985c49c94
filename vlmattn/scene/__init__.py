"""Scenes drawn by a program, and the small models that were trained on them."""

from __future__ import annotations

from vlmattn.scene.box import scene_model_folder
from vlmattn.scene.clip import load_clip
from vlmattn.scene.dataset import write_split
from vlmattn.scene.evaluation import KindScore, evaluate
from vlmattn.scene.generator import Scene, SceneRule, make_scene
from vlmattn.scene.leaning import LeaningScore, measure_leaning
from vlmattn.scene.objects import SceneObject
from vlmattn.scene.planting import PlantedSinks, plant_sinks
from vlmattn.scene.questions import Question, ask
from vlmattn.scene.splits import SPLITS, SplitSpec, split_item

__all__ = [
    "SPLITS",
    "KindScore",
    "LeaningScore",
    "PlantedSinks",
    "Question",
    "Scene",
    "SceneObject",
    "SceneRule",
    "SplitSpec",
    "ask",
    "evaluate",
    "load_clip",
    "make_scene",
    "measure_leaning",
    "plant_sinks",
    "scene_model_folder",
    "split_item",
    "write_split",
]
