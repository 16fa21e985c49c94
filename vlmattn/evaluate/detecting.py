"""How well words that are made up can be told: scores and detectors over captions and claims of drawn scenes.

What is there is known exactly. Detectors are fitted on scenes of one seed and measured on those of another; intervals
draw scenes again; every AUROC is also controlled for the position of the word (see :mod:`vlmattn.evaluate.ranking`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.core.files import make_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vlmattn.api import Run, Vlm
    from vlmattn.detection import Detector, MentionTable, Seen
    from vlmattn.evaluate.detection_rows import DetectionReport
    from vlmattn.scene import Question, Scene
    from vlmattn.trace import Span

Task = Literal["captions", "presence"]
TASKS: tuple[Task, ...] = get_args(Task)
OF_ASKED = " of what is asked"
DELETION = "deletion test"
_CHUNK, _CAPTION = 25, "Describe the picture."
Progress = Callable[[int, int], None]


def _silent(_done: int, _total: int) -> None:
    pass


@dataclass(frozen=True)
class DetectionPlan:
    """What is run.

    Attributes:
        task: ``captions``: every thing that a description names; ``presence``: every *yes* to a question about
            presence. splits: of the scene generator. scenes: of each split, once for fitting and once for measuring.
        fit_seed, seed: of the scenes detectors are fitted on, and measured on. draws: of the bootstrap. deletion:
            whether every word is also tested by painting over what it looks at, which takes six passes each.

    Raises:
        SpecError: no such task or split, no scenes, or equal seeds.
    """

    task: Task = "captions"
    splits: tuple[str, ...] = ("adversarial", "test")
    scenes: int = 100
    fit_seed: int = 1
    seed: int = 0
    draws: int = 2000
    deletion: bool = False

    def __post_init__(self) -> None:
        from vlmattn.scene.splits import SPLITS

        if self.task not in TASKS:
            raise SpecError(f"task must be one of {', '.join(TASKS)}; got {self.task!r}")
        wrong = [one for one in self.splits if one not in SPLITS]
        if wrong or not self.splits:
            raise SpecError(f"splits {wrong or '(none)'} do not exist; splits are {', '.join(SPLITS)}")
        if self.scenes < 5 or self.draws < 1:
            raise SpecError(f"scenes must be at least 5 and draws at least 1, got {self.scenes} and {self.draws}")
        if self.fit_seed == self.seed:
            raise SpecError("detectors are fitted on other scenes than they are measured on: give two seeds")


def measure_detection(
    vlm: Vlm, plan: DetectionPlan, *, cache: str | Path | None = None, progress: Progress = _silent
) -> tuple[DetectionReport, Detector]:
    """Everything measured on one model, and the detector that was chosen by the scenes it was fitted on.

    Args:
        cache: folder of finished parts, which are not run again.

    Raises:
        SpecError: the model makes nothing up in these scenes, or nothing else.
    """
    from vlmattn.evaluate.detection_rows import report_of

    total = 2 * len(plan.splits) * plan.scenes
    fit = collect(vlm, plan, plan.fit_seed, cache, lambda done: progress(done, total))
    test = collect(vlm, plan, plan.seed, cache, lambda done: progress(total // 2 + done, total))
    return report_of(fit, test, plan)


# -- words -------------------------------------------------------------------------------------------------------------


def collect(
    vlm: Vlm, plan: DetectionPlan, seed: int, cache: str | Path | None, done: Callable[[int], None] | None = None
) -> MentionTable:
    """The words of a plan's scenes of one seed, with scores and features.

    Raises:
        SpecError: no scene has any.
    """
    from vlmattn.detection import joined

    tables, count = [], 0
    for split in plan.splits:
        for first in range(0, plan.scenes, _CHUNK):
            numbers = range(first, min(first + _CHUNK, plan.scenes))
            tables += [one for one in (_part(vlm, plan, split, seed, numbers, cache),) if one is not None]
            count += len(numbers)
            if done is not None:
                done(count)
    if not tables:
        raise SpecError(f"{vlm.name!r} names nothing in these scenes, so there is nothing to tell apart: take others")
    return joined(tables)


def _part(
    vlm: Vlm, plan: DetectionPlan, split: str, seed: int, numbers: range, cache: str | Path | None
) -> MentionTable | None:
    from vlmattn.detection import SCORES, MentionTable, joined

    task = f"{plan.task}-deletion" if plan.deletion else plan.task
    name = f"{vlm.name.replace('/', '_')}-{task}-{split}-{seed}-{numbers.start}-{numbers.stop}.safetensors"
    place = None if cache is None else make_folder(cache) / name
    if place is not None and place.is_file():
        try:
            held = MentionTable.load(place)
        except FileError:
            held = None
        if (
            held is not None
            and held.model.name == vlm.name
            and {n.removesuffix(OF_ASKED) for n in held.scores} <= {*SCORES, DELETION}
        ):
            return held
    tables = _words_of(vlm, plan, split, seed, numbers)
    made = joined(tables) if tables else None
    if place is not None and made is not None:
        made.save(place)
    return made


def _words_of(vlm: Vlm, plan: DetectionPlan, split: str, seed: int, numbers: range) -> list[MentionTable]:
    from vlmattn.scene import split_item

    drawn = [(f"{split}-{seed}-{n}", *split_item(split, seed, n)) for n in numbers]
    if plan.task == "captions":
        runs = vlm.ask_many([(scene.image, _CAPTION) for _, scene, _ in drawn])
        pairs = zip(drawn, runs, strict=True)
        return [one for (name, scene, _), run in pairs for one in _caption(run, name, scene, plan)]
    return [
        one
        for name, scene, questions in drawn
        for question in questions
        if question.kind == "exist"
        for one in _claim(vlm, name, scene, question, plan)
    ]


def _features(depth: int) -> tuple[str, ...]:
    return ("heads", f"states:{depth // 2}", f"states:{depth - 1}", f"states:{depth}")


def _caption(run: Run, name: str, scene: Scene, plan: DetectionPlan) -> list[MentionTable]:
    from vlmattn.api.object_words import named_in

    try:
        table = run.mentions(scene.names, image=name, features=_features(run.trace.depth))
    except MapError:  # it names nothing
        return []
    if plan.deletion:
        table.scores[DELETION] = deletion_risks(run, [one.span for one in named_in(run)])
    return [table]


def deletion_risks(run: Run, spans: Sequence[Span]) -> NDArray[np.float64]:
    """(n,) chance that stretches of an answer are made up by the deletion test that comes with the library; NaN where
    nothing can be tested."""
    import numpy as np

    from vlmattn.api.faithfulness import evidence
    from vlmattn.faithfulness import DEFAULT_RULE

    found = [evidence(run, span) for span in spans]
    return np.array([np.nan if one is None else 1 - DEFAULT_RULE.chance(one) for one in found])


def _claim(vlm: Vlm, name: str, scene: Scene, question: Question, plan: DetectionPlan) -> list[MentionTable]:
    import numpy as np

    from vlmattn.api.detected import seen
    from vlmattn.api.detection import ABOUT, about_phrase, mention_table
    from vlmattn.detection import score_specs
    from vlmattn.scene.captions import mentioned

    run = vlm.ask(scene.image, question.text, max_new_tokens=6)
    words = [word for word in run.words() if word.text.casefold() == "yes"][:1]
    if not words:
        return []
    made: Seen = seen(run, words[0].tokens)
    wrong = [question.answer == "no"]
    kinds = _features(run.trace.depth)
    table = mention_table(run, made, words, wrong, name, score_specs(), kinds, asked=False)
    things = mentioned(question.text)  # none where a colour or a shape alone is asked about
    asked = about_phrase(run, things[0]).scores if things else dict.fromkeys(ABOUT, float("nan"))
    table.scores.update({f"{n}{OF_ASKED}": np.array([value]) for n, value in asked.items()})
    if plan.deletion:
        table.scores[DELETION] = deletion_risks(run, words)
    return [table]
