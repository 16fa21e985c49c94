"""Answers that are checked before they are handed out: which words nothing supports, and what to do about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vlmattn.api.detected import Judge, shipped_for, usable
from vlmattn.capture import Steering
from vlmattn.core.errors import SpecError
from vlmattn.detection import Calibration, Detector
from vlmattn.display import Tabular, Told

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm
    from vlmattn.faithfulness import VerdictRule
    from vlmattn.trace import Span

Then = Literal["mark", "abstain", "look_again", "steer"]
THEN: tuple[Then, ...] = get_args(Then)
ABSTAINED = "I cannot tell from the picture."


@dataclass(frozen=True)
class Check:
    """How an answer is checked.

    Attributes:
        by: a detector, the file of one, a calibration of one score, or a rule of the deletion test. None: the detector
            that the model was told to use; else those shipped for it, of things that an answer names and of *yes*; else
            the deletion test with the rule that comes with the library.
        threshold: the risk from which on a word counts as unsupported; or one that the detector knows by name:
            ``recall`` cost no true word of the folds it was chosen on, ``recall-0.005`` one in two hundred at most.
        of: ``objects`` that the answer names, where it names any, else all words; or ``words`` always.
        then: what is done where something is unsupported: ``mark`` it; ``abstain``: hand out a refusal; ``look_again``:
            answer on a closer look (see :meth:`Run.ask_again`); ``steer``: answer once more under ``steering``. The
            second answer is checked too.
        recipe: of the closer look. steering: changes for ``steer``.

    Raises:
        SpecError: a value that does not exist, a threshold outside (0, 1), or steering that would do nothing.
    """

    by: Judge | VerdictRule | str | Path | None = None
    threshold: float | str = 0.5
    of: Literal["objects", "words"] = "objects"
    then: Then = "mark"
    recipe: str = "peak"
    steering: tuple[Steering, ...] = ()

    def __post_init__(self) -> None:
        from vlmattn.faithfulness import VerdictRule

        if self.by is not None and not isinstance(self.by, Detector | Calibration | VerdictRule | str | Path):
            raise SpecError(f"an answer is checked by a Detector, a Calibration or a VerdictRule, got {self.by!r}")
        if self.then not in THEN:
            raise SpecError(f"then must be one of {', '.join(THEN)}; got {self.then!r}")
        if self.of not in ("objects", "words"):
            raise SpecError(f"of must be 'objects' or 'words', got {self.of!r}")
        if not isinstance(self.threshold, str) and not 0 < self.threshold < 1:
            raise SpecError(f"threshold must be above 0 and below 1, or a name, got {self.threshold}")
        object.__setattr__(self, "steering", tuple(self.steering))
        if (self.then == "steer") != bool(self.steering):
            raise SpecError("steering= is what then='steer' answers under: give both, or neither")


@dataclass(frozen=True)
class CheckedWord:
    """A word or object of a checked answer. ``risk``: that it is made up, None where that is not known; ``span``: where
    it stands."""

    text: str
    risk: float | None
    unsupported: bool
    span: Span


@dataclass(frozen=True, eq=False)
class Checked(Told, Tabular):
    """What a check found.

    Attributes:
        words: what was checked, in order. of: ``objects`` or ``words``. calibration: what risks go by.
        then: what was done: ``mark`` where nothing had to be. answer: what is handed out: the model's answer, or the
            refusal. first: the run whose answer was replaced; None if it was not.
    """

    words: tuple[CheckedWord, ...]
    of: str
    calibration: str
    then: Then
    answer: str
    marked: str
    first: Run | None = None

    @property
    def unsupported(self) -> tuple[str, ...]:
        """The words that nothing supports."""
        return tuple(one.text for one in self.words if one.unsupported)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "answer": self.answer,
            "marked": self.marked,
            "then": self.then,
            "of": self.of,
            "words": self.to_dicts(),
            "calibration": self.calibration,
            "first_answer": None if self.first is None else self.first.answer,
        }

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per word or object that was checked."""
        return [{"text": w.text, "risk": w.risk, "unsupported": w.unsupported} for w in self.words]

    def _repr_html_(self) -> str:
        from vlmattn.api.shown import checked_html

        return checked_html(self)

    def __str__(self) -> str:
        return f"{self.answer if self.then == 'abstain' else self.marked}\n({self.calibration})"


def check_of(vlm: Vlm, asked: Check | bool) -> Check | None:
    """The check that an argument means, before anything runs; None for none.

    Raises:
        SpecError: neither a check nor a truth value, a detector of another model, or a threshold that it does not know.
    """
    if asked is False:
        return None
    if asked is not True and not isinstance(asked, Check):
        raise SpecError(f"check must be True, False or a Check, got {asked!r}")
    check = Check() if asked is True else asked
    if check.by is None:
        check = replace(check, by=vlm.detector)
    if isinstance(check.by, Detector | Calibration | str | Path):
        check = replace(check, by=usable(vlm, check.by))
    if isinstance(check.threshold, str):
        for kind in ("claims", "things") if check.by is None else ("",):
            _limit(check, check.by or shipped_for(vlm, kind))
    return check


