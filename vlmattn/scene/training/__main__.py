"""``python -m vlmattn.scene.training MODEL --out DIR``: draws samples, trains or goes on with a training, exports."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from vlmattn.core.errors import DependencyMissing
from vlmattn.scene.training.recipes import ClipRecipe, PriorRecipe, SceneRecipe


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m vlmattn.scene.training", description=__doc__)
    parser.add_argument("model", choices=("scene", "scene-prior", "scene-clip"), help="which one to make")
    parser.add_argument("--out", type=Path, required=True, help="folder for samples, checkpoints, log and model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="of one thread each, on a machine without a GPU")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipe's steps, to try it out")
    parser.add_argument("--scenes", type=int, help="scenes to draw, in place of the recipe's number")
    parser.add_argument(
        "--base", type=Path, help="scene model that scene-prior and scene-clip start from; default: the one in the box"
    )
    parser.add_argument("--compile", action="store_true", help="compile the model first: quicker steps")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    {"scene": _train_scene, "scene-prior": _train_prior, "scene-clip": _train_clip}[given.model](given)


def _train_scene(given: argparse.Namespace) -> None:
    from vlmattn.scene.training.launch import launch
    from vlmattn.scene.training.samples import make_samples
    from vlmattn.scene.training.scene import train_scene

    recipe = SceneRecipe()
    stages = {name: getattr(recipe, name) for name in ("vision", "questions", "again")}
    shorter = {name: replace(stage, steps=round(stage.steps * given.scale)) for name, stage in stages.items()}
    recipe = replace(recipe, **shorter, scenes=given.scenes or recipe.scenes, compiled=given.compile)
    make_samples(given.out / "samples", recipe.scenes, processes=given.processes)
    launch(train_scene, given.out, recipe, given.seed, processes=given.processes)
    _export(given.out, recipe.again.name)


def _train_prior(given: argparse.Namespace) -> None:
    from vlmattn.scene.box import scene_model_folder
    from vlmattn.scene.training.launch import launch
    from vlmattn.scene.training.samples import make_samples
    from vlmattn.scene.training.scene import train_prior

    recipe = PriorRecipe()
    recipe = replace(recipe, questions=replace(recipe.questions, steps=round(recipe.questions.steps * given.scale)))
    recipe = replace(recipe, scenes=given.scenes or recipe.scenes, compiled=given.compile)
    make_samples(given.out / "samples", recipe.scenes, "leaning", processes=given.processes)
    base = given.base or scene_model_folder()
    launch(train_prior, given.out, recipe, given.seed, base, processes=given.processes)
    _export(given.out, recipe.questions.name)


def _train_clip(given: argparse.Namespace) -> None:
    from vlmattn.scene.box import scene_model_folder
    from vlmattn.scene.training.clip import export_clip, train_clip
    from vlmattn.scene.training.launch import launch

    recipe = ClipRecipe()
    recipe = replace(recipe, stage=replace(recipe.stage, steps=round(recipe.stage.steps * given.scale)))
    base = given.base or scene_model_folder()
    launch(train_clip, given.out, recipe, given.seed, base, processes=given.processes)
    print(export_clip(given.out / recipe.stage.name, given.out / "model"))
    _draw(given.out)


def _export(folder: Path, stage: str) -> None:
    from vlmattn.scene.training.export import export

    print(export(folder / stage, folder / "model"))
    _draw(folder)


def _draw(folder: Path) -> None:
    from vlmattn.scene.training.curves import draw_curves

    try:
        print(draw_curves(folder / "log.jsonl", folder / "curves.png"))
    except DependencyMissing as error:
        print(f"no curves were drawn: {error}")


if __name__ == "__main__":
    main()
