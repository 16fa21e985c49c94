"""The models in the box: what they are called, where they lie, and how they are loaded.

=======================  ==============================================================================================
name                     what it is
=======================  ==============================================================================================
scene                    answers questions about drawn scenes, and sees
scene-prior              the same, taught to claim what usually goes with what is there
scene-prior@0.75         between the two: weights are mixed, 0 is scene, 1 is scene-prior; 0.75 claims a third as often
scene-sinks              scene with planted sinks on two patches: it answers, and its raw maps show only the sinks
scene-sinks-strong       the same, so strong that answers are lost until the attention is given back to the picture
=======================  ==============================================================================================
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import ModelLoadError, SpecError

if TYPE_CHECKING:
    from vlmattn.scene.planting import PlantedSinks

CHECKSUMS = {
    "scene-clip": "f2e6d52eccc30e13e8df7f216ec57cdd8ad4ac62b37e5cd79e64e26edb1d094f",
    "scene-prior": "9b3ee3c24f9e40d015e6443013ecf268e0c5269733777b8d35c3a0de0edfdce1",
    "scene": "90585d58382f3c48661f9ff6dc87637d2a3b5fb92d5c7f0da6b629ffb6a2f1a1",
}
"""SHA-256 of the shipped weights."""

SINK_PATCHES = (0, 63)
SINK_PULLS = {"scene-sinks": 5.5, "scene-sinks-strong": 12.0}
NAMES = ("scene", "scene-prior", *SINK_PULLS)
"""What :func:`vlmattn.load` takes for a model in the box; also ``scene-prior@STRENGTH``, from 0 to 1."""


def is_in_the_box(name: object) -> bool:
    """Whether a name is that of a model in the box."""
    return isinstance(name, str) and name.partition("@")[0] in NAMES


def scene_model_folder(name: str = "scene") -> Path:
    """The folder of shipped weights, as ``from_pretrained`` takes it.

    Raises:
        ModelLoadError: the installation lacks it, or its weights are not the ones that were shipped.
    """
    folder = Path(__file__).resolve().parent / "models" / name
    if not any(folder.glob("*config.json")):
        raise ModelLoadError(f"the model in the box is missing from {folder}: install vlmattn again")
    _check_weights(folder)
    return folder


def load_from_the_box(name: str, **options: Any) -> tuple[Any, Any]:
    """Model (float32 unless ``dtype`` says otherwise) and processor of a model in the box.

    Args:
        name: one of :data:`NAMES`. options: go to ``from_pretrained``.

    Raises:
        ModelLoadError: no such model, or a damaged installation. SpecError: a strength that is none.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    plain, _, strength = name.partition("@")
    if plain not in NAMES or (strength and plain != "scene-prior"):
        raise ModelLoadError(f"{name!r} is no model in the box; there are {', '.join(NAMES)}, and scene-prior@STRENGTH")
    share = _share(strength)
    options = {"dtype": torch.float32} | options | {"local_files_only": True}
    folder = scene_model_folder("scene-prior" if plain == "scene-prior" else "scene")
    model = AutoModelForImageTextToText.from_pretrained(folder, **options).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    if share != 1.0:
        _mix(model, AutoModelForImageTextToText.from_pretrained(scene_model_folder(), **options), share)
    if plain in SINK_PULLS:
        model, _ = with_sinks(model, plain)
    return model, processor


def with_sinks(model: Any, name: str) -> tuple[Any, PlantedSinks]:
    """A copy of ``scene`` with the planted sinks of ``scene-sinks`` or ``scene-sinks-strong``."""
    from vlmattn.scene.planting import plant_sinks

    return plant_sinks(model, patches=SINK_PATCHES, pull=SINK_PULLS[name])


def _share(text: str) -> float:
    if not text:
        return 1.0
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SpecError(f"the strength of scene-prior must be a number from 0 to 1, got {text!r}")
    return share


def _mix(model: Any, other: Any, share: float) -> None:
    # In place: ``share`` of the model, the rest of the other.
    import torch

    with torch.no_grad():
        for mine, its in zip(model.parameters(), other.parameters(), strict=True):
            mine.lerp_(its, 1 - share)


@cache
def _check_weights(folder: Path) -> None:
    wanted = CHECKSUMS[folder.name]
    name = "open_clip_model.safetensors" if folder.name == "scene-clip" else "model.safetensors"
    try:
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelLoadError(f"the weights in {folder} cannot be read: {error}: install vlmattn again") from error
    if found != wanted:
        raise ModelLoadError(f"the weights in {folder} are not the ones that were shipped: install vlmattn again")
