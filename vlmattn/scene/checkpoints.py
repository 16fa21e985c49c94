"""Checkpoints as safetensors and JSON: weights, optimiser state and counters appear together or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch


def save(folder: Path, parts: dict[str, Any], optimizer: Any, counters: dict[str, Any]) -> None:
    """Write the weights of ``parts``, the optimiser's moments and ``counters``; an earlier checkpoint is replaced."""
    from safetensors.torch import save_file

    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(_weights(parts), fresh / "weights.safetensors")
    save_file(_moments(optimizer), fresh / "optimizer.safetensors")
    (fresh / "counters.json").write_text(json.dumps(counters), encoding="utf-8")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, parts: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Put a checkpoint back; returns its counters, or {} if there is none."""
    from safetensors.torch import load_file

    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.exists():
        os.replace(old, folder)
    if not (folder / "counters.json").is_file():
        return {}
    held = load_file(folder / "weights.safetensors")
    for name, module in parts.items():
        own = {k.removeprefix(f"{name}/"): v for k, v in held.items() if k.startswith(f"{name}/")}
        missing, unexpected = module.load_state_dict(own, strict=False)
        if unexpected or any(k != "lm_head.weight" for k in missing):
            raise RuntimeError(f"checkpoint {folder} does not fit: {missing or unexpected}")
    _put_moments(optimizer, load_file(folder / "optimizer.safetensors"))
    counters: dict[str, Any] = json.loads((folder / "counters.json").read_text(encoding="utf-8"))
    return counters


def _weights(parts: dict[str, Any]) -> dict[str, torch.Tensor]:
    # The language head shares the embeddings' memory and is left out.
    return {
        f"{name}/{key}": value.detach().clone().contiguous()
        for name, module in parts.items()
        for key, value in module.state_dict().items()
        if key != "lm_head.weight"
    }


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
