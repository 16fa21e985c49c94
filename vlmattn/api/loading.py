"""From a name, a folder or objects you hold to a model that can be asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import ModelLoadError, UnsupportedModel

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm

IN_THE_BOX = ("scene",)


def load(
    source: Any = "scene",
    processor: Any = None,
    *,
    device: Any = None,
    dtype: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    token: str | bool | None = None,
    attn_implementation: str | Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Vlm:
    """A model and its processor, ready to be asked.

    Args:
        source: ``scene`` (the small model in the box), a hub name, a local folder, or a transformers model.
        processor: the processor, when ``source`` is a model; otherwise loaded from the same place.
        device: where to put the model; default: the first GPU if there is one, else the CPU. Not with ``device_map``.
        dtype: ``float32``, ``bfloat16``, ``float16`` or a torch dtype; default: as the checkpoint says (``scene``:
            float32).
        device_map: as in transformers, for models spread over several devices.
        revision, token, trust_remote_code, options: go to ``from_pretrained`` as they are (``cache_dir``,
            ``local_files_only``, ``quantization_config`` …). Remote code never runs unless you ask for it.
        attn_implementation: the attention kernel; default: transformers' choice.

    Raises:
        ModelLoadError: nothing loadable there; says what was looked for.
        UnsupportedModel: the model is text-only, or of a family that is not supported.

    Example:
        >>> import vlmattn as va
        >>> va.load("scene").family
        'llava'
    """
    from vlmattn.api.vlm import Vlm

    if not isinstance(source, (str, Path)):
        return _held(source, processor, device, dtype)
    if device is not None and device_map is not None:
        raise ModelLoadError("give device or device_map, not both")
    place = _place(source)
    if revision is not None and Path(place).is_dir():
        raise ModelLoadError(f"{source} is a folder, which has no revisions: leave out revision={revision!r}")
    common = {"revision": revision, "token": token, "trust_remote_code": trust_remote_code}
    common |= {k: v for k, v in options.items() if k in ("cache_dir", "local_files_only", "subfolder")}
    _check_takes_pictures(place, source, common)
    if processor is None:
        processor = _load_processor(place, source, common)
    wanted = dict(options) | {k: v for k, v in common.items() if v is not None}
    wanted["dtype"] = _dtype(dtype, source)
    if device_map is not None:
        wanted["device_map"] = device_map
    if attn_implementation is not None:
        wanted["attn_implementation"] = attn_implementation
    model = _load_model(place, source, wanted).eval()
    if device_map is None:
        model = _move(model, device)
    return Vlm(model, processor, name=str(source), revision=_commit(place, common) or revision)


def _held(model: Any, processor: Any, device: Any, dtype: Any) -> Vlm:
    from vlmattn.api.vlm import Vlm

    if not hasattr(model, "config") or not hasattr(model, "parameters"):
        raise ModelLoadError(f"expected a name, a folder or a transformers model, got {type(model).__name__}")
    if processor is None:
        raise ModelLoadError(f"{type(model).__name__} came without a processor: load(model, processor)")
    if dtype is not None:
        model = model.to(dtype=_dtype(dtype, ""))
    if device is not None:
        model = _move(model, device)
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return Vlm(model.eval(), processor, name=str(name), revision=getattr(model.config, "_commit_hash", None))


def _place(source: str | Path) -> str:
    if str(source) == "scene":
        from vlmattn.scene import scene_model_folder

        return str(scene_model_folder())
    try:
        path = Path(source).expanduser()
        there = path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelLoadError(f"{str(source)[:200]!r} is neither a folder nor a hub name: {error}") from error
    looks_local = isinstance(source, Path) or str(source).startswith((".", "/", "~")) or there
    if not looks_local:
        return str(source)
    if not path.is_dir():
        raise ModelLoadError(
            f"{path} is not a folder with a model: it {'is a file' if path.exists() else 'does not exist'}"
        )
    if not (path / "config.json").is_file():
        raise ModelLoadError(f"{path} has no config.json: a model folder as save_pretrained writes it is expected")
    return str(path)


def _load_processor(place: str, source: Any, common: dict[str, Any]) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(place, **{k: v for k, v in common.items() if v is not None})
    except Exception as error:
        raise ModelLoadError(
            f"no processor for {source}: {_first_line(error)}. Give load(…, processor=…), or a folder that has "
            "processor_config.json or preprocessor_config.json"
        ) from error


def _check_takes_pictures(place: str, source: Any, common: dict[str, Any]) -> None:
    # The configuration comes first: it is small, and says at once that a name is wrong or a model is of another kind.
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(place, **{k: v for k, v in common.items() if v is not None})
    except Exception as error:
        raise ModelLoadError(f"no model configuration for {_told(source)}: {_first_line(error)}") from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise UnsupportedModel(f"{source} is a {config.model_type!r} model, which takes no pictures")


def _load_model(place: str, source: Any, wanted: dict[str, Any]) -> Any:
    from transformers import AutoModelForImageTextToText

    try:
        return AutoModelForImageTextToText.from_pretrained(place, **wanted)
    except Exception as error:
        raise ModelLoadError(f"{source} could not be loaded: {_first_line(error)}") from error


def _dtype(dtype: Any, source: Any) -> Any:
    import torch

    if dtype is None:
        return torch.float32 if str(source) in IN_THE_BOX else "auto"
    if isinstance(dtype, str) and dtype != "auto":
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype):
            raise ModelLoadError(f"dtype {dtype!r} does not exist; expected float32, bfloat16, float16 or auto")
        return found
    return dtype


def _move(model: Any, device: Any) -> Any:
    import torch

    if getattr(model, "hf_device_map", None) or getattr(model, "is_quantized", False):
        return model
    try:
        return model.to(device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise ModelLoadError(f"the model cannot be put on device {device!r}: {_first_line(error)}") from error


def _commit(place: str, common: dict[str, Any]) -> str | None:
    # The commit that a hub name stood for, as the cache's folder names say it; a branch or tag may move.
    from transformers.utils.hub import cached_file

    if Path(place).is_dir():
        return None
    known = {k: v for k, v in common.items() if v is not None and k != "trust_remote_code"}
    file = cached_file(place, "config.json", **known)
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(file))
    return found[1] if found else None


def _told(source: Any) -> str:
    return " ".join(str(source).split())[:200]


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
