"""Models that you hold: as they are, in a pipeline, wrapped by PEFT, spread over devices, or quantised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmattn.api.devices import check_device, float_type, move
from vlmattn.capture.sites import unwrap
from vlmattn.core.errors import ModelLoadError, UnsupportedModel

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm

_BEFORE = "puts learnt tokens or keys before the prompt"
_BESIDE = {
    "PROMPT": _BEFORE,
    "PREFIX": _BEFORE,
    "P_TUNING": _BEFORE,
    "CPT": _BEFORE,
    "CARTRIDGE": _BEFORE,
    "XLORA": "runs the model once more for every pass",
    "POLY": "needs a task number for every prompt",
}
"""What works only through PEFT's own forward or generate, by a part of the kind's name."""


def held(source: Any, processor: Any, device: Any, dtype: Any) -> Vlm:
    """A :class:`Vlm` of a transformers model, a PEFT model or an image-text-to-text pipeline.

    Raises:
        ModelLoadError: no model, no processor, or a device or type that it cannot be given.
        UnsupportedModel: a PEFT adapter that is no part of the model's layers.
    """
    from vlmattn.api.vlm import Vlm

    model, processor = _taken_out(source, processor)
    if not hasattr(model, "config") or not hasattr(model, "parameters"):
        raise ModelLoadError(f"expected a name, a folder or a transformers model, got {type(model).__name__}")
    if processor is None:
        raise ModelLoadError(f"{type(model).__name__} came without a processor: load(model, processor)")
    if dtype is not None:
        model = _cast(model, dtype)
    if device is not None:
        check_device(device)
        model = move(model, device)
    adapters = _adapters(model)
    if hasattr(type(model), "get_base_model"):
        model = unwrap(model)
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    revision = getattr(model.config, "_commit_hash", None)
    return Vlm(model.eval(), processor, name=" + ".join((name, *adapters)), revision=revision)


def check_adapter_kind(kind: str, settings: Mapping[str, Any]) -> None:
    """Refuse an adapter of PEFT that is no part of the model's layers.

    Args:
        kind: PEFT's name of it, such as ``LORA``. settings: its configuration.

    Raises:
        UnsupportedModel: says why.
    """
    reason = next((why for part, why in _BESIDE.items() if part in kind), None)
    if settings.get("alora_invocation_tokens"):
        reason = "acts only from its invocation tokens on, which PEFT's own generate looks for"
    if reason is not None:
        raise UnsupportedModel(
            f"an adapter of kind {kind} {reason}, and is no part of the model's layers: only adapters that are can be "
            "used (LoRA and its like). Load the base model without it"
        )


def _taken_out(source: Any, processor: Any) -> tuple[Any, Any]:
    kinds = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(source).__mro__}
    if "transformers.Pipeline" not in kinds:
        return source, processor
    processor = processor if processor is not None else getattr(source, "processor", None)
    if processor is None:
        raise ModelLoadError(
            f"the pipeline of task {source.task!r} holds no processor, so it takes no pictures with its prompts: give "
            "pipeline('image-text-to-text', …), or load(pipe.model, processor)"
        )
    return source.model, processor


def _adapters(model: Any) -> list[str]:
    # Each adapter by name and kind; refuses those that are no part of the layers.
    configs = getattr(model, "peft_config", None) if hasattr(type(model), "get_base_model") else None
    if configs is None and getattr(model, "_hf_peft_config_loaded", False):
        configs = model.peft_config
    told = []
    for name, settings in (configs or {}).items():
        kind = str(getattr(settings.peft_type, "value", settings.peft_type))
        check_adapter_kind(kind, settings.to_dict())
        told.append(f"{kind} adapter {name!r}")
    return told


def _cast(model: Any, dtype: Any) -> Any:
    found = float_type(dtype)
    if found == "auto":
        return model
    if getattr(model, "is_quantized", False):
        raise ModelLoadError(f"the model is quantised, so it cannot become {dtype}: leave out dtype")
    if any(weight.is_meta for weight in model.parameters()):
        raise ModelLoadError(
            f"weights of the model are held elsewhere between calls, so it cannot become {dtype}: leave out dtype, or "
            "cast it before it is offloaded"
        )
    return model.to(dtype=found)
