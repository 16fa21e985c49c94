"""A named choice of heads of one model: published, or found on data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

from vlmattn.core.errors import SpecError


@dataclass(frozen=True)
class HeadPreset:
    """One named choice of heads of one model.

    Attributes:
        name: what it is called. pairs: (layer, head) of each, best first; empty for all heads. depth: layers of that
            model; 0 where all heads of any model are meant.
        source: paper and model, or how they were found. note: what was found there.

    Raises:
        SpecError: no name, pairs that are no pairs of whole numbers, named twice, or in layers beyond ``depth``.

    Example:
        >>> HeadPreset("mine", ((1, 2), (1, 4)), depth=4, source="by hand", note="").pairs
        ((1, 2), (1, 4))
    """

    name: str
    pairs: tuple[tuple[int, int], ...]
    depth: int
    source: str
    note: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise SpecError(f"a head preset needs a name, got {self.name!r}")
        if not all(isinstance(value, str) for value in (self.source, self.note)):
            raise SpecError(f"source and note of head preset {self.name!r} must be text")
        try:
            pairs = tuple((layer, head) for layer, head in self.pairs)
        except (TypeError, ValueError):
            raise SpecError(f"pairs of head preset {self.name!r} must be (layer, head), got {self.pairs!r}") from None
        numbers = [self.depth, *(n for pair in pairs for n in pair)]
        if any(not isinstance(n, Integral) or isinstance(n, bool) or n < 0 for n in numbers):
            raise SpecError(f"depth and pairs of head preset {self.name!r} must be whole numbers from 0, got {numbers}")
        object.__setattr__(self, "pairs", tuple((int(layer), int(head)) for layer, head in pairs))
        beyond = [layer for layer, _ in pairs if layer >= self.depth]
        if beyond or len(set(pairs)) < len(pairs):
            what = f"lie in layers {beyond}" if beyond else "name a head twice"
            raise SpecError(f"heads of preset {self.name!r} {what}; the model has layers 0 to {self.depth - 1}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"pairs": [list(pair) for pair in self.pairs]}

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> HeadPreset:
        """What :meth:`to_dict` gave.

        Raises:
            SpecError: a field is missing or cannot be.
        """
        missing = [name for name in cls.__dataclass_fields__ if name not in held]
        if missing:
            raise SpecError(f"a head preset lacks {', '.join(missing)}")
        return cls(**{name: held[name] for name in cls.__dataclass_fields__})
