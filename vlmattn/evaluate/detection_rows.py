"""Scores and detectors measured on words whose truth is known: one row each, and what was chosen before."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import SpecError
from vlmattn.evaluate.detecting import DetectionPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vlmattn.detection import Detector, MentionTable

BASELINE, POSITION, WORD = "nll", "position only", "word only"


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
    if len(set(test.words)) > 1:
        rows.append(_row(WORD, *word_rates(fit, test), fit, test, plan))
    names = [*SCORES, *(n for n in test.scores if n not in SCORES)]
    rows += [
        _row(n, test.scores[n], fit.scores[n], fit, test, plan) for n in names if n in test.scores and n in fit.scores
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


def word_rates(fit: MentionTable, test: MentionTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) of ``test`` and of ``fit``: how often each word was made up in ``fit``, counted with five words of the mean;
    for ``fit``, without the word's own picture. What is known without looking at anything."""
    import numpy as np

    wrong, words, images = fit.hallucinated_n, np.array(fit.words), np.array(fit.images)
    mean, weight = float(wrong.mean()), 5.0

    def rate(word: str, image: str = "") -> float:
        same = (words == word) & (images != image)
        return float((wrong[same].sum() + weight * mean) / (same.sum() + weight))

    return (
        np.array([rate(word) for word in test.words]),
        np.array([rate(word, image) for word, image in zip(fit.words, fit.images, strict=True)]),
    )


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
        control: three(
            controlled_auroc(
                score,
                labels,
                at,
                images,
                control=control,
                words=[w.casefold() for w in part.words] if control == "same_word" else None,
                draws=plan.draws,
            )
        )
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
