"""Where the trained model lies in the installed package."""

from __future__ import annotations

from pathlib import Path

from vlmattn.core.errors import ModelLoadError


def scene_model_folder() -> Path:
    """The folder of the model in the box, as ``from_pretrained`` takes it.

    Raises:
        ModelLoadError: the installation lacks it.
    """
    folder = Path(__file__).resolve().parent / "model"
    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"the model in the box is missing from {folder}: install vlmattn again")
    return folder
