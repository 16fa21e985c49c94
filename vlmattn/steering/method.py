"""What published methods have in common: named settings, the model these were published for, the slot they act in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Literal, Self

from vlmattn.capture import Steering
from vlmattn.capture.choices import is_whole
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout

Slot = Literal["queries", "scores", "rows", "heads", "logits"]
Heads = tuple[tuple[int, int], ...]
"""(layer, head) pairs."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Method(Steering):
    """A published method, as one change of a running model.

    Attributes:
        layers: numbers to act in (negative ones count from the end); None for all that the method allows.
        depth: layers of the model that these settings were published for: another model is refused; None for any.
    """

    slot: ClassVar[Slot]
    factors: ClassVar[bool] = False
    """Whether the edit multiplies what it finds by factors of its own, or adds numbers of its own to queries and keys,
    so that its order does not matter."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Published settings by name."""

    layers: tuple[int, ...] | None = None
    depth: int | None = None

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The settings of :attr:`presets`, with changes; other ``layers`` than the published ones free the depth.

        Raises:
            SpecError: lists those there are.
        """
        if name not in cls.presets:
            there = ", ".join(cls.presets) or "none"
            raise SpecError(f"preset {name!r} of {cls.__name__} does not exist; there are {there}")
        free = {"depth": None} if "layers" in changes or "heads" in changes else {}
        return cls(**(dict(cls.presets[name]) | free | changes))

    @property
    def neutral(self) -> bool:
        """Whether the settings change nothing at all."""
        return False

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """See :meth:`Steering.layers_among`; refuses models of another depth than the settings are for."""
        self.check_depth(max(present) + 1)
        return super().layers_among(present)

    @staticmethod
    def layers_of_heads(present: Sequence[int], heads: Heads) -> frozenset[int]:
        """The layers that heads belong to.

        Raises:
            SpecError: one that has no attention.
        """
        missing = sorted({layer for layer, _ in heads} - set(present))
        if missing:
            raise SpecError(f"layer {missing[0]} has no attention; layers that have are {sorted(present)}")
        return frozenset(layer for layer, _ in heads)

    def check_depth(self, depth: int) -> None:
        """Raise a SpecError for a model that the settings are not for."""
        if self.depth is not None and depth != self.depth:
            raise SpecError(
                f"these settings of {type(self).__name__} were published for a model of {self.depth} layers, this one "
                f"has {depth}: give layers (or heads) of your own"
            )

    def _check_number(self, name: str, low: float = -math.inf, high: float = math.inf) -> None:
        value = getattr(self, name)
        real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not real or not low <= float(value) <= high:
            span = f"from {low:g} to {high:g}" if math.isfinite(low) and math.isfinite(high) else (
                f"at least {low:g}" if math.isfinite(low) else "finite"
            )  # fmt: skip
            raise SpecError(f"{name} of {type(self).__name__} must be a number, {span}; got {value!r}")

    def _told(self, *settings: str) -> str:
        # "PAI: alpha=0.5 in layers 2, 3"
        parts = [f"{name}={getattr(self, name)}" for name in settings]
        where = f" in layers {', '.join(map(str, self.layers))}" if self.layers is not None else ""
        return f"{type(self).__name__}: {', '.join(parts)}{where}"


def check_pictures(name: str, layouts: Sequence[TokenLayout]) -> None:
    """Refuse prompts without image columns in the decoder's own sequence.

    Raises:
        SpecError: a prompt without a picture.
    """
    for layout in layouts:
        if not len(layout.image_positions):
            raise SpecError(f"{name} acts on attention to pictures, and a prompt has no image token")


def check_layer_number(name: str, value: Any) -> None:
    """Raise a SpecError unless ``value`` is a layer number from 0."""
    if not is_whole(value) or value < 0:
        raise SpecError(f"{name} must be a layer number, from 0; got {value!r}")


def check_pairs(name: str, heads: Any) -> Heads:
    """(layer, head) pairs, as whole numbers.

    Raises:
        SpecError: none, one that is no pair, or twice there.
    """
    try:
        pairs = tuple((layer, head) for layer, head in heads)
    except (TypeError, ValueError):
        raise SpecError(f"heads of {name} must be (layer, head) pairs, got {heads!r}") from None
    if not pairs or not all(is_whole(n) and n >= 0 for pair in pairs for n in pair) or len(set(pairs)) < len(pairs):
        raise SpecError(f"heads of {name} must be different (layer, head) pairs from 0, got {heads!r}")
    return tuple((int(layer), int(head)) for layer, head in pairs)


def check_heads(heads: Heads, counts: Mapping[int, int]) -> None:
    """Refuse heads that a model with ``counts`` heads by layer does not have.

    Raises:
        SpecError: names the head, and what there is.
    """
    for layer, head in heads:
        if layer not in counts:
            raise SpecError(f"layer {layer} has no attention; layers that have are {sorted(counts)}")
        if head >= counts[layer]:
            raise SpecError(
                f"head {head} of layer {layer} does not exist; the layer has heads 0 to {counts[layer] - 1}"
            )
