"""One batch of rows through the model: answers, and a map of every word that is still to be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from vlmattn.api.chosen import capture_of
from vlmattn.core.errors import VlmattnError
from vlmattn.core.images import Picture
from vlmattn.evaluate import seed_of
from vlmattn.pipelines.job import OverlayJob
from vlmattn.pipelines.rows import Row

if TYPE_CHECKING:
    from vlmattn.api import Look, Run, Vlm
    from vlmattn.api.request import Request
    from vlmattn.trace import Span

Loaded = tuple[Row, Picture | str]
"""A row with its picture, or with what is wrong with either."""


@dataclass(frozen=True)
class Mapped:
    """A word of a row: what is known of it, and its map; None where there is none."""

    record: dict[str, Any]
    look: Look | None = None


@dataclass(frozen=True)
class Asked:
    """A row that went through the model: what is known of it, and its words."""

    row: Row
    record: dict[str, Any]
    words: tuple[Mapped, ...] = ()


@dataclass
class Asker:
    """A model that answers batches of rows for one job.

    Args:
        vlm: the model. job: what is asked of it.

    Raises:
        SpecError, UnsupportedModel: layers, heads, steering or a detector that do not fit the model.
    """

    vlm: Vlm
    job: OverlayJob
    _spec: Any = field(init=False)
    _steering: tuple[Any, ...] = field(init=False)

    def __post_init__(self) -> None:
        from vlmattn.steering import steering_of

        where = self.job.reading.where
        self._spec = capture_of(self.vlm, where["layers"], where["heads"])
        self._steering = tuple(steering_of(one) for one in self.job.steering)
        if self.job.detector is not None:
            self.vlm.use_detector(self.job.detector)

    def describe(self) -> dict[str, Any]:
        """What the model turned out to be, for the manifest."""
        told = self.vlm.describe()
        return {key: told.get(key) for key in ("model", "revision", "dtype", "attention", "family")}

    def __call__(self, loaded: Sequence[Loaded]) -> list[Asked]:
        """The rows of a batch, in order; one that cannot be asked says why and keeps no other from being asked."""
        found: dict[int, Asked] = {}
        good: list[tuple[Row, Picture]] = []
        for row, picture in loaded:
            if isinstance(picture, str):
                found[row.number] = failed(row, picture)
            else:
                good.append((row, picture))
        for part in self._parts(good):
            found |= {one.row.number: one for one in self._asked(part)}
        return [found[row.number] for row, _ in loaded]

    def _parts(self, good: Sequence[tuple[Row, Picture]]) -> list[list[tuple[Row, Picture]]]:
        """Rows that can go through the model at once: given answers or none, the same system text."""
        if self.job.decoding.samples:
            return [[one] for one in good]

        def kind(one: tuple[Row, Picture]) -> tuple[bool, str]:
            return one[0].answer is None, one[0].system or ""

        return [list(part) for _, part in groupby(sorted(good, key=kind), key=kind)]

    def _asked(self, part: Sequence[tuple[Row, Picture]]) -> list[Asked]:
        runs = _or_fault(lambda: self.vlm.run(self._request(part)))
        if not isinstance(runs, str):
            return [self._read(row, run) for (row, _), run in zip(part, runs, strict=True)]
        if len(part) == 1:
            return [failed(part[0][0], runs)]
        return [one for alone in part for one in self._asked([alone])]

    def _request(self, part: Sequence[tuple[Row, Picture]]) -> Request:
        from vlmattn.api.request import Request

        first, decoding = part[0][0], self.job.decoding
        given = first.answer is not None
        return Request(
            tuple((picture, row.question) for row, picture in part),
            answers=tuple(row.answer or "" for row, _ in part) if given else None,
            system=first.system or decoding.system,
            capture=self._spec,
            steering=self._steering,
            max_new_tokens=decoding.max_new_tokens,
            seed=seed_of(decoding.seed, f"{first.number}:{first.id}") if decoding.samples and not given else None,
            generate={} if given else dict(decoding.generate),
        )

    def _read(self, row: Row, run: Run) -> Asked:
        words: Any = row.words or (None,)
        if not row.words and self.job.reading.each_word:
            words = [word for word in run.words() if any(c.isalnum() for c in word.text)] or (None,)
        mapped = tuple(self._mapped(run, word) for word in words)
        record = base_record(row) | {
            "status": "ok",
            "answer": run.answer,
            "image_wh": list(run.pictures[0].wh),
            "prompt_tokens": int(run.trace.layout.answer_start),
        }
        return Asked(row, record, mapped)

    def _mapped(self, run: Run, what: str | Span | None) -> Mapped:
        told = what if isinstance(what, str | None) else what.text
        record: dict[str, Any] = {"word": told, **dict.fromkeys(WORD_FIELDS[1:])}
        made = _or_fault(lambda: self._look(run, what, record))
        return Mapped(record | {"error": made}) if isinstance(made, str) else Mapped(record, made)

    def _look(self, run: Run, what: str | Span | None, record: dict[str, Any]) -> Look:
        from vlmattn.api.grounding import word_shares

        span = run.trace.find(what)
        share, chance = word_shares(run, span, **self.job.reading.where)
        record |= {"part": span.part, "image_share": _known(share), "log_probability": _known(chance)}
        if self.job.detector is not None and span.part == "answer":
            record["risk"] = self._risk(run, span)
        return run.map(span if what is not None else None, **self.job.reading.options)

    def _risk(self, run: Run, span: Span) -> float | None:
        from vlmattn.api.detection import judge_of, risks_of

        judge = judge_of(run, None)
        return None if judge is None else risks_of(run, [span], judge)[0]


WORD_FIELDS = (
    "word",
    "part",
    "file",
    "peak_xy",
    "box_xyxy",
    "image_share",
    "log_probability",
    "risk",
    "error",
)
"""What is told of every word, in order."""


def base_record(row: Row) -> dict[str, Any]:
    """What is known of a row before it is asked."""
    return {
        "row": row.number,
        "id": row.id,
        "image": row.name,
        "question": row.question,
        "status": "error",
        "error": None,
        "answer": row.answer,
        "given": row.answer is not None,
        "image_wh": None,
        "prompt_tokens": None,
    }


def failed(row: Row, why: str) -> Asked:
    """A row that could not be asked."""
    return Asked(row, base_record(row) | {"error": why})


def _or_fault(action: Callable[[], Any]) -> Any:
    """What an action gives, or in one line why it failed.

    What is wrong with the machine (a lost GPU) and not with the row is raised: it would make an error of every row.
    """
    try:
        return action()
    except VlmattnError as error:
        return one_line(error)
    except (MemoryError, RuntimeError, ValueError, TypeError, IndexError, KeyError, ArithmeticError) as error:
        if _is_lost(error):
            raise
        return f"{type(error).__name__}: {one_line(error)}"


def _is_lost(error: Exception) -> bool:
    text = str(error)
    full = type(error).__name__ == "OutOfMemoryError"
    return not full and any(sign in text for sign in ("CUDA error", "CUBLAS", "cuDNN error", "HIP error", "NCCL"))


def one_line(error: BaseException) -> str:
    """An error's text in one line of at most 500 characters, encodable."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:500].encode("utf-8", "replace").decode()


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
