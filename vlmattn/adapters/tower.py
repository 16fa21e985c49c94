"""The vision tower: how many tokens it makes per view, and which of them have a place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlmattn.core.errors import UnsupportedModel

# Tokens without a place that come before the patches, by vision_config.model_type.
LEADING_TOKENS = {
    "clip_vision_model": 1,
    "granite_docling_vision": 0,
    "idefics3_vision": 0,
    "internvl_vision": 1,
    "llama4_vision_model": 0,
    "ovis2_vision": 0,
    "qianfan_ocr_vision": 1,
    "siglip_vision_model": 0,
    "smolvlm_vision": 0,
}
REASONS = {"pixtral": "its input has no fixed size, and this family is known with towers of one size only"}


@dataclass(frozen=True)
class Tower:
    """A vision tower.

    Attributes:
        name: ``vision_config.model_type``.
        image_size, patch_size: side of the input and of a patch, in pixels; ``image_size`` is 0 where rows and columns
            follow the picture.
        leading: tokens without a place that reach the language model before the patches of each view (CLS). -1: the
            first patch is dropped in its stead, because the tower has no CLS token.
    """

    name: str
    image_size: int
    patch_size: int
    leading: int

    @property
    def side(self) -> int:
        """Rows, and columns, of patches."""
        return self.image_size // self.patch_size

    @property
    def size_told(self) -> str:
        """Rows and columns for the reader."""
        return f"{self.side} x {self.side}" if self.image_size else f"patches of {self.patch_size} pixels"


def tower_of(config: Any, *, towers: tuple[str, ...], strategy: str) -> Tower:
    """The tower of a model's configuration.

    Raises:
        UnsupportedModel: if the tower is not one of ``towers``.
    """
    vision = config.vision_config
    name = _known(config, tuple(t for t in towers if t in LEADING_TOKENS))
    leading = LEADING_TOKENS[name] - (1 if strategy == "default" else 0)
    return Tower(name, one_side(vision.image_size, "image_size"), one_side(vision.patch_size, "patch_size"), leading)


def square_tower(config: Any, towers: tuple[str, ...]) -> Tower:
    """The tower of a square input, all of whose tokens are patches in reading order.

    Raises UnsupportedModel if it is not one of ``towers``.
    """
    vision, name = config.vision_config, _known(config, towers)
    return Tower(name, one_side(vision.image_size, "image_size"), one_side(vision.patch_size, "patch_size"), 0)


def free_tower(config: Any, towers: tuple[str, ...]) -> Tower:
    """The tower of an input without a size of its own, all of whose tokens are patches in reading order.

    Raises UnsupportedModel if it is not one of ``towers``.
    """
    return Tower(_known(config, towers), 0, one_side(config.vision_config.patch_size, "patch_size"), 0)


def _known(config: Any, towers: tuple[str, ...]) -> str:
    name = str(config.vision_config.model_type)
    if name in towers:
        return name
    reason = REASONS.get(name, "the order of its tokens is not known")
    raise UnsupportedModel(
        f"vision tower {name!r} is not supported with {config.model_type!r}: {reason}. Supported: {', '.join(towers)}"
    )


def one_side(value: Any, name: str) -> int:
    """A size that may be told as (height, width). Raises UnsupportedModel if these differ."""
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1:
        raise UnsupportedModel(f"vision_config.{name} must be one number (square), got {value}")
    return int(sides.pop())
