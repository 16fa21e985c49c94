"""What goes into a processor and what comes out of it, whatever the family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vlmattn.adapters.videos import video_options
from vlmattn.core.errors import ImageError, PromptError

if TYPE_CHECKING:
    from vlmattn.core.videos import Video

UNPADDED: Mapping[str, Any] = MappingProxyType(
    {
        "padding": False,
        "truncation": False,
        "return_tensors": None,
        "return_offsets_mapping": True,
        "return_text_replacement_offsets": True,
    }
)
"""What a processor is asked for: unpadded lists, with offsets of tokens and of pictures' places."""


def grouped(images: Any, prompts: int, *, batch: bool) -> list[list[Any]]:
    """The pictures and videos of each prompt."""
    if hasattr(images, "size") or isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
        raise ImageError(f"images must be a list of PIL images, got {type(images).__name__}")
    nested = [isinstance(i, (list, tuple)) for i in images]
    if any(nested) and not all(nested):
        raise ImageError("images must be pictures, or one list of pictures per prompt, not a mixture")
    groups = [list(g) for g in images] if any(nested) else [[i] for i in images] if batch else [list(images)]
    if len(groups) != prompts:
        raise PromptError(f"{prompts} prompts came with {len(groups)} sets of pictures: give one list of pictures each")
    return groups


def with_videos(options: Mapping[str, Any], clips: Sequence[Video], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a processor's call for prompts with videos, whose frames it takes as they are.

    ``settings``: further options of its video processor. Text still comes as lists, pixels as tensors.
    """
    given = video_options(clips)
    lists = {"return_tensors": options.get("return_tensors")}
    kept = {name: value for name, value in options.items() if name != "return_tensors"}
    tensors = {"return_tensors": "pt"}
    given["videos_kwargs"] |= settings
    return kept | {"text_kwargs": lists, "images_kwargs": tensors} | given


def joined(values: Sequence[Any]) -> Any:
    """Lists or tensors of several calls of a processor, one after the other."""
    import torch

    if all(isinstance(value, torch.Tensor) for value in values):
        return torch.cat(list(values))
    return [item for value in values for item in value]
