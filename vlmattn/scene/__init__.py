"""Scenes drawn by a program, and the small model that was trained on them."""

from __future__ import annotations

from vlmattn.scene.box import scene_model_folder
from vlmattn.scene.dataset import write_split
from vlmattn.scene.evaluation import KindScore, evaluate
from vlmattn.scene.generator import Scene, SceneRule, make_scene
from vlmattn.scene.objects import SceneObject
from vlmattn.scene.questions import Question, ask
from vlmattn.scene.splits import SPLITS, SplitSpec, split_item

__all__ = [
    "SPLITS",
    "KindScore",
    "Question",
    "Scene",
    "SceneObject",
    "SceneRule",
    "SplitSpec",
    "ask",
    "evaluate",
    "make_scene",
    "scene_model_folder",
    "split_item",
    "write_split",
]
