"""From a training checkpoint to a model folder: ``python -m vlmattn.scene.export CHECKPOINT FOLDER``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from vlmattn.core.errors import FileError


def export(checkpoint: Path, folder: Path) -> Path:
    """Write weights (float16), configuration, tokenizer and processor; an existing README.md is kept.

    Raises:
        FileError: no checkpoint there.
    """
    import torch
    from safetensors.torch import load_file

    from vlmattn.scene.build import make_model, make_processor, make_tokenizer

    weights = checkpoint / "weights.safetensors"
    if not weights.is_file():
        raise FileError(f"{checkpoint} holds no checkpoint: weights.safetensors is missing")
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    own = {k.removeprefix("model/"): v for k, v in load_file(weights).items() if k.startswith("model/")}
    model.load_state_dict(own, strict=False)
    model.tie_weights()
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.to(torch.float16).save_pretrained(fresh)
    make_processor(tokenizer).save_pretrained(fresh)
    card = folder / "README.md"
    if card.is_file():
        shutil.copy(card, fresh / "README.md")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(fresh, folder)
    return folder


if __name__ == "__main__":
    print(export(Path(sys.argv[1]), Path(sys.argv[2])))
