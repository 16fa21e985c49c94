"""The atlas of a model's heads: scores of every head on samples, with intervals and how they were made."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path, atomic_write_bytes, write_json
from vlmattn.core.head_preset import HeadPreset
from vlmattn.core.provenance import Provenance
from vlmattn.display import Tabular, Told, html_table, image, panel
from vlmattn.heads.kinds import SCORES
from vlmattn.heads.localization import TOP_K, ranked

if TYPE_CHECKING:
    from vlmattn.overlay import Sheet

FLOOR = 0.01
"""Mean attention on the picture below which a head is not said to look at it."""

_KIND, _FORMAT = "vlmattn head atlas", 1
_TABLES = ("scores", "low", "high")
_ENDS = ("low", "high")


class ScoredHead(NamedTuple):
    """One head of an atlas: its layer, number, value, and the ends of the 95 % interval of the value."""

    layer: int
    head: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class HeadAtlas(Told, Tabular):
    """Scores of every head of a model.

    Attributes:
        model: its name. depth: layers of its decoder. layers: those with attention, one line each.
        scores: (L, H) values by name of :data:`~vlmattn.heads.SCORES`; NaN for heads that are not there or for which a
            score means nothing (layers that see no picture). low, high: (L, H) ends of 95 % bootstrap intervals over
            samples. items: from how many samples each score comes.
        provenance: how it was made. notes: what was left out, and findings, one phrase each.

    Raises:
        SpecError: scores that do not exist, of different shapes, or without intervals.

    Example:
        >>> import numpy as np
        >>> one = {"mass": np.array([[0.2, 0.6], [0.1, 0.0]])}
        >>> HeadAtlas("mine", 2, (0, 1), one, one, one, {"mass": 5}).best("mass", 1)[0].head
        1
    """

    model: str
    depth: int
    layers: tuple[int, ...]
    scores: Mapping[str, NDArray[np.float64]]
    low: Mapping[str, NDArray[np.float64]]
    high: Mapping[str, NDArray[np.float64]]
    items: Mapping[str, int]
    provenance: Provenance = field(default_factory=Provenance)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [name for name in self.scores if name not in SCORES]
        if wrong or not self.scores:
            raise SpecError(f"an atlas holds scores of {', '.join(SCORES)}; got {wrong or 'none'}")
        for table in _TABLES:
            given = getattr(self, table)
            held = {n: np.asarray(given[n], dtype=np.float64) for n in SCORES if n in given}
            object.__setattr__(self, table, held)
        shape = (len(self.layers), next(iter(self.scores.values())).shape[-1])
        for name in self.scores:
            for table in _TABLES:
                values = getattr(self, table).get(name)
                if values is None or values.shape != shape:
                    came = None if values is None else values.shape
                    raise SpecError(f"{table} of {name!r} must have shape (L, H) = {shape}, got {came}")
        if any(name not in self.items for name in self.scores):
            raise SpecError("items must say for every score from how many samples it comes")
        if not self.layers or not 0 <= min(self.layers) <= max(self.layers) < self.depth:
            raise SpecError(f"layers must lie from 0 to depth - 1 = {self.depth - 1}, got {self.layers}")

    # -- reading -------------------------------------------------------------------------------------------------------

    def best(self, score: str, k: int = 5) -> tuple[ScoredHead, ...]:
        """The ``k`` best heads of a score, best first; fewer where fewer are known.

        Heads that look at no picture (mean mass below :data:`FLOOR`) have no part in scores of vision, nor those that
        never got a vote in ``localization``, among whose equals the lower spatial entropy comes first.

        Raises:
            SpecError: a score that is not here, or k below 1.
        """
        values = self._of(score)
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise SpecError(f"k must be a whole number, at least 1, got {k!r}")
        chosen = self._order(score, values)[:k]
        return tuple(
            ScoredHead(
                self.layers[line],
                head,
                float(values[line, head]),
                float(self.low[score][line, head]),
                float(self.high[score][line, head]),
            )
            for line, head in chosen
        )

    def _of(self, score: str) -> NDArray[np.float64]:
        if score not in self.scores:
            raise SpecError(f"this atlas has no score {score!r}; it has {', '.join(self.scores)}")
        return self.scores[score]

    def _order(self, score: str, values: NDArray[np.float64]) -> list[tuple[int, int]]:
        usable = np.isfinite(values)
        if SCORES[score].vision and "mass" in self.scores:
            usable &= np.nan_to_num(self.scores["mass"]) >= FLOOR
        if score == "localization" and "entropy" in self.scores:
            return [pair for pair in ranked(values, self.scores["entropy"]) if usable[pair]]
        signed = values if SCORES[score].low_first else -values
        order = np.argsort(np.where(usable, signed, np.inf), axis=None, kind="stable")
        pairs = [divmod(int(i), values.shape[1]) for i in order]
        return [pair for pair in pairs if usable[pair] and (score != "localization" or values[pair] > 0)]

    def preset(self, score: str = "localization", k: int = TOP_K) -> HeadPreset:
        """The ``k`` best heads of a score as a choice of heads: ``run.map(heads=atlas.preset("visual"))``.

        Raises:
            SpecError: a score that is not here, fewer heads than k, or no head that looks at the picture.
        """
        found = self.best(score, k)
        if not found:
            raise SpecError(
                f"no head of {self.model!r} can be chosen by {score!r}: none is known that gives the picture a mean of "
                f"{FLOOR} of its attention"
            )
        if len(found) < k:
            raise SpecError(f"{k} heads by {score!r} were asked for, and {self.model!r} has {len(found)}: give k")
        return self._preset(score, found)

    def presets(self, k: int = TOP_K) -> tuple[HeadPreset, ...]:
        """:meth:`preset` of every score that has any head, with ``k`` heads or as many as there are."""
        best = {name: self.best(name, k) for name in self.scores}
        return tuple(self._preset(name, found) for name, found in best.items() if found)

    def _preset(self, score: str, found: tuple[ScoredHead, ...]) -> HeadPreset:
        told = ", ".join(f"{one.layer}.{one.head} {one.value:.3g}" for one in found)
        return HeadPreset(
            score,
            tuple((one.layer, one.head) for one in found),
            self.depth,
            f"found on {self.items[score]} samples of {self.model}",
            f"best by {score} ({SCORES[score].said}): {told}",
        )

    # -- showing -------------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        count = int(np.isfinite(next(iter(self.scores.values()))).sum())
        head = f"{self.model}: {count} heads in {len(self.layers)} of {self.depth} layers"
        lines = [f"{name:14}{self._line(name)}   n={self.items[name]}, {SCORES[name].said}" for name in self.scores]
        return "\n".join([head, "best heads, layer.head value (95 % interval):", *lines, *self.notes])

    def _line(self, score: str) -> str:
        found = self.best(score, TOP_K)
        cells = [f"{h.layer}.{h.head} {h.value:.3f} ({h.low:.3f} to {h.high:.3f})" for h in found]
        return "  ".join(cells) or "none"

    def __repr__(self) -> str:
        return f"<HeadAtlas of {self.model!r}: {', '.join(self.scores)}>"

    def picture(self, score: str | None = None) -> Sheet:
        """Heat maps of layers x heads, of one score or of all; see :func:`vlmattn.heads.head_sheet`.

        Raises:
            SpecError: a score that is not here.
        """
        from vlmattn.heads.picture import head_sheet

        chosen = self.scores if score is None else {score: self._of(score)}
        return head_sheet(chosen, self.provenance, f"heads of {self.model}")

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per head: ``layer``, ``head``, and every score with its interval; None where it means nothing."""
        return [
            {"layer": layer, "head": head}
            | {name: _number(float(self.scores[name][line, head])) for name in self.scores}
            | {
                f"{name}.{end}": _number(float(getattr(self, end)[name][line, head]))
                for name in self.scores
                for end in _ENDS
            }
            for line, layer in enumerate(self.layers)
            for head in range(next(iter(self.scores.values())).shape[1])
        ]

    def _repr_html_(self) -> str:
        lines = [(name, self._line(name), self.items[name], SCORES[name].said) for name in self.scores]
        head = ("score", "best heads: layer.head value (95 % interval)", "samples", "what it says")
        drawn = image(self.picture().image, f"scores of the heads of {self.model}", width=720)
        return panel(f"heads of {self.model}", drawn, html_table(head, lines), note=" · ".join(self.notes))

    # -- keeping -------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; NaN as None."""
        tables = {t: {n: _plain(v) for n, v in getattr(self, t).items()} for t in _TABLES}
        best = {name: [one._asdict() for one in self.best(name)] for name in self.scores}
        best = {name: [{k: _number(v) for k, v in one.items()} for one in found] for name, found in best.items()}
        rest = {"layers": list(self.layers), "items": dict(self.items), "notes": list(self.notes)}
        named = {"kind": _KIND, "format": _FORMAT, "model": self.model, "depth": self.depth}
        return named | rest | tables | {"best": best, "provenance": self.provenance.to_dict()}

    def save(self, path: str | Path) -> Path:
        """Write ``.json`` or ``.npz`` that :meth:`load` reads, whole or not at all.

        Raises:
            FileError: another ending, or a place that cannot be written.
        """
        target = as_path(path)
        if target.suffix.lower() == ".json":
            return write_json(target, self.to_dict())
        if target.suffix.lower() != ".npz":
            raise FileError(f"an atlas is written to .json or .npz, got {str(target)!r}")
        told = {k: v for k, v in self.to_dict().items() if k not in (*_TABLES, "best")}
        arrays = {f"{t}.{n}": v for t in _TABLES for n, v in getattr(self, t).items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, told=np.frombuffer(json.dumps(told).encode(), dtype=np.uint8), **arrays)
        return atomic_write_bytes(target, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> HeadAtlas:
        """Read what :meth:`save` wrote.

        Raises:
            FileError: missing, half written, or of another kind.
        """
        target = as_path(path)
        try:
            held = _read_npz(target) if target.suffix.lower() == ".npz" else json.loads(target.read_text("utf-8"))
        except (OSError, ValueError, KeyError, EOFError, zip_error()) as error:
            raise FileError(f"cannot read an atlas of heads from {str(target)!r}: {error}") from error
        if not isinstance(held, dict) or held.get("kind") != _KIND or held.get("format") != _FORMAT:
            raise FileError(f"{str(target)!r} holds no atlas of heads of format {_FORMAT}: make it again")
        try:
            known = {one.name for one in fields(Provenance)}
            told = {n: v for n, v in held["provenance"].items() if n in known}
            made = Provenance(**(told | {"steps": tuple(told.get("steps", ()))}))
            return cls(
                model=held["model"],
                depth=int(held["depth"]),
                layers=tuple(int(n) for n in held["layers"]),
                items={n: int(v) for n, v in held["items"].items()},
                provenance=made,
                notes=tuple(held["notes"]),
                **{t: {n: np.array(v, dtype=np.float64) for n, v in held[t].items()} for t in _TABLES},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileError(f"the atlas in {str(target)!r} is not whole: {error!r}: make it again") from error


def zip_error() -> type[Exception]:
    """What a half-written ``.npz`` raises."""
    from zipfile import BadZipFile

    return BadZipFile


def _read_npz(path: Path) -> dict[str, Any]:
    # From memory: numpy leaves the file of a damaged archive open.
    with np.load(io.BytesIO(path.read_bytes())) as held:
        told: dict[str, Any] = json.loads(held["told"].tobytes())
        for table in _TABLES:
            told[table] = {n.partition(".")[2]: held[n] for n in held.files if n.partition(".")[0] == table}
    return told


def _plain(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [[_number(v) for v in line] for line in values.tolist()]


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
