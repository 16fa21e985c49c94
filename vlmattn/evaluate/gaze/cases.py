"""What is compared: pictures, what was asked about them, and who looked at them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.records import listed, read_rows
from vlmattn.gaze import Fixations
from vlmattn.gaze.observers import Observer, synthetic_fixations
from vlmattn.scene import Scene, split_item

Box = tuple[float, float, float, float]
FREE_VIEWING = "What is in the picture?"
"""What a model is asked about a picture that people just looked at, unless it is told otherwise."""
_OBSERVER = Observer()
_WORDS = ("question", "caption", "text")
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class GazeCase:
    """One picture under one task.

    Attributes:
        image: the picture's name. picture: a path, or the picture. question: what the model is asked or told. task:
            what people were to do, or None. people: their scanpaths. word: a word or phrase whose map is taken, or None
            for the whole answer. target_box_xyxy: where what is looked for lies, if anything.
        wrong: a question about something else, for the control.
    """

    image: str
    picture: Any
    question: str
    task: str | None
    people: Fixations
    word: str | None = None
    target_box_xyxy: Box | None = None
    wrong: str | None = None

    @property
    def name(self) -> str:
        """Picture and task."""
        return self.image if self.task is None else f"{self.image} | {self.task}"

    @property
    def key(self) -> str:
        """A name for files."""
        return hashlib.sha256(f"{self.image}\n{self.task}\n{self.question}".encode()).hexdigest()[:16]


def synthetic(people: Fixations) -> bool:
    """Whether any of the scanpaths is no person's."""
    return any(path.trial.get("synthetic") for path in people)


def read_cases(
    images: str | Path,
    people: Fixations,
    questions: str | Path | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
) -> list[GazeCase]:
    """Cases of a folder of pictures, a table of what was asked, and people's scanpaths.

    Args:
        images: folder; names of pictures are those of files in it, with or without their endings.
        people: of any of its pictures. questions: CSV, TSV, JSON or JSON lines with columns ``image``, ``question`` (or
            ``caption``, ``text``), and, as far as needed, ``task`` (matched with that of the scanpaths), ``word``,
            and the target's box ``x0``, ``y0``, ``x1``, ``y1``. Without a table the model is asked what is in the
            picture. A picture without scanpaths is left out.
        seed: of which question is the wrong one. limit: only so many.

    Raises:
        FileError: no such folder, a picture that is not there, or a table without its columns. SpecError: no case.
    """
    files = _files(Path(images))
    rows = _rows(questions)
    found: list[GazeCase] = []
    for (image, task), group in people.by(lambda path: (path.image, path.task)).items():
        told = [row for row in rows if _stem(row["image"]) == _stem(str(image)) and row["task"] in (None, task)]
        if questions is None:
            told = [{"question": FREE_VIEWING}]
        for row in told:
            if _stem(str(image)) not in files:
                raise FileError(f"the picture {image!r} is not in {images}; there are {listed(sorted(files))}")
            box = row.get("box")
            found.append(
                GazeCase(
                    str(image), files[_stem(str(image))], row["question"], task, group, row.get("word"), box,
                )
            )  # fmt: skip
    if not found:
        raise SpecError(
            f"no picture of {images} has both scanpaths and a question: scanpaths are of "
            f"{listed([str(i) for i in people.images])}, questions of {listed([row['image'] for row in rows])}"
        )
    return with_wrong_questions(found, seed)[:limit]


def scene_cases(
    count: int = 20,
    *,
    split: str = "test",
    seed: int = 0,
    subjects: int = 6,
    task: str = "search",
    observer: Observer = _OBSERVER,
) -> list[GazeCase]:
    """Cases of drawn scenes with synthetic observers.

    Args:
        count: of scenes, of ``split`` and ``seed``. task: ``search``: observers look for the one thing that a question
            of the scene is about, and the model is asked that question; ``free``: both just look.

    Raises:
        SpecError: another task, or no scene.
    """
    if task not in ("search", "free"):
        raise SpecError(f"the task of synthetic observers is 'search' or 'free', got {task!r}")
    if count < 1:
        raise SpecError(f"count must be 1 scene or more, got {count}")
    make = partial(synthetic_fixations, subjects=subjects, seed=seed, observer=observer)
    found = []
    for index in range(count):
        scene, questions = split_item(split, seed, index)
        name = f"scene-{split}-{seed}-{index:04d}"
        asked = [q for q in questions if len(q.targets) == 1 and q.kind in ("color", "shape", "size", "where", "exist")]
        if task == "free" or not asked:
            people = make(scene, image=name)
            found.append(GazeCase(name, scene.image, FREE_VIEWING, None, people))
            continue
        thing = scene.objects[asked[0].targets[0]]
        people = make(scene, image=name, target=thing.name, task=f"find the {thing.name}")
        found.append(
            GazeCase(
                name, scene.image, asked[0].text, people[0].task, people, None, _floats(thing.box_xyxy),
                wrong=_about_another(scene, asked[0].targets[0], questions),
            )
        )  # fmt: skip
    return with_wrong_questions(found, seed)


def _about_another(scene: Scene, target: int, questions: Sequence[Any]) -> str | None:
    """A question of the same scene that is not about the target."""
    others = [q for q in questions if q.targets and target not in q.targets]
    return others[0].text if others and len(scene.objects) > 1 else None


def with_wrong_questions(cases: Sequence[GazeCase], seed: int) -> list[GazeCase]:
    """The cases, each without a wrong question given that of another case, if any differs."""
    from dataclasses import replace

    rng = np.random.default_rng(seed)
    found = []
    for case in cases:
        others = [one.question for one in cases if one.question != case.question and one.image != case.image]
        pick = others[int(rng.integers(len(others)))] if others else None
        found.append(case if case.wrong is not None or pick is None else replace(case, wrong=pick))
    return found


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileError(f"{folder} is no folder of pictures")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _ENDINGS)
    return {_stem(str(p.relative_to(folder))): p for p in reversed(paths)} | {p.stem: p for p in paths}


def _stem(name: str) -> str:
    path = Path(name)
    return str(path.with_suffix("")) if path.suffix.lower() in _ENDINGS else name


def _rows(path: str | Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    found = []
    for number, row in enumerate(read_rows(path), 1):
        words = next((row[name] for name in _WORDS if row.get(name)), None)
        if not row.get("image") or not words:
            raise FileError(
                f"{path}: row {number} needs 'image' and one of {', '.join(_WORDS)}; it has "
                f"{', '.join(sorted(map(str, row)))}"
            )
        told = {"image": str(row["image"]), "question": str(words), "task": row.get("task") or None}
        found.append(told | {"word": row.get("word") or None, "box": _box(row, f"{path}: row {number}")})
    return found


def _box(row: Mapping[str, Any], where: str) -> Box | None:
    held = [row.get(name) for name in ("x0", "y0", "x1", "y1")]
    if all(v in (None, "") for v in held):
        return None
    try:
        x0, y0, x1, y1 = (float(v) for v in held)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise FileError(f"{where}: a box needs numbers x0, y0, x1, y1, got {held}") from error
    if not (x1 > x0 and y1 > y0):
        raise FileError(f"{where}: a box needs x1 > x0 and y1 > y0, got {held}")
    return x0, y0, x1, y1


def _floats(box: tuple[int, int, int, int]) -> Box:
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])
