"""Numeric types and devices: checked before weights are read, and applied to models that can be moved."""

from __future__ import annotations

from typing import Any

from vlmattn.api.weights import first_line
from vlmattn.core.errors import ModelLoadError


def float_type(dtype: Any) -> Any:
    """A torch dtype with fractions, or ``auto``.

    Raises:
        ModelLoadError: anything else.
    """
    import torch

    if dtype is None:
        return "auto"
    found = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != "auto" else dtype
    if found != "auto" and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ModelLoadError(f"dtype {dtype!r} cannot be used; expected float32, bfloat16, float16 or auto")
    return found


def check_device(device: Any) -> None:
    """Refuse a device that is not there, or that holds no numbers.

    Raises:
        ModelLoadError: says why it cannot be used.
    """
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


def chosen_device(device: Any) -> Any:
    """The device asked for; without one the first GPU if there is one, else the CPU."""
    import torch

    return device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu")


def move(model: Any, device: Any) -> Any:
    """The model on ``device`` (None: see :func:`chosen_device`).

    Raises:
        ModelLoadError: it is spread over devices or offloaded, or does not fit.
    """
    import torch

    spread = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
    if spread or any(weight.is_meta for weight in model.parameters()):
        raise ModelLoadError(
            "the model is spread over devices, or its weights are held elsewhere between calls, so it cannot be put on "
            f"device {device!r}: leave out device"
        )
    if device is None and not torch.cuda.is_available():
        return model
    try:
        return model.to(chosen_device(device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ModelLoadError(f"the model cannot be put on device {device!r}: {first_line(error)}") from error
