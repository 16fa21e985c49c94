"""What an atlas is made of: pictures, questions, answers, and where things are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path
from vlmattn.core.layout import Box
from vlmattn.scene import Question, Scene, split_item

KINDS = ("color", "shape", "exist", "at", "caption")
"""Kinds of questions about scenes that an atlas is made of: those whose answer names things, or is about one."""


@dataclass(frozen=True)
class HeadSample:
    """One picture and question.

    Attributes:
        image: a path, bytes, a PIL picture or an array. question: text, or chat messages.
        answer: a given answer, whose tokens are looked at; None lets the model write one.
        boxes: (x0, y0, x1, y1) in pixels of the picture, of what the question is about.
        words: (words of the answer, box of what they name).
        kind: what sort of question it is; pointing is told apart by it.

    Raises:
        SpecError: boxes that are no boxes, or words that are no text.
    """

    image: Any
    question: Any
    answer: str | None = None
    boxes: tuple[Box, ...] = ()
    words: tuple[tuple[str, Box], ...] = ()
    kind: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxes", tuple(_box(one) for one in self.boxes))
        try:
            pairs = tuple((text, _box(box)) for text, box in self.words)
        except (TypeError, ValueError) as error:
            raise SpecError(f"words must be (text, box) pairs, got {self.words!r}") from error
        if any(not isinstance(text, str) or not text.strip() for text, _ in pairs):
            raise SpecError(f"words must be text with their boxes, got {self.words!r}")
        object.__setattr__(self, "words", pairs)
        if self.answer is not None and (not isinstance(self.answer, str) or not self.answer.strip()):
            raise SpecError(f"a given answer must be text, got {self.answer!r}; None lets the model write one")


def _box(values: Any) -> Box:
    try:
        x0, y0, x1, y1 = (float(v) for v in values)
    except (TypeError, ValueError):
        raise SpecError(f"a box must be four numbers (x0, y0, x1, y1), got {values!r}") from None
    if not (x1 > x0 and y1 > y0):
        raise SpecError(f"a box must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got {values!r}")
    return x0, y0, x1, y1


def scene_sample(scene: Scene, question: Question) -> HeadSample:
    """A question about a scene, with its true answer, the box of its object if it is about one, and the boxes of what
    the answer names."""
    there = [scene.objects[index] for index in question.targets]
    if question.kind == "caption":
        named = [(o.name, o.box_xyxy) for o in scene.objects]
    else:
        named = [(question.answer, o.box_xyxy) for o in there] if question.kind in ("color", "shape", "at") else []
    boxes = [o.box_xyxy for o in there] if len(there) == 1 else []
    words = tuple((text, _box(box)) for text, box in named)
    answer = tuple(_box(box) for box in boxes)
    return HeadSample(scene.image, question.text, question.answer, answer, words, question.kind)


def scene_samples(
    count: int = 40, *, split: str = "validation", seed: int = 0, kinds: Sequence[str] = KINDS
) -> tuple[HeadSample, ...]:
    """``count`` questions about scenes of a split, one kind after the other.

    Raises:
        SpecError: no such split, a count below 1, or kinds of which no scene has any.

    Example:
        >>> [sample.kind for sample in scene_samples(4)]
        ['color', 'shape', 'exist', 'at']
    """
    if count < 1 or not kinds:
        raise SpecError(f"count must be at least 1 and kinds not empty, got {count} and {kinds!r}")
    found: list[HeadSample] = []
    index = 0
    while len(found) < count and index < 50 * count:
        scene, questions = split_item(split, seed, index)
        wanted = kinds[len(found) % len(kinds)]
        found += [scene_sample(scene, q) for q in questions if q.kind == wanted][:1]
        index += 1
    if len(found) < count:
        raise SpecError(f"scenes of split {split!r} have no questions of kinds {', '.join(kinds)}")
    return tuple(found)


def read_samples(path: str | Path) -> tuple[HeadSample, ...]:
    """Samples of a JSONL file: one object a line with ``image``, ``question`` and, if known, ``answer``, ``boxes``
    (lists of four numbers), ``words`` (pairs of text and box) and ``kind``. Pictures lie relative to the file.

    Raises:
        FileError: missing, empty, or a line that is no such object; says which.
    """
    target = as_path(path)
    try:
        lines = target.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise FileError(
            f"cannot read samples from {str(target)!r}: {getattr(error, 'strerror', 0) or error}"
        ) from error
    found = [_read(line, n, target) for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise FileError(f"{str(target)!r} holds no sample: one JSON object a line with image and question is expected")
    return tuple(found)


def _read(line: str, number: int, path: Path) -> HeadSample:
    where = f"line {number} of {str(path)!r}"
    try:
        held = json.loads(line)
    except ValueError as error:
        raise FileError(f"{where} is no JSON: {error}") from error
    if not isinstance(held, Mapping) or not {"image", "question"} <= set(held):
        raise FileError(f"{where} must be an object with image and question")
    known = HeadSample.__dataclass_fields__
    wrong = [name for name in held if name not in known]
    if wrong:
        raise FileError(f"{where} has {', '.join(map(repr, wrong))}; known are {', '.join(known)}")
    if not isinstance(held["image"], str):
        raise FileError(f"{where}: image must be the path of a picture, got {held['image']!r}")
    place = held["image"] if "://" in held["image"] else str(path.parent / held["image"])
    try:
        return HeadSample(**{**held, "image": place})
    except (SpecError, TypeError) as error:
        raise FileError(f"{where}: {error}") from error
