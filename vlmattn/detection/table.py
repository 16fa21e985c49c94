"""Words with their scores, features and truth, of many answers: what detectors are fitted on and measured by."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path, atomic_write_bytes
from vlmattn.display import Tabular, Told, columns_of, html_table, panel, rows_of, said

_KIND, _FORMAT = "vlmattn mention table", "1"


@dataclass(frozen=True)
class ModelKey:
    """Which model numbers were read from; those of another mean nothing to a detector.

    Attributes:
        name, family: of the model. depth: layers. heads: of each layer with attention. width: of its residual stream.
    """

    name: str
    family: str
    depth: int
    heads: tuple[int, ...]
    width: int

    def __str__(self) -> str:
        return f"{self.name!r} ({self.family}, {self.depth} layers, width {self.width})"

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> ModelKey:
        """From what ``dataclasses.asdict`` made."""
        return cls(
            str(told["name"]), str(told["family"]), int(told["depth"]), tuple(map(int, told["heads"])),
            int(told["width"]),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class MentionTable(Told, Tabular):
    """n words or objects of answers.

    Attributes:
        model: whose. images: (n,) name of each one's picture: what splits and intervals go by. words: (n,).
        position_n: (n,) number of the first token in its answer. hallucinated_n: (n,) the truth.
        scores: (n,) by name, higher for more likely made up; NaN where not defined. features: (n, F) by kind.

    Raises:
        SpecError: lengths that differ.
    """

    model: ModelKey
    images: tuple[str, ...]
    words: tuple[str, ...]
    position_n: NDArray[np.int64]
    hallucinated_n: NDArray[np.bool_]
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {"words": len(self.words), "position_n": len(self.position_n)}
        lengths |= {"hallucinated_n": len(self.hallucinated_n)}
        lengths |= {name: len(values) for name, values in (self.scores | self.features).items()}
        wrong = {name: count for name, count in lengths.items() if count != len(self.images)}
        if wrong:
            raise SpecError(f"a table of {len(self.images)} words has parts of other lengths: {wrong}")

    def __len__(self) -> int:
        return len(self.images)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per word, without its features; None for scores that are not defined."""
        told = {name: [None if v != v else v for v in values.tolist()] for name, values in self.scores.items()}
        first = {"image": self.images, "word": self.words, "position": self.position_n.tolist()}
        return rows_of({**first, "hallucinated": self.hallucinated_n.tolist(), **told})

    def __str__(self) -> str:
        told = ", ".join([*self.scores, *(f"features {name}" for name in self.features)])
        return f"{len(self):,} words of {self.model}, {int(self.hallucinated_n.sum()):,} made up; {told}"

    def _repr_html_(self) -> str:
        kinds = {name: values.shape[-1] for name, values in self.features.items()}
        title = f"{len(self):,} words, {int(self.hallucinated_n.sum()):,} of them made up"
        note = f"{self.model}; features: {said(kinds)}"
        return panel(title, html_table(*columns_of(self.to_dicts()), most=20), note=note)

    def where(self, chosen: NDArray[np.bool_]) -> MentionTable:
        """Only the words chosen."""
        at = np.flatnonzero(chosen)
        return MentionTable(
            self.model,
            tuple(self.images[n] for n in at),
            tuple(self.words[n] for n in at),
            self.position_n[at],
            self.hallucinated_n[at],
            {name: values[at] for name, values in self.scores.items()},
            {name: values[at] for name, values in self.features.items()},
        )

    def of_images(self, names: Collection[str]) -> MentionTable:
        """Only the words of some pictures."""
        wanted = set(names)
        return self.where(np.array([one in wanted for one in self.images], dtype=np.bool_))

    def save(self, path: str | Path) -> Path:
        """Write it as one safetensors file, its texts in the header."""
        from safetensors.numpy import save

        told = {"model": asdict(self.model), "images": list(self.images), "words": list(self.words)}
        arrays = {"position": self.position_n.astype(np.int64), "hallucinated": self.hallucinated_n.astype(np.uint8)}
        arrays |= {f"score:{name}": values for name, values in self.scores.items()}
        arrays |= {f"feature:{name}": values for name, values in self.features.items()}
        header = {"kind": _KIND, "format": _FORMAT, "told": json.dumps(told)}
        return atomic_write_bytes(path, save({n: np.ascontiguousarray(a) for n, a in arrays.items()}, header))

    @classmethod
    def load(cls, path: str | Path) -> MentionTable:
        """A table that :meth:`save` wrote.

        Raises:
            FileError: missing, half written, or of another kind.
        """
        told, arrays = read_safetensors(path, _KIND, _FORMAT)
        try:
            return cls(
                ModelKey.from_dict(told["model"]),
                tuple(told["images"]),
                tuple(told["words"]),
                arrays["position"],
                arrays["hallucinated"].astype(np.bool_),
                {n.removeprefix("score:"): a for n, a in arrays.items() if n.startswith("score:")},
                {n.removeprefix("feature:"): a for n, a in arrays.items() if n.startswith("feature:")},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"the table in {str(path)!r} is not whole: {error}") from error


def joined(tables: Sequence[MentionTable]) -> MentionTable:
    """One table of several of one model; scores and features that all of them have.

    Raises:
        SpecError: none, or of different models.
    """
    if not tables or any(one.model != tables[0].model for one in tables):
        raise SpecError("tables to join must be at least one, and of one model")

    def shared(name: str) -> dict[str, NDArray[Any]]:
        held = [getattr(one, name) for one in tables]
        return {n: np.concatenate([h[n] for h in held]) for n in held[0] if all(n in h for h in held)}

    return MentionTable(
        tables[0].model,
        tuple(n for one in tables for n in one.images),
        tuple(n for one in tables for n in one.words),
        np.concatenate([one.position_n for one in tables]),
        np.concatenate([one.hallucinated_n for one in tables]),
        shared("scores"),
        shared("features"),
    )


def read_safetensors(path: str | Path, kind: str, version: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What a file's header tells, and its arrays.

    Raises:
        FileError: missing, half written, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    target = as_path(path)
    try:
        with safe_open(target, framework="numpy") as held:
            header = held.metadata() or {}
            arrays = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 (no mapping)
        if header.get("kind") != kind or header.get("format") != version:
            raise FileError(f"{str(target)!r} holds no {kind} of format {version}: save it again")
        return dict(json.loads(header["told"])), arrays
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read a {kind} from {str(target)!r}: {error}") from error