def _limit(check: Check, by: Any) -> float:
    """The threshold as a number. Raises SpecError for a name that what the check goes by does not know."""
    if not isinstance(check.threshold, str):
        return check.threshold
    if not isinstance(by, Detector):
        raise SpecError(f"threshold {check.threshold!r} is a detector's, and this check goes by none: give a number")
    return by.threshold(check.threshold).value


def checks_of(vlm: Vlm, asked: Check | bool | Sequence[Check | bool], count: int) -> list[Check | None]:
    """The check of each of ``count`` items: one for all, or one each. Raises SpecError, see :func:`check_of`."""
    if not isinstance(asked, Sequence):
        return [check_of(vlm, asked)] * count
    if isinstance(asked, str):
        raise SpecError(f"check must be True, False or a Check, got {asked!r}")
    if len(asked) != count:
        raise SpecError(f"{count} questions came with {len(asked)} checks: give one for all, or one each")
    known = {id(one): check_of(vlm, one) for one in asked}  # what is asked for twice is one check: see checked()
    return [known[id(one)] for one in asked]


def checked(runs: Sequence[Run], checks: Sequence[Check | None]) -> list[Run]:
    """The runs to hand out, with what was found in ``run.checked``; second answers of one kind run in one batch."""
    out = list(runs)
    again: dict[int, list[int]] = {}
    for number, (run, check) in enumerate(zip(runs, checks, strict=True)):
        if check is None:
            continue
        found = _checked(run, check, "mark", None)
        run.checked = found
        if not found.unsupported or check.then == "mark":
            continue
        if check.then == "abstain":
            run.checked = replace(found, then="abstain", answer=ABSTAINED)
        else:
            again.setdefault(id(check), []).append(number)
    for numbers in again.values():
        check = checks[numbers[0]]
        if check is not None:
            for number, second in zip(numbers, _second_answers([runs[n] for n in numbers], check), strict=True):
                second.checked = _checked(second, check, check.then, runs[number])
                out[number] = second
    return out


def _second_answers(runs: Sequence[Run], check: Check) -> list[Run]:
    if check.then == "look_again":
        return [run.ask_again(check.recipe) for run in runs]
    request = runs[0].request
    items = tuple(run.request.items[0] for run in runs)
    steering = (*request.steering, *check.steering)
    return runs[0].vlm.run(replace(request, items=items, answers=None, steering=steering))


def _checked(run: Run, check: Check, then: Then, first: Run | None) -> Checked:
    # A steered answer is judged as the model reads it without steering.
    read = run
    if run.request.steering and run.trace.answer_tokens:
        ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
        read = run.vlm.run(replace(run.request, answers=(ids,), steering=()))[0]
    spans, of = _spans(read, check.of)
    by = _judge(read, spans, of, check)
    risks, told = _risks(read, spans, by)
    limit = 0.5 if isinstance(check.threshold, str) and not isinstance(by, Detector) else _limit(check, by)
    words = tuple(
        CheckedWord(span.text, risk, risk is not None and risk >= limit, span)
        for span, risk in zip(spans, risks, strict=True)
    )
    return Checked(words, of, told, then, run.answer, _marked(read, words), first)


def _spans(run: Run, of: str) -> tuple[list[Span], str]:
    from vlmattn.api.object_words import named_in

    named = [one.span for one in named_in(run)] if of == "objects" else []
    if named:
        return named, "objects"
    return [word for word in run.words() if any(c.isalnum() for c in word.text)], "words"


def _judge(run: Run, spans: Sequence[Span], of: str, check: Check) -> Judge | VerdictRule:
    """What an answer is checked by: a shipped detector reads nothing but what it was fitted on."""
    from vlmattn.faithfulness import DEFAULT_RULE, VerdictRule

    if isinstance(check.by, Detector | Calibration | VerdictRule):
        return check.by
    kind = "things" if of == "objects" else "claims" if [one.text.casefold() for one in spans] == ["yes"] else ""
    return shipped_for(run.vlm, kind) or DEFAULT_RULE


def _risks(run: Run, spans: Sequence[Span], by: Judge | VerdictRule) -> tuple[list[float | None], str]:
    from vlmattn.api.detection import risks_of
    from vlmattn.api.faithfulness import evidence

    if isinstance(by, Detector | Calibration):
        return risks_of(run, spans, by), by.told
    found = [evidence(run, span) for span in spans]
    chances = [float("nan") if one is None else by.chance(one) for one in found]
    return [None if c != c else 1 - c for c in chances], f"deletion test, {by.source}"


def _marked(run: Run, words: Sequence[CheckedWord]) -> str:
    """The answer with unsupported stretches in brackets, a question mark behind each."""
    text = run.trace.layout.text
    spans = [run.trace.layout.char_span[t] for t in run.trace.answer_tokens]
    placed = [s for s in spans if s[0] >= 0]
    if not placed:
        return ""
    start, end = int(min(s[0] for s in placed)), int(max(s[1] for s in placed))
    out = ""
    for word in words:
        low, high = word.span.char_span
        if word.unsupported and low >= start:
            out += f"{text[start:low]}[{text[low:high]}?]"
            start = high
    return (out + text[start:end]).strip()
