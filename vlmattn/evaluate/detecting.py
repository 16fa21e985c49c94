"""How well words that are made up can be told: scores and detectors over captions and claims of drawn scenes.

What is there is known exactly. Detectors are fitted on scenes of one seed and measured on those of another; intervals
draw scenes again; every AUROC is also controlled for the position of the word (see :mod:`vlmattn.evaluate.ranking`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.core.files import make_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vlmattn.api import Run, Vlm
    from vlmattn.detection import Detector, MentionTable, Seen
    from vlmattn.scene import Question, Scene

Task = Literal["captions", "presence"]
TASKS: tuple[Task, ...] = get_args(Task)
BASELINE, POSITION = "nll", "position only"
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
        fit_seed, seed: of the scenes detectors are fitted on, and measured on. draws: of the bootstrap.

    Raises:
        SpecError: no such task or split, no scenes, or equal seeds.
    """

    task: Task = "captions"
    splits: tuple[str, ...] = ("adversarial", "test")
    scenes: int = 100
    fit_seed: int = 1
    seed: int = 0
    draws: int = 2000

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


@dataclass(frozen=True)
class Row:
    """One score or detector, measured.

    Attributes:
        name: of it. fitted: whether it was fitted on other scenes. words: how many have it.
        auroc: by control, and ``difference``: stratified, less that of token probability on the same words; each
            (value, low, high). precision: average precision (value, low, high). error: expected calibration error.
        chosen: AUROC, stratified, of the folds it was fitted on; None for scores.
    """

    name: str
    fitted: bool
    words: int
    auroc: dict[str, tuple[float, float, float]]
    precision: tuple[float, float, float]
    error: float
    reliability: list[tuple[float, float, int]] = field(default_factory=list)
    chosen: float | None = None


