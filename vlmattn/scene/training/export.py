"""From a training checkpoint to a model folder: ``python -m vlmattn.scene.training.export CHECKPOINT FOLDER``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError
from vlmattn.core.files import replace_folder, write_json

_KEPT = ("README.md", "notes.md", "scores.json", "pointing.json", "other_seeds.json")


def export(checkpoint: Path, folder: Path) -> Path:
    """Write weights (float16), configuration, tokenizer and processor; existing notes and scores are kept.

    The new folder appears whole or not at all. What the checkpoint counted (steps, minutes) goes into
    ``training.json``.

    Raises:
        FileError: no checkpoint there, or one of another model.
    """
    import torch

    from vlmattn.scene.build import make_model, make_processor, make_tokenizer

    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    _fill(model, checkpoint)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.to(torch.float16).save_pretrained(fresh)
    make_processor(tokenizer).save_pretrained(fresh)
    note(checkpoint, fresh)
    for name in _KEPT:
        if (folder / name).is_file():
            shutil.copy(folder / name, fresh / name)
    for path in fresh.iterdir():
        path.chmod(0o644)
    replace_folder(fresh, folder)
    return folder


def _fill(model: Any, checkpoint: Path) -> None:
    from safetensors.torch import load_file

    weights = checkpoint / "weights.safetensors"
    if not weights.is_file():
        raise FileError(f"{checkpoint} holds no checkpoint: weights.safetensors is missing")
    own = {k.removeprefix("model."): v for k, v in load_file(weights).items() if k.startswith("model.")}
    try:
        missing, unexpected = model.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise FileError(f"{checkpoint} holds another model: {error}") from error
    lost = [*(k for k in missing if k != "lm_head.weight"), *unexpected]
    if lost:
        raise FileError(f"{checkpoint} holds another model: {len(lost)} weights do not match, such as {lost[0]}")
    model.tie_weights()


def note(checkpoint: Path, fresh: Path) -> None:
    """Write what a checkpoint counted to ``training.json``."""
    counters = checkpoint / "counters.json"
    if counters.is_file():
        counted = json.loads(counters.read_text(encoding="utf-8"))
        write_json(fresh / "training.json", {"steps_of_the_last_stage": counted["step"], "seed": counted["seed"]})


if __name__ == "__main__":
    print(export(Path(sys.argv[1]), Path(sys.argv[2])))
