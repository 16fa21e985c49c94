"""From a name, a folder or objects you hold to a model that can be asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.api.devices import check_device, chosen_device, float_type, move
from vlmattn.api.tuned import SETTINGS, tuned_at
from vlmattn.api.weights import first_line, load_weights
from vlmattn.core.errors import ModelLoadError, UnsupportedModel
from vlmattn.scene.box import is_in_the_box, load_from_the_box

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm

_LOADING = threading.RLock()  # transformers imports and fills models by settings of the whole process


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
    """A model and its processor, ready to be asked. Threads may load; they take turns.

    Args:
        source: a model in the box (``scene``; others: :mod:`vlmattn.scene.box`), a hub name, a local folder, a
            transformers or PEFT model, or an image-text-to-text pipeline. A folder or hub name may hold a PEFT adapter,
            whose base model is beside it or where it says.
        processor: the processor, when ``source`` is a model; otherwise loaded from the same place.
        device: where to put the model; default: the first GPU if there is one, else the CPU; a model that you hold
            stays where it is. Not with ``device_map``.
        dtype: ``float32``, ``bfloat16``, ``float16`` or a torch dtype; default: as the checkpoint says (models
            in the box: float32).
        device_map: as in transformers, for models spread over several devices or off-loaded (``offload_folder``).
        revision, token, trust_remote_code, options: go to ``from_pretrained`` as they are (``cache_dir``,
            ``local_files_only``, ``quantization_config`` …). Remote code never runs unless you ask for it.
        attn_implementation: the attention kernel; default: transformers' choice.

    Raises:
        ModelLoadError: nothing loadable there, or a checkpoint that does not fill the model; says what was looked for.
        UnsupportedModel: the model is text-only, of a family that is not supported, or needs remote code.
        DependencyMissing: a PEFT adapter, and PEFT is not installed.
        LayoutError: processor and configuration do not belong together.

    Example:
        >>> import vlmattn as va
        >>> va.load("scene").family
        'llava'
    """
    if not isinstance(source, (str, Path)):
        from vlmattn.api.held import held

        return held(source, processor, device, dtype)
    if device is not None and device_map is not None:
        raise ModelLoadError("give device or device_map, not both")
    hub = {"revision": revision, "token": token, "trust_remote_code": trust_remote_code}
    hub |= {k: v for k, v in options.items() if k in ("cache_dir", "local_files_only", "subfolder")}
    hub = {k: v for k, v in hub.items() if v is not None}
    with _LOADING:
        given = _given(dtype, device_map, revision, attn_implementation) | options
        if is_in_the_box(source):
            return _boxed(str(source), processor, device, given)
        check_device(device)
        return _fetched(source, processor, device, {"dtype": "auto"} | given, hub)


def _fetched(source: str | Path, processor: Any, device: Any, wanted: dict[str, Any], hub: dict[str, Any]) -> Vlm:
    # What is small comes first: a wrong name, another kind of model, or a processor of another model is told before
    # any weights are read.
    from vlmattn.adapters import check_pair
    from vlmattn.api.vlm import Vlm

    place, told = _place(source), _told(source)
    if "revision" in hub and Path(place).is_dir():
        raise ModelLoadError(f"{source} is a folder, which has no revisions: leave out revision={hub['revision']!r}")
    tuned = tuned_at(place, told, hub)
    base, theirs = (place, hub) if tuned is None else (tuned.base, tuned.base_options)
    config = _config(base, told if tuned is None else f"{base}, the base model of {told}", theirs)
    if processor is None:
        own = tuned is None or tuned.has_processor
        processor = _load_processor(place if own else base, told, hub if own else theirs)
    check_pair(config, processor)
    if wanted.keys() <= {"dtype", "device_map", *hub}:  # other options may change the configuration
        wanted["config"] = config
    wanted = {k: v for k, v in wanted.items() if k not in hub} | theirs
    if "device_map" not in wanted and _quantised(config, wanted):
        wanted["device_map"] = {"": chosen_device(device)}  # what is quantised while it loads goes there at once
    model = load_weights(base, told, wanted if tuned is None else wanted | tuned.extra)
    if tuned is not None:
        tuned.add_to(model, told, hub)
    model = model if "device_map" in wanted else move(model, device)
    name, file = (str(source), "config.json") if tuned is None else (tuned.name, SETTINGS)
    return Vlm(model.eval(), processor, name=name, revision=_commit(place, file, hub) or hub.get("revision"))


def _quantised(config: Any, wanted: dict[str, Any]) -> bool:
    told = (wanted.get("quantization_config"), getattr(config, "quantization_config", None))
    return any(one is not None for one in told)


def _boxed(name: str, processor: Any, device: Any, options: dict[str, Any]) -> Vlm:
    from vlmattn.api.vlm import Vlm

    if "revision" in options:
        raise ModelLoadError(f"{name} is in the box, where it has no revisions: leave out revision=")
    check_device(device)
    model, own = load_from_the_box(name, **options)
    if "device_map" not in options:
        model = move(model, device)
    return Vlm(model, processor if processor is not None else own, name=name)


def _given(dtype: Any, device_map: Any, revision: Any, attn_implementation: Any) -> dict[str, Any]:
    given = {"device_map": device_map, "revision": revision, "attn_implementation": attn_implementation}
    given["dtype"] = None if dtype is None else float_type(dtype)
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
    if not any((path / name).is_file() for name in ("config.json", SETTINGS)):
        raise ModelLoadError(f"{path} has no config.json: a model folder as save_pretrained writes it is expected")
    return str(path)


def _load_processor(place: str, told: str, hub: dict[str, Any]) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(place, **hub)
    except Exception as error:
        _check_remote_code(f"the processor of {told}", error)
        raise ModelLoadError(
            f"no processor for {told}: {first_line(error)}. Give load(…, processor=…), or a folder that has "
            "processor_config.json or preprocessor_config.json"
        ) from error


def _config(place: str, told: str, hub: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText

    from vlmattn.adapters import check_config

    try:
        config = AutoConfig.from_pretrained(place, **hub)
    except Exception as error:
        _check_remote_code(told, error)
        hint = "" if Path(place).is_dir() else f". There is no folder {_told(place)!r} here either{_meant(place)}"
        raise ModelLoadError(f"no model configuration for {told}: {first_line(error)}{hint}") from error
    check_config(config)
    kind = AutoModelForImageTextToText
    if type(config) not in kind._model_mapping and kind.__name__ not in (getattr(config, "auto_map", None) or {}):
        raise UnsupportedModel(
            f"{told} is a {config.model_type!r} model, which {kind.__name__} does not know: load it with its own "
            "class, and give load(model, processor)"
        )
    return config


def _check_remote_code(told: str, error: Exception) -> None:
    if "trust_remote_code" in str(error):
        raise UnsupportedModel(
            f"{told} needs program code of its own (auto_map in its settings), which is not run unless you ask, "
            "because it can do anything on this machine: read it, then load with trust_remote_code set to True; or "
            "take a checkpoint whose model type transformers has itself"
        ) from error


def _meant(source: Any) -> str:
    return "; the model in the box is called 'scene'" if "/" not in str(source).strip(" /") else ""


def _commit(place: str, file: str, hub: dict[str, Any]) -> str | None:
    # The commit that a hub name stood for, as the cache's folder names say it; a branch or tag may move.
    from transformers.utils.hub import cached_file

    if Path(place).is_dir():
        return None
    path = cached_file(place, file, **{k: v for k, v in hub.items() if k != "trust_remote_code"})
    found = re.search(r"snapshots[/\\]([0-9a-f]{40})[/\\]", str(path))
    return found[1] if found else None


def _told(source: Any) -> str:
    return " ".join(str(source).split())[:200]
