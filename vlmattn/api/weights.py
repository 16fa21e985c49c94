"""The weights of a model: all of them, from safetensors, or an error that names what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlmattn.core.errors import ModelLoadError

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_DECODER = re.compile(r"(^|\.)(language_model|lm_head|text_model)\.|(^|\.)lm_head\b")
_TOWER = re.compile(r"(^|\.)vision_(tower|model)\.")
_BUFFERS = ("rotary_emb.inv_freq", "position_ids", "attn.bias", "attn.masked_bias")


def load_weights(place: str, told: str, wanted: dict[str, Any]) -> Any:
    """The transformers model at ``place`` (a folder or a hub name), loaded with the options ``wanted``.

    Only safetensors are read: a pickle can run any program. Every weight of the model must be in the checkpoint;
    transformers would fill what is missing with random numbers.

    Raises:
        ModelLoadError: only pickled weights, damaged files, weights that are missing, of another shape, or of decoder
            layers that the configuration does not have.
    """
    from transformers import AutoModelForImageTextToText

    settings = wanted | {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    try:
        model, found = AutoModelForImageTextToText.from_pretrained(place, **settings)
    except Exception as error:
        raise ModelLoadError(_reason(place, told, error)) from error
    _check_complete(told, found)
    return model


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind if it has none."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _reason(place: str, told: str, error: BaseException) -> str:
    said = f"{told} could not be loaded: {first_line(error)}"
    if type(error).__name__ == "SafetensorError":
        return f"{said}: a weights file is cut off or damaged, download it again"
    folder = Path(place)
    if not folder.is_dir():
        safe = "safetensors" in str(error)
        return f"{said}; only safetensors are read, never pickled weights" if safe else said
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in _PICKLED for file in folder.glob(pattern))
        if pickled:
            listed = ", ".join(pickled[:3])
            return (
                f"{told} has only pickled weights ({listed}), which are never read because a pickle can run any "
                "program: convert them with safetensors.torch.save_file, or take a checkpoint that has "
                "model.safetensors"
            )
        return f"{told} could not be loaded: it has no model.safetensors"
    return said


def _check_complete(told: str, found: Any) -> None:
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"{told} lacks {len(missing)} weights of its model, among them {few(missing)}: they would be random "
            "numbers. Download the checkpoint again, or correct config.json (number of layers, sizes)"
        )
    other = sorted(found["mismatched_keys"], key=str)
    if other:
        name, has, needs = other[0]
        raise ModelLoadError(
            f"{told} has {len(other)} weights of another shape than config.json says, among them {name}: "
            f"{_shape(has)} in the checkpoint, {_shape(needs)} in the model. Take both from one model"
        )
    unused = sorted(name for name in found["unexpected_keys"] if _of_decoder(name))
    if unused:
        raise ModelLoadError(
            f"{told} has {len(unused)} weights of the language model that config.json knows nothing of, among them "
            f"{few(unused)}: the model would run without them. Correct config.json (number of layers)"
        )


def _of_decoder(name: str) -> bool:
    return bool(_DECODER.search(name)) and not _TOWER.search(name) and not name.endswith(_BUFFERS)


def few(names: Iterable[str], most: int = 3) -> str:
    """The first names of several."""
    listed = list(names)
    return ", ".join(listed[:most]) + (" …" if len(listed) > most else "")


def _shape(shape: Any) -> str:
    return " x ".join(str(side) for side in shape) or "one number"
