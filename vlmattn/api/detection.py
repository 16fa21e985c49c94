"""Which words and objects of an answer are likely made up, as scores and calibrated risk."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.detected import OVER_TOKENS, STATES, Judge, features_of, model_key, scored, seen, token_states, usable
from vlmattn.api.object_words import named_in
from vlmattn.core.errors import MapError, SpecError
from vlmattn.detection import Calibration, Detector, MentionTable, ScoreSpec, Seen, score_specs
from vlmattn.display import Tabular, Told

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.hallucination import SynonymTable
    from vlmattn.trace import Span


ABOUT = ("internal_confidence", "contextual_lens", "glsim")
"""Scores of a phrase that was asked about."""


@dataclass(frozen=True)
class DetectedWord:
    """One word of an answer, or one object that it names.

    Attributes:
        text: as the answer says it. name: of the object; empty for words. span: where. position: number of its first
            token in the answer.
        scores: by name, higher for more likely made up; NaN where not defined. risk: calibrated chance that it is made
            up, 0 to 1; None without a detector or calibration, or where its score is not defined.
    """

    text: str
    span: Span
    position: int
    scores: dict[str, float]
    name: str = ""
    risk: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what is not defined."""
        scores = {name: None if math.isnan(value) else value for name, value in self.scores.items()}
        told = {"text": self.text, "position": self.position, "scores": scores, "risk": self.risk}
        return told | ({"object": self.name} if self.name else {})


