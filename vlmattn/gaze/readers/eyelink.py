"""EyeLink's recordings as text (``edf2asc``): fixations and raw samples, trial by trial."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import read_text
from vlmattn.gaze.event_detection import Samples
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import at, scanpath
from vlmattn.gaze.screen import Screen
from vlmattn.gaze.units import Outside

Eye = Literal["left", "right"]
IMAGE_MESSAGE = r"(?:!V IMGLOAD \S+(?: \d+)?|!V TRIAL_VAR image\w*|image:?)\s+(\S+)"
"""How messages usually name the picture."""
_TRIAL = re.compile(r"MSG\s+\S+\s+TRIALID\b")
_SCREEN = re.compile(r"(?:DISPLAY_COORDS|GAZE_COORDS)\s+(-?[\d.]+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s+(-?[\d.]+)")


@dataclass
class _Trial:
    """What stands between START and END."""

    line: int
    start: float
    zero: float | None = None
    image: str | None = None
    messages: list[str] = field(default_factory=list)
    fixations: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    samples: list[tuple[float, ...]] = field(default_factory=list)
    eyes: tuple[str, ...] = ()


def read_eyelink(
    path: str | Path,
    *,
    eye: Eye | None = None,
    image_wh: tuple[int, int] | None = None,
    box_xyxy: tuple[float, float, float, float] | None = None,
    image_message: str = IMAGE_MESSAGE,
    onset_message: str | None = None,
    subject: str | None = None,
    screen: Screen | None = None,
    outside: Outside = "keep",
    drop_bad: bool = False,
) -> Fixations:
    """One scanpath for each trial (``START`` to ``END``) of an ASC file, from its ``EFIX`` events.

    Args:
        eye: whose; None takes the only one there is, and refuses a file with both.
        image_wh: of the picture; the screen's size if None. box_xyxy: where the picture was on the screen, in its
            pixels; all of it if None.
        image_message: a regular expression for messages, whose first group is the picture's name; messages before the
            trial count too. onset_message: one for the message that says when the picture appeared, from which
            starts count; from ``START`` if None. Fixations that began before it have starts below 0.
        subject: who; the file's name if None. screen: pixels per degree, in pixels of the picture.

    Returns:
        ``trial`` of each scanpath has ``line`` (of ``START``) and ``messages`` (texts).

    Raises:
        FileError: no such file, no trial, the screen's size is nowhere, or a line that cannot be read; says which.
        SpecError: both eyes were recorded and none is named, an eye that was not recorded, or no regular expression.
    """
    trials, display = _trials(path, _pattern(image_message), None if onset_message is None else _pattern(onset_message))
    box, wh = _places(path, display, box_xyxy, image_wh)
    chosen = _eye(path, {eye for trial in trials for eye in (*trial.fixations, *trial.eyes)}, eye)
    named = {"subject": Path(path).stem if subject is None else subject, "screen": screen, "outside": outside}
    paths: list[Scanpath] = []
    for trial in trials:
        place = f"{path}, trial at line {trial.line}"
        zero = trial.start if trial.zero is None else trial.zero
        rows = trial.fixations.get(chosen, [])
        x, y = _on_picture([r[3] for r in rows], [r[4] for r in rows], box, wh)
        times = {"start_ms": [r[0] - zero for r in rows], "ms": [r[2] for r in rows]}
        facts = {"line": trial.line, "messages": trial.messages}
        paths.append(
            scanpath(place, x, y, wh, image=trial.image, trial=facts, drop_bad=drop_bad, **times, **named)  # type: ignore[arg-type]
        )
    return Fixations(tuple(paths))


def read_eyelink_samples(path: str | Path, *, eye: Eye | None = None) -> list[Samples]:
    """Raw samples of each trial in pixels of the screen, seconds from ``START``; NaN where the eye was lost.

    For :func:`~vlmattn.gaze.find_fixations`. Errors are those of :func:`read_eyelink`.
    """
    trials, _ = _trials(path, re.compile(r"(?!)"), None)
    chosen = _eye(path, {one for trial in trials for one in trial.eyes}, eye)
    held = []
    for trial in trials:
        first = 1 if len(trial.eyes) < 2 or trial.eyes.index(chosen) == 0 else 4
        short = [row for row in trial.samples if len(row) < first + 2]
        if short:
            raise FileError(
                f"{path}, trial at line {trial.line}: a sample at {short[0][0]:g} ms lacks the {chosen} eye"
            )
        with at(f"{path}, trial at line {trial.line}"):
            columns = ([row[i] for row in trial.samples] for i in (first, first + 1))
            held.append(Samples([(row[0] - trial.start) / 1000 for row in trial.samples], *columns))  # type: ignore[arg-type]
    return held


def _trials(
    path: str | Path, image: re.Pattern[str], onset: re.Pattern[str] | None
) -> tuple[list[_Trial], tuple[float, float, float, float] | None]:
    lines = [(number, line) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    reading = _Reading(image, onset, any(_TRIAL.match(line) for _, line in lines))
    for number, line in lines:
        reading.take(number, line, f"{path}, line {number}")
    if not reading.trials:
        raise FileError(f"{path} has no trial (a line that begins with START): is it an ASC file of edf2asc?")
    return reading.trials, reading.display


class _Reading:
    """A file as far as it has been read.

    A message that names the picture belongs to the trial that it stands in. Outside of trials, it belongs to the next
    one; in files with TRIALID messages, to the one of the same TRIALID, which may have ended.
    """

    def __init__(self, image: re.Pattern[str], onset: re.Pattern[str] | None, ids: bool) -> None:
        self.image, self.onset, self.ids = image, onset, ids
        self.trials: list[_Trial] = []
        self.display: tuple[float, float, float, float] | None = None
        self.open: _Trial | None = None
        self.ended: _Trial | None = None
        self.picture: str | None = None
        self.eyes: tuple[str, ...] = ()

    def take(self, number: int, line: str, place: str) -> None:
        """One more line."""
        words = line.split()
        if words[0] == "START":
            self.open = _Trial(number, _number(words, 1, place), image=self.picture, eyes=_eyes(words))
            self.trials.append(self.open)
        elif words[0] == "MSG":
            self.message(words, line, place)
        elif self.open is not None:
            self.recorded(self.open, words, place)

    def recorded(self, trial: _Trial, words: list[str], place: str) -> None:
        """A line of a trial that is no message."""
        if words[0] == "END":
            self.open, self.ended, self.picture = None, trial if self.ids else None, None
        elif words[0] == "EFIX":
            values = tuple(_number(words, i, place) for i in range(2, 7))
            trial.fixations.setdefault(_side(words, place), []).append(values)
        elif words[0] == "SAMPLES":
            trial.eyes = self.eyes = _eyes(words)
        elif words[0][0].isdigit():
            trial.eyes = trial.eyes or self.eyes
            trial.samples.append(tuple(_sample(words, place)))

    def message(self, words: list[str], line: str, place: str) -> None:
        """A message: the screen's size, the picture's name, the onset of the picture."""
        if _TRIAL.match(line):
            self.ended, self.picture = None, None
        if found := _SCREEN.search(line):
            self.display = (float(found[1]), float(found[2]), float(found[3]), float(found[4]))
        if found := self.image.search(line):
            trial = self.open or self.ended
            if trial is None:
                self.picture = found[1]
            else:
                trial.image = trial.image or found[1]
        if self.open is not None:
            self.open.messages.append(" ".join(words[2:]))
            if self.onset is not None and self.open.zero is None and self.onset.search(line):
                self.open.zero = _number(words, 1, place)


def _eyes(words: list[str]) -> tuple[str, ...]:
    return tuple(word.lower() for word in words if word in ("LEFT", "RIGHT"))


def _side(words: list[str], place: str) -> str:
    sides = {"L": "left", "R": "right"}
    if len(words) < 2 or words[1] not in sides:
        raise FileError(f"{place}: EFIX must name the eye, L or R, got {' '.join(words[:2])!r}")
    return sides[words[1]]


def _number(words: list[str], index: int, place: str) -> float:
    try:
        return float("nan") if words[index] == "." else float(words[index])
    except (IndexError, ValueError) as error:
        raise FileError(f"{place}: expected a number as word {index + 1} of {' '.join(words)!r}") from error


def _sample(words: list[str], place: str) -> Iterator[float]:
    """Time and numbers of a sample; flags at its end are left out."""
    for index, word in enumerate(words):
        if word != "." and not re.fullmatch(r"[+-]?\d*\.?\d+(?:[eE][+-]?\d+)?|\d+\.", word):
            return
        yield _number(words, index, place)


def _eye(path: str | Path, there: set[str], eye: Eye | None) -> str:
    if eye is not None and eye not in ("left", "right"):
        raise SpecError(f"eye must be 'left' or 'right', got {eye!r}")
    if eye is not None:
        if there and eye not in there:
            raise SpecError(f"{path}: the {eye} eye was not recorded, only the {' and '.join(sorted(there))}")
        return eye
    if len(there) > 1:
        raise SpecError(f"{path}: both eyes were recorded: say eye='left' or eye='right'")
    return next(iter(there), "left")


def _places(
    path: str | Path,
    display: tuple[float, float, float, float] | None,
    box: tuple[float, float, float, float] | None,
    wh: tuple[int, int] | None,
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """The picture's place on the screen, and its size."""
    if box is None:
        if display is None:
            raise FileError(f"{path} does not say the screen's size (DISPLAY_COORDS): give box_xyxy and image_wh")
        box = (display[0], display[1], display[2] + 1, display[3] + 1)
    if not (box[2] > box[0] and box[3] > box[1]):
        raise SpecError(f"box_xyxy must have positive width and height, got {box}")
    return box, (round(box[2] - box[0]), round(box[3] - box[1])) if wh is None else wh


def _on_picture(
    x: list[float], y: list[float], box: tuple[float, float, float, float], wh: tuple[int, int]
) -> tuple[list[float], list[float]]:
    """Points of the screen in pixels of the picture that fills the box."""
    across, down = wh[0] / (box[2] - box[0]), wh[1] / (box[3] - box[1])
    return [(v - box[0]) * across for v in x], [(v - box[1]) * down for v in y]


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise SpecError(f"{text!r} is no regular expression: {error}") from error
