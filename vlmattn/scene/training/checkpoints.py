"""Checkpoints as safetensors and JSON: weights, optimiser state and counters appear together or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from vlmattn.core.files import replace_folder

_TIED = "lm_head.weight"


def save(folder: Path, module: Any, optimizer: Any, counters: dict[str, Any]) -> None:
    """Write a module's weights, the optimiser's moments and ``counters``; an earlier checkpoint is replaced."""
    from safetensors.torch import save_file

    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(_weights(module), fresh / "weights.safetensors")
    save_file(_moments(optimizer), fresh / "optimizer.safetensors")
    (fresh / "counters.json").write_text(json.dumps(counters), encoding="utf-8")
    replace_folder(fresh, folder)


def load(folder: Path, module: Any, optimizer: Any) -> dict[str, Any]:
    """Put a checkpoint back; returns its counters, or {} if there is none."""
    from safetensors.torch import load_file

    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.exists():
        os.replace(old, folder)
    if not (folder / "counters.json").is_file():
        return {}
    held = load_file(folder / "weights.safetensors")
    missing, unexpected = module.load_state_dict(held, strict=False)
    if unexpected or any(not k.endswith(_TIED) for k in missing):
        raise RuntimeError(f"checkpoint {folder} does not fit: {missing or unexpected}")
    _put_moments(optimizer, load_file(folder / "optimizer.safetensors"))
    counters: dict[str, Any] = json.loads((folder / "counters.json").read_text(encoding="utf-8"))
    return counters


def _weights(module: Any) -> dict[str, torch.Tensor]:
    # The language head shares the embeddings' memory and is left out.
    held = module.state_dict().items()
    return {key: value.detach().cpu().clone().contiguous() for key, value in held if not key.endswith(_TIED)}


def _moments(optimizer: Any) -> dict[str, torch.Tensor]:
    state = optimizer.state_dict()["state"]
    found = {f"{index}/{key}": torch.as_tensor(v).clone() for index, s in state.items() for key, v in s.items()}
    return found or {"empty": torch.zeros(1)}


def _put_moments(optimizer: Any, held: dict[str, torch.Tensor]) -> None:
    state = optimizer.state_dict()
    for name, value in held.items():
        index, _, key = name.partition("/")
        if key:
            state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)