@dataclass(frozen=True)
class Detection(Told, Tabular):
    """Scores of an answer.

    Attributes:
        words, objects: in order. about: of a phrase that was asked about, what its states say (:data:`ABOUT`); None
            unless asked for; its position is below 0 in the question.
        specs: of the scores by name: what each says, which way its raw value points, and its source; what is handed out
            always rises with the chance of being made up.
        missing: why scores are not there, by name. calibration: what risks were fitted on; empty without.
    """

    words: tuple[DetectedWord, ...]
    objects: tuple[DetectedWord, ...]
    specs: dict[str, ScoreSpec] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    calibration: str = ""
    about: DetectedWord | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "words": [one.to_dict() for one in self.words],
            "objects": [one.to_dict() for one in self.objects],
            "scores": {name: {"what": s.what, "source": s.source} for name, s in self.specs.items()},
            "missing": self.missing,
            "calibration": self.calibration,
            **({} if self.about is None else {"about": self.about.to_dict()}),
        }

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per word and per object; objects have their name in ``object``."""
        return [one.to_dict() for one in (*self.words, *self.objects)]

    def _repr_html_(self) -> str:
        from vlmattn.api.shown import detection_html

        return detection_html(self)

    def __str__(self) -> str:
        shown = self.objects or self.words
        names = list(self.specs)
        lines = [f"{'risk':>6}  {'  '.join(names)}"] if names else [f"{'risk':>6}"]
        for one in shown:
            risk = "     -" if one.risk is None else f"{one.risk:6.2f}"
            values = "  ".join(f"{one.scores[n]:{max(len(n), 4)}.3f}" for n in names)
            lines.append(f"{risk}  {values}  {one.text}")
        return "\n".join([*lines, *([self.calibration] if self.calibration else [])])


def detect(
    run: Run,
    *,
    scores: Sequence[str] | None = None,
    objects: Sequence[str] | SynonymTable | None = None,
    by: Judge | None = None,
    over_tokens: str = "mean",
    layers: Any = None,
    about: str | Span | None = None,
) -> Detection:
    """See :meth:`vlmattn.Run.detect`."""
    specs, judge = _specs(scores), judge_of(run, by)
    if over_tokens not in OVER_TOKENS:
        raise SpecError(f"over_tokens must be one of {', '.join(OVER_TOKENS)}; got {over_tokens!r}")
    words = [word for word in run.words() if any(c.isalnum() for c in word.text)]
    named = named_in(run, objects)
    if not words:
        raise MapError("the answer has no word, so nothing in it can be made up: ask another question")
    spans = [*words, *(one.span for one in named)]
    asked = None if about is None else about_phrase(run, about, layers, over_tokens)
    made = seen(run, _tokens(spans), layers, calibrate=scores is not None or judge is not None)
    found, missing = scored(made, spans, specs, over_tokens, asked=scores is not None)
    risks = _risks(run, made, spans, judge, over_tokens) if judge is not None else [None] * len(spans)
    start = run.trace.layout.answer_start
    names = [*("" for _ in words), *(one.name for one in named)]
    rows = [
        DetectedWord(
            span.text, span, span.tokens[0] - start, {n: float(v[at]) for n, v in found.items()}, names[at], risks[at]
        )
        for at, span in enumerate(spans)
    ]
    told = "" if judge is None else judge.told
    kept = {spec.name: spec for spec in specs if spec.name in found}
    return Detection(tuple(rows[: len(words)]), tuple(rows[len(words) :]), kept, missing, told, asked)


def about_phrase(run: Run, about: str | Span, layers: Any = None, over: str = "mean") -> DetectedWord:
    """Scores of :data:`ABOUT` of a phrase, as the states where it stands say: of the question, such as the thing that a
    *yes* claims, or of the answer.

    Raises:
        WordNotFound: it stands in neither. Others as in :func:`vlmattn.api.detected.token_states`.
    """
    span = run.trace.find(about)
    made = Seen(run.trace, span.tokens, 0, {"states": lambda: token_states(run, span.tokens, layers)})
    found, _ = scored(made, [span], score_specs(ABOUT), over, asked=True)
    start = run.trace.layout.answer_start
    return DetectedWord(span.text, span, span.tokens[0] - start, {n: float(v[0]) for n, v in found.items()}, span.text)


def judge_of(run: Run, by: Judge | None) -> Judge | None:
    """What risks go by: what was given, else the detector that the model was told to use, else None.

    Raises:
        SpecError: neither a detector nor a calibration, of another model, or of a score that does not exist.
    """
    judge = run.vlm.detector if by is None else by
    return None if judge is None else usable(run.vlm, judge)


def risks_of(run: Run, spans: Sequence[Span], judge: Judge) -> list[float | None]:
    """Calibrated chance that each stretch is made up; None where its score is not defined."""
    if not spans:
        return []
    return _risks(run, seen(run, _tokens(spans), layers_read(judge), calibrate=True), spans, judge, "mean")


def layers_read(judge: Judge) -> list[int] | None:
    """The one layer whose states a detector reads; None for others, which may read all."""
    features = judge.features if isinstance(judge, Detector) else ""
    return [int(features.removeprefix(STATES))] if features.startswith(STATES) else None


def _risks(run: Run, made: Seen, spans: Sequence[Span], judge: Judge, over: str) -> list[float | None]:
    if isinstance(judge, Calibration):
        values, _ = scored(made, spans, score_specs([judge.score]), over, asked=True)
        risks = judge.risk(values[judge.score])
    else:
        table = _table(run, made, spans, judge.features, over)
        risks = judge.risk(table)
    return [None if math.isnan(one) else float(one) for one in risks]


def _table(run: Run, made: Seen, spans: Sequence[Span], features: str, over: str) -> MentionTable:
    if features.startswith("scores:"):
        specs = score_specs(features.removeprefix("scores:").split(","))
        return mention_table(run, made, spans, [False] * len(spans), "", specs, (), over=over)
    return mention_table(run, made, spans, [False] * len(spans), "", (), (features,), over=over)


def mention_table(
    run: Run,
    made: Seen,
    spans: Sequence[Span],
    hallucinated: Sequence[bool],
    image: str,
    specs: Sequence[ScoreSpec],
    features: Sequence[str],
    *,
    over: str = "mean",
    asked: bool = True,
) -> MentionTable:
    """A table of stretches of one answer."""
    found, _ = scored(made, spans, specs, over, asked=asked)
    start = run.trace.layout.answer_start
    return MentionTable(
        model_key(run.vlm),
        (image,) * len(spans),
        tuple(span.text for span in spans),
        np.array([span.tokens[0] - start for span in spans], dtype=np.int64),
        np.array(hallucinated, dtype=np.bool_),
        found,
        {kind: features_of(made, spans, kind) for kind in features},
    )


def mentions(
    run: Run,
    there: Collection[str],
    *,
    image: str,
    objects: Sequence[str] | SynonymTable | None = None,
    scores: Sequence[str] | None = None,
    features: Sequence[str] = ("heads",),
    over_tokens: str = "mean",
) -> MentionTable:
    """See :meth:`vlmattn.Run.mentions`."""
    if isinstance(there, str):
        raise SpecError(f"what is there must be a list of objects, got the text {there!r}")
    named = named_in(run, objects)
    if not named:
        raise MapError("the answer names no object: give the objects= to look for, or ask for a description")
    spans = [one.span for one in named]
    made = seen(run, _tokens(spans), calibrate=scores is not None)
    wrong = [one.name not in set(there) for one in named]
    return mention_table(
        run, made, spans, wrong, image, _specs(scores), features, over=over_tokens, asked=scores is not None
    )


def _specs(scores: Sequence[str] | None) -> tuple[ScoreSpec, ...]:
    if isinstance(scores, str):
        raise SpecError(f"scores must be a list of names, got the text {scores!r}")
    return () if scores is not None and not len(scores) else score_specs(scores)


def _tokens(spans: Sequence[Span]) -> list[int]:
    return sorted({t for span in spans for t in span.tokens})
