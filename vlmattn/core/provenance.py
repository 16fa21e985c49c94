"""Where a result comes from: stored in every result and written into every file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib import metadata
from typing import Any

METHODS: dict[str, tuple[str, str]] = {
    "raw": ("raw attention", "attention on a patch, of 1 for all tokens"),
    "value": ("value-weighted attention", "attention on a patch times the norm of its value"),
    "relative": ("relative attention", "times the attention under a generic prompt"),
    "rollout": ("attention rollout", "share of the row's states that comes from a patch, were attention all"),
    "flow": ("attention flow", "most that could flow from the row to a patch, or to its block of patches"),
    "gradient": ("gradient-weighted attention", "attention times its positive gradient"),
    "relevancy": ("relevancy", "gradient-weighted attention, carried through all layers"),
    "tam": ("token activation", "logit of the token at a patch, less that of earlier tokens"),
    "logit_lens": ("logit lens", "probability of the word's token at a patch"),
    "integrated_gradients": ("integrated gradients", "share of the change of the target from the baseline picture"),
    "occlusion": ("occlusion", "how far the target falls when a patch is covered"),
}
"""Ways to make a map: what each is called, and what its numbers are."""

PAIR_METHODS: dict[str, tuple[str, str]] = {
    "pair_attention": ("attention that makes the picture's embedding", "attention on a patch, of 1 for all tokens"),
    "pair_gradient": ("gradient-weighted attention", "attention times its positive gradient of the cosine"),
    "pair_similarity": ("text-to-patch similarity", "cosine of text and patch"),
}
"""The same for a picture and a text of an open_clip model."""

REFINE_METHODS: dict[str, tuple[str, str]] = {
    "contrast": ("contrast with a general pass", "attention over that under a general prompt, summed"),
    "pure_gradient": ("gradient of the pixels", "norm of the gradient on busy pixels"),
}
"""The same for maps of refinement."""

TOWER_METHODS: dict[str, tuple[str, str]] = {
    "tower_class": ("class token of the vision tower", "attention of the class token on a tower token, of 1 for all"),
    "tower_register": ("registers of the vision tower", "attention of registers on a tower token, of 1 for all"),
    "tower_received": ("attention received in the vision tower", "mean over a view's tokens of attention on a token"),
    "tower_rollout": ("rollout of the vision tower", "share of the output that comes from a token"),
    "tower_norm": ("norms of the vision tower", "norm of the tower's residual stream"),
}
"""The same for maps of the vision tower alone."""

SINK_METHODS: dict[str, tuple[str, str]] = {
    "sink_massive": ("phi of sinks", "phi: largest |x| in sink coordinates over RMS, residual stream"),
    "sink_received": ("received attention", "mean over prompt rows of attention on a token"),
}
"""The same for pictures of sinks."""

HEAD_METHODS: dict[str, tuple[str, str]] = {
    "head_atlas": ("scores of heads", "share of the highest absolute value of its score"),
}
"""The same for pictures of an atlas of heads."""

_SCALED = {
    "share": "share of the map's total",
    "uniform": "1 is an even look",
    "max": "1 is the highest value",
    "minmax": "0 is the lowest value, 1 the highest",
    "rank": "rank, from 0 for the lowest to 1 for the highest value",
}
_LONGEST_QUESTION = 300


@cache
def library_versions() -> dict[str, str]:
    """Versions of vlmattn and of the libraries that numbers depend on; those not installed are left out."""
    versions = {}
    for name in ("vlmattn", "torch", "transformers", "open_clip_torch", "numpy", "pillow"):
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
        prompt: the rendered prompt; ``question``: the user's words in it. ``answer``: the text that came out (or was
            given).
        rows: the row rule (which query positions were kept); ``convention`` is ``predicting`` or ``query``.
        method: which kind of map, a key of :data:`METHODS`, :data:`PAIR_METHODS`, :data:`REFINE_METHODS` or
            :data:`TOWER_METHODS`.
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
    question: str = ""
    answer: str = ""
    image: str = ""
    rows: str = ""
    convention: str = ""
    method: str = ""
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

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Provenance:
        """What :meth:`to_dict` gave; fields that this version does not know are left out.

        Raises:
            TypeError: a field of another type.
        """
        known = {f.name for f in fields(cls)}
        given: dict[str, Any] = {k: v for k, v in held.items() if k in known}
        steps, seed, versions = given.pop("steps", []), given.pop("seed", None), given.pop("versions", {})
        if not isinstance(steps, list) or not isinstance(seed, int | None) or not isinstance(versions, dict):
            raise TypeError(f"steps {steps!r}, seed {seed!r}, versions {versions!r}")
        words: dict[str, Any] = {k: None if k == "revision" and v is None else _text(v) for k, v in given.items()}
        return cls(**words, steps=tuple(_text(step) for step in steps), seed=seed, versions=versions)

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)

    @property
    def unit(self) -> str:
        """What the numbers of a map are, in words; empty where nothing was reduced to a map."""
        name, unit = _told(self.method)
        scaled = _SCALED.get(self.normalisation, self.normalisation)
        return f"{name}: {scaled}" if name and scaled else unit or scaled

    def summary(self) -> str:
        """One line for small print under a picture."""
        name = _told(self.method)[0]
        parts = [self.model, self.dtype, self.attention, name]
        parts += [f"{self.convention} rows" if self.convention else "", self.layers, self.heads, self.reduction]
        parts += [f"normalised: {self.normalisation}" if self.normalisation else "not normalised" if name else ""]
        parts += [f"question: {_cut(self.question)}" if self.question else ""]
        return " · ".join(p for p in parts if p)


def ranges(numbers: Sequence[int]) -> str:
    """Numbers in words: ``1, 4-8``."""
    ordered = sorted(set(numbers))
    parts: list[str] = []
    start = previous = ordered[0]
    for number in [*ordered[1:], None]:
        if number is not None and number == previous + 1:
            previous = number
            continue
        parts.append(str(start) if start == previous else f"{start}-{previous}")
        if number is not None:
            start = previous = number
    return ", ".join(parts)


def _told(method: str) -> tuple[str, str]:
    return (METHODS | PAIR_METHODS | REFINE_METHODS | TOWER_METHODS | SINK_METHODS | HEAD_METHODS).get(
        method, (method, "")
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_QUESTION else text[: _LONGEST_QUESTION - 3] + "..."