@dataclass(frozen=True)
class DetectionReport:
    """All rows of one model and task.

    Attributes:
        model: its name. plan: what was run. words, hallucinated: of the scenes measured on. fitted_words: of the
            others. rows: position first, then scores, then detectors. best: the detector whose folds were best, chosen
            before anything was measured.
    """

    model: str
    plan: DetectionPlan
    words: int
    hallucinated: int
    fitted_words: int
    fitted_hallucinated: int
    rows: tuple[Row, ...]
    best: str

    def row(self, name: str) -> Row:
        """The row of a score or detector. Raises SpecError where there is none."""
        found = [one for one in self.rows if one.name == name]
        if not found:
            raise SpecError(f"there is no row {name!r}; rows are {', '.join(one.name for one in self.rows)}")
        return found[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; None for what is not defined."""
        told: dict[str, Any] = _plain(asdict(self))
        return told


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and value != value else value


def measure_detection(
    vlm: Vlm, plan: DetectionPlan, *, cache: str | Path | None = None, progress: Progress = _silent
) -> tuple[DetectionReport, Detector]:
    """Everything measured on one model, and the detector that was chosen by the scenes it was fitted on.

    Args:
        cache: folder of finished parts, which are not run again.

    Raises:
        SpecError: the model makes nothing up in these scenes, or nothing else.
    """
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
            tables += [one for one in (_part(vlm, plan.task, split, seed, numbers, cache),) if one is not None]
            count += len(numbers)
            if done is not None:
                done(count)
    if not tables:
        raise SpecError(f"{vlm.name!r} names nothing in these scenes, so there is nothing to tell apart: take others")
    return joined(tables)


def _part(vlm: Vlm, task: Task, split: str, seed: int, numbers: range, cache: str | Path | None) -> MentionTable | None:
    from vlmattn.detection import SCORES, MentionTable, joined

    name = f"{vlm.name.replace('/', '_')}-{task}-{split}-{seed}-{numbers.start}-{numbers.stop}.safetensors"
    place = None if cache is None else make_folder(cache) / name
    if place is not None and place.is_file():
        try:
            held = MentionTable.load(place)
        except FileError:
            held = None
        if held is not None and held.model.name == vlm.name and set(held.scores) <= set(SCORES):
            return held
    tables = _words_of(vlm, task, split, seed, numbers)
    made = joined(tables) if tables else None
    if place is not None and made is not None:
        made.save(place)
    return made


def _words_of(vlm: Vlm, task: Task, split: str, seed: int, numbers: range) -> list[MentionTable]:
    from vlmattn.scene import split_item

    drawn = [(f"{split}-{seed}-{n}", *split_item(split, seed, n)) for n in numbers]
    if task == "captions":
        runs = vlm.ask_many([(scene.image, _CAPTION) for _, scene, _ in drawn])
        pairs = zip(drawn, runs, strict=True)
        return [one for (name, scene, _), run in pairs for one in _caption(run, name, scene)]
    return [
        one
        for name, scene, questions in drawn
        for question in questions
        if question.kind == "exist"
        for one in _claim(vlm, name, scene, question)
    ]


def _features(depth: int) -> tuple[str, ...]:
    return ("heads", f"states:{depth // 2}", f"states:{depth - 1}", f"states:{depth}")


def _caption(run: Run, name: str, scene: Scene) -> list[MentionTable]:
    try:
        return [run.mentions(scene.names, image=name, features=_features(run.trace.depth))]
    except MapError:  # it names nothing
        return []


def _claim(vlm: Vlm, name: str, scene: Scene, question: Question) -> list[MentionTable]:
    from vlmattn.api.detected import seen
    from vlmattn.api.detection import mention_table
    from vlmattn.detection import score_specs

    run = vlm.ask(scene.image, question.text, max_new_tokens=6)
    words = [word for word in run.words() if word.text.casefold() == "yes"][:1]
    if not words:
        return []
    made: Seen = seen(run, words[0].tokens)
    wrong = [question.answer == "no"]
    kinds = _features(run.trace.depth)
    return [mention_table(run, made, words, wrong, name, score_specs(), kinds, asked=False)]


# -- measuring ---------------------------------------------------------------------------------------------------------


def report_of(fit: MentionTable, test: MentionTable, plan: DetectionPlan) -> tuple[DetectionReport, Detector]:
    """Scores and detectors measured on ``test``, what is fitted on ``fit``.

    Raises:
        SpecError: words of one outcome only.
    """
    from vlmattn.detection import SCORES, fit_detector

    wrong = int(test.hallucinated_n.sum())
    if not 0 < wrong < len(test) or not 0 < fit.hallucinated_n.sum() < len(fit):
        raise SpecError(f"{wrong} of {len(test)} words are made up, so nothing can be told apart: take more scenes")
    shown = ", ".join(plan.splits)
    rows = [_row(POSITION, test.position_n.astype(float), fit.position_n.astype(float), fit, test, plan)]
    rows += [
        _row(n, test.scores[n], fit.scores[n], fit, test, plan) for n in SCORES if n in test.scores and n in fit.scores
    ]
    best, chosen = None, -1.0
    for rule, features in _detectors(fit):
        made = fit_detector(fit, rule=rule, features=features, source=f"drawn scenes, {shown}, seed {plan.fit_seed}")
        made.check_apart(test)
        row, folds = _fitted_row(made, fit, test, plan)
        rows.append(row)
        if folds > chosen:
            best, chosen = made, folds
    if best is None:
        raise SpecError("no detector could be fitted: take more scenes")
    told = DetectionReport(
        test.model.name, plan, len(test), wrong, len(fit), int(fit.hallucinated_n.sum()), tuple(rows), best.name
    )
    return told, best


def _detectors(fit: MentionTable) -> list[tuple[Any, str]]:
    import numpy as np

    from vlmattn.detection import SCORES

    held = {n: fit.scores[n] for n in SCORES if n in fit.scores}
    defined = [n for n, v in held.items() if np.isfinite(v).all() and np.ptp(v) > 0]
    states = sorted((n for n in fit.features if n.startswith("states:")), key=lambda n: int(n.partition(":")[2]))
    return [
        ("logistic", f"scores:{','.join(defined)}"),
        ("logistic", "heads"),
        *((rule, name) for rule in ("logistic", "direction", "neighbours") for name in states),
    ]


def short_name(name: str) -> str:
    """A detector's name for tables: a long list of scores becomes ``all scores``."""
    return f"{name.split(' on ')[0]} on all scores" if " on scores:" in name and name.count(",") > 3 else name


def _fitted_row(made: Detector, fit: MentionTable, test: MentionTable, plan: DetectionPlan) -> tuple[Row, float]:
    from vlmattn.detection import held_out_scores
    from vlmattn.evaluate.ranking import controlled_auroc

    folds = held_out_scores(fit, rule=made.rule, features=made.features)
    chosen = controlled_auroc(folds, fit.hallucinated_n, fit.position_n, fit.images, draws=1).value  # type: ignore[arg-type]
    row = _row(made.name, made.scores(test), None, fit, test, plan, made.risk(test), chosen)
    return row, chosen


def _row(
    name: str,
    values: NDArray[np.float64],
    fit_values: NDArray[np.float64] | None,
    fit: MentionTable,
    test: MentionTable,
    plan: DetectionPlan,
    risk: NDArray[np.float64] | None = None,
    chosen: float | None = None,
) -> Row:
    import numpy as np

    from vlmattn.evaluate.ranking import CONTROLS, auroc_difference, controlled_auroc, precision_interval
    from vlmattn.evaluate.statistics import Interval
    from vlmattn.faithfulness import reliability

    known = np.isfinite(values)
    part = test.where(known)
    labels, images = part.hallucinated_n.tolist(), part.images
    at, score = part.position_n.tolist(), values[known].tolist()
    if not 0 < sum(labels) < len(labels):
        return Row(name, chosen is not None, len(part), {}, (np.nan,) * 3, float("nan"), chosen=chosen)

    def three(one: Interval) -> tuple[float, float, float]:
        return (one.value, one.low, one.high)

    aurocs: dict[str, tuple[float, float, float]] = {
        control: three(controlled_auroc(score, labels, at, images, control=control, draws=plan.draws))
        for control in CONTROLS
    }
    base = part.scores[BASELINE].tolist()
    aurocs["difference"] = three(auroc_difference(score, base, labels, at, images, draws=plan.draws))
    aurocs["plain_difference"] = three(
        auroc_difference(score, base, labels, at, images, control="none", draws=plan.draws)
    )
    risk = _calibrated(name, fit_values, fit, values) if risk is None else risk
    curve = reliability(risk[known], part.hallucinated_n)
    lines = list(zip(curve.told, curve.true, curve.counts, strict=True))
    precision = three(precision_interval(score, labels, images, draws=min(plan.draws, 1000)))
    return Row(name, chosen is not None, len(part), aurocs, precision, curve.error, lines, chosen)


def _calibrated(
    name: str, fit_values: NDArray[np.float64] | None, fit: MentionTable, values: NDArray[np.float64]
) -> NDArray[np.float64]:
    import numpy as np

    from vlmattn.detection import fit_calibration

    if fit_values is None:
        raise SpecError(f"{name} has no values to be calibrated on")
    known = np.isfinite(fit_values)
    rule = fit_calibration(name, fit_values[known], fit.hallucinated_n[known].tolist(), source="")
    return rule.risk(values)
