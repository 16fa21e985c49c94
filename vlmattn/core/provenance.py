"""Where a result comes from: stored in every result and written into every file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import metadata
from typing import Any


@cache
def library_versions() -> dict[str, str]:
    """Versions of vlmattn and of the libraries that numbers depend on; those not installed are left out."""
    versions = {}
    for name in ("vlmattn", "torch", "transformers", "numpy", "pillow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True)
class Provenance:
    """How a result was made. Everything a reader needs to make it again.

    Attributes:
        model: name or folder; ``revision`` is the hub commit where there is one.
        dtype, attention: numeric type and attention kernel of the decoder that ran.
        prompt: the rendered prompt. ``answer``: the text that came out (or was given).
        rows: the row rule (which query positions were kept); ``convention`` is ``predicting`` or ``query``.
        layers, heads, reduction, normalisation: how a map was read off; empty while nothing was reduced.
        steps: what was done, in order, one phrase each.
        seed: of sampling; None for greedy decoding.
    """

    model: str = ""
    revision: str | None = None
    family: str = ""
    dtype: str = ""
    attention: str = ""
    prompt: str = ""
    answer: str = ""
    image: str = ""
    rows: str = ""
    convention: str = ""
    layers: str = ""
    heads: str = ""
    reduction: str = ""
    normalisation: str = ""
    steps: tuple[str, ...] = ()
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=lambda: dict(library_versions()))

    def then(self, step: str, **changes: Any) -> Provenance:
        """A copy with one more step, and fields changed."""
        return replace(self, steps=(*self.steps, step), **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return asdict(self) | {"steps": list(self.steps)}

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)

    def summary(self) -> str:
        """One line for small print under a picture."""
        parts = [self.model, self.dtype, self.attention]
        parts += [f"{self.convention} rows" if self.convention else "", self.layers, self.heads, self.reduction]
        parts += [self.normalisation]
        return " · ".join(p for p in parts if p)
