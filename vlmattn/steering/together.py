"""Several methods at once, and which of them contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlmattn.capture import Steering
from vlmattn.core.errors import SpecError


@dataclass(frozen=True, eq=False)
class Together(Steering):
    """Several methods that act in the order given, wherever one is asked for.

    Attributes:
        members: the methods; those that are made of several themselves are taken apart.

    Raises:
        SpecError: none, something else, or two that contrast logits.

    Example:
        >>> from vlmattn.steering import PAI, VCD
        >>> len(Together((PAI(), VCD())).parts())
        2
    """

    members: Sequence[Steering]

    def __post_init__(self) -> None:
        wrong = [one for one in self.members if not isinstance(one, Steering)]
        if wrong or not self.members:
            raise SpecError(f"Together joins Steering objects, got {wrong[0] if wrong else 'none'!r}")
        object.__setattr__(self, "members", tuple(part for one in self.members for part in one.parts()))
        check_one_logits_method(self.members)

    def parts(self) -> tuple[Steering, ...]:
        """The members."""
        return tuple(self.members)

    def describe(self) -> str:
        """One phrase for provenance."""
        return " + ".join(one.describe() for one in self.members)


def check_one_logits_method(steering: Sequence[Steering]) -> None:
    """Refuse several methods at the logits: each of them means the logits of the model itself.

    Raises:
        SpecError: names them.
    """
    names = [type(one).__name__ for one in steering if _slot(one) == "logits"]
    if len(names) > 1:
        raise SpecError(
            f"{' and '.join(names)} contradict each other: each contrasts the logits of the model itself. Use one at a "
            "time"
        )


def check_together(steering: Sequence[Steering], present: Sequence[int]) -> None:
    """Refuse methods that contradict each other in a model with attention in layers ``present``.

    Two methods that edit the same thing (scores, rows or head outputs) in a layer go together only where each merely
    multiplies by factors of its own, so that their order does not matter.

    Raises:
        SpecError: names the two, and where they meet; a layer that does not exist.
    """
    check_one_logits_method(steering)
    known = [(one, _slot(one)) for one in steering if _slot(one) not in (None, "logits") and not _is_neutral(one)]
    layers = {id(one): one.layers_among(present) for one, _ in known}
    for number, (second, slot) in enumerate(known):
        for first, other in known[:number]:
            shared = sorted(layers[id(first)] & layers[id(second)])
            if slot == other and shared and not (_only_factors(first) and _only_factors(second)):
                raise SpecError(
                    f"{type(first).__name__} and {type(second).__name__} both edit {slot} in layers {shared}, and what "
                    "comes out depends on which is first: use one of them, or give them different layers"
                )


def _slot(one: Any) -> str | None:
    return getattr(one, "slot", None)


def _only_factors(one: Any) -> bool:
    return bool(getattr(one, "factors", False))


def _is_neutral(one: Any) -> bool:
    return bool(getattr(one, "neutral", False))
