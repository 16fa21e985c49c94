"""AiR-D: people looking at GQA's pictures while they answer questions (Chen et al., "AiR", ECCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.core.errors import FileError
from vlmattn.core.records import read_object
from vlmattn.gaze.fixations import Fixations, Scanpath
from vlmattn.gaze.readers.entries import Sizes, at, ordered, scanpath, size_of
from vlmattn.gaze.readers.matlab import load_mat
from vlmattn.gaze.units import Outside


def read_air(
    folder: str | Path,
    images: Mapping[str, str],
    sizes: Sizes,
    *,
    answers: str | Path | None = None,
    outside: Outside = "keep",
    drop_bad: bool = False,
) -> Fixations:
    """Scanpaths of AiR-D's folder ``fix``: ``<question id>/<subject>.mat`` with xy (n, 2) and t (n, 2), milliseconds.

    Files without fixations give empty scanpaths. Coordinates are taken as they are.

    Args:
        images: the name of the picture of each question id, from GQA's questions. sizes: of the pictures.
        answers: ``consolidated_answers.json``: the question becomes the task, and the trial gets its right ``answer``,
            what the subject ``answered``, and whether that is ``correct``. outside, drop_bad: as elsewhere.

    Raises:
        FileError: no such folder, a question without a picture, or a file of another content; names it.
    """
    root, size = Path(folder), size_of(sizes)
    files = ordered(list(root.glob("*/*.mat")), "<question id>/<subject>.mat", root)
    told = {} if answers is None else read_object(answers)
    paths = []
    for file in files:
        question = file.parent.name
        if question not in images:
            raise FileError(f"{file}: the picture of question {question} is not given in images")
        image = images[question]
        named = {"outside": outside, "drop_bad": drop_bad, **_facts(told, question, file.stem)}
        paths.append(_scanpath(file, size(image), question=question, image=image, **named))
    return Fixations(tuple(paths))


def _scanpath(file: Path, wh: tuple[int, int], *, question: str, trial: dict[str, Any], **named: Any) -> Scanpath:
    held = load_mat(file, ["xy", "t"])
    with at(str(file)):
        xy, t = (np.asarray(held[name], dtype=np.float64).reshape(-1, 2) for name in ("xy", "t"))
    if len(xy) != len(t):
        raise FileError(f"{file}: xy has {len(xy)} fixations and t has {len(t)}")
    facts = {"question_id": question, **trial}
    return scanpath(
        str(file), xy[:, 0], xy[:, 1], wh, ms=t[:, 1] - t[:, 0], start_ms=t[:, 0], subject=file.stem, trial=facts,
        **named,
    )  # fmt: skip


def _facts(told: Mapping[str, Any], question: str, subject: str) -> dict[str, Any]:
    """The question as task, its answer, and what the subject answered."""

    def of(key: str) -> Any:
        held = told.get(key)
        return held.get(question) if isinstance(held, Mapping) else None

    answer, answered = of("answer"), of(subject)
    trial = {name: value for name, value in (("answer", answer), ("answered", answered)) if value is not None}
    if len(trial) == 2:
        trial["correct"] = answer == answered
    return {"task": of("question"), "trial": trial}
