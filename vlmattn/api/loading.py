"""From a name, a folder or objects you hold to a model that can be asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.api.weights import first_line, load_weights
from vlmattn.core.errors import ModelLoadError, UnsupportedModel
from vlmattn.scene.box import is_in_the_box, load_from_the_box

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm


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
        source: a model in the box (``scene``; others: :mod:`vlmattn.scene.box`), a hub name, a local folder, or a
            transformers model.
        processor: the processor, when ``source`` is a model; otherwise loaded from the same place.
        device: where to put the model; default: the first GPU if there is one, else the CPU. Not with ``device_map``.
        dtype: ``float32``, ``bfloat16``, ``float16`` or a torch dtype; default: as the checkpoint says (models
            in the box: float32).
        device_map: as in transformers, for models spread over several devices.
        revision, token, trust_remote_code, options: go to ``from_pretrained`` as they are (``cache_dir``,
            ``local_files_only``, ``quantization_config`` …). Remote code never runs unless you ask for it.
        attn_implementation: the attention kernel; default: transformers' choice.

    Raises:
        ModelLoadError: nothing loadable there, or a checkpoint that does not fill the model; says what was looked for.
        UnsupportedModel: the model is text-only, or of a family that is not supported.
        LayoutError: processor and configuration do not belong together.

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
    if is_in_the_box(source):
        given = _given(dtype, device_map, revision, attn_implementation)
        return _boxed(str(source), processor, device, given | options)
    place = _place(source)
    if revision is not None and Path(place).is_dir():
        raise ModelLoadError(f"{source} is a folder, which has no revisions: leave out revision={revision!r}")
    common = {"revision": revision, "token": token, "trust_remote_code": trust_remote_code}
    common |= {k: v for k, v in options.items() if k in ("cache_dir", "local_files_only", "subfolder")}
    _check_device(device)
    wanted = dict(options) | {k: v for k, v in common.items() if v is not None}
    wanted["dtype"] = _dtype(dtype)
    processor = _checked_processor(place, source, processor, common)
    if device_map is not None:
        wanted["device_map"] = device_map
    if attn_implementation is not None:
        wanted["attn_implementation"] = attn_implementation
    model = load_weights(place, _told(source), wanted).eval()
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
        model = model.to(dtype=_dtype(dtype))
    if device is not None:
        _check_device(device)
        model = _move(model, device)
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return Vlm(model.eval(), processor, name=str(name), revision=getattr(model.config, "_commit_hash", None))


def _boxed(name: str, processor: Any, device: Any, options: dict[str, Any]) -> Vlm:
    from vlmattn.api.vlm import Vlm

    if "revision" in options:
        raise ModelLoadError(f"{name} is in the box, where it has no revisions: leave out revision=")
    _check_device(device)
    model, own = load_from_the_box(name, **options)
    if "device_map" not in options:
        model = _move(model, device)
    return Vlm(model, processor if processor is not None else own, name=name)


def _given(dtype: Any, device_map: Any, revision: Any, attn_implementation: Any) -> dict[str, Any]:
    given = {"device_map": device_map, "revision": revision, "attn_implementation": attn_implementation}
    given["dtype"] = None if dtype is None else _dtype(dtype)
    return {name: value for name, value in given.items() if value is not None}


def _place(source: str | Path) -> str:
    if not str(source).strip():
        raise ModelLoadError("the model's name is empty: give a folder, a hub name, or 'scene' for the one in the box")
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
            f"no processor for {source}: {first_line(error)}. Give load(…, processor=…), or a folder that has "
            "processor_config.json or preprocessor_config.json"
        ) from error


def _checked_processor(place: str, source: Any, processor: Any, common: dict[str, Any]) -> Any:
    # What is small comes first: a wrong name, another kind of model, or a processor of another model is told before
    # any weights are read.
    from vlmattn.adapters import check_config, check_pair

    config = _config(place, source, common)
    check_config(config)
    if processor is None:
        processor = _load_processor(place, source, common)
    check_pair(config, processor)
    return processor


def _config(place: str, source: Any, common: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(place, **{k: v for k, v in common.items() if v is not None})
    except Exception as error:
        hint = "" if Path(place).is_dir() else f". There is no folder {_told(source)!r} here either{_meant(source)}"
        raise ModelLoadError(f"no model configuration for {_told(source)}: {first_line(error)}{hint}") from error
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise UnsupportedModel(f"{source} is a {config.model_type!r} model, which takes no pictures")
    return config


def _meant(source: Any) -> str:
    return "; the model in the box is called 'scene'" if "/" not in str(source).strip(" /") else ""


def _dtype(dtype: Any) -> Any:
    import torch

    if dtype is None:
        return "auto"
    found = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != "auto" else dtype
    if found != "auto" and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ModelLoadError(f"dtype {dtype!r} cannot be used; expected float32, bfloat16, float16 or auto")
    return found


def _check_device(device: Any) -> None:
    # An empty tensor tells at once what a model of many gigabytes would tell much later.
    import torch

    if device is None:
        return
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError, ImportError) as error:
        raise ModelLoadError(f"device {device!r} cannot be used: {first_line(error)}") from error
    if kind == "meta":
        raise ModelLoadError(f"device {str(device)!r} holds no numbers, so nothing can run there: choose cpu or cuda")


def _move(model: Any, device: Any) -> Any:
    import torch

    if getattr(model, "hf_device_map", None) or getattr(model, "is_quantized", False):
        return model
    try:
        return model.to(device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise ModelLoadError(f"the model cannot be put on device {device!r}: {first_line(error)}") from error


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
