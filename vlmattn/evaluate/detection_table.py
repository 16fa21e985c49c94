"""What was measured of detection, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmattn.evaluate.detection_rows import BASELINE, POSITION, WORD, short_name

if TYPE_CHECKING:
    from vlmattn.evaluate.detection_rows import DetectionReport, Row

_HEAD = (
    "| score | words | AUROC | at equal position | within a picture | less position | same word "
    "| against token probability | average precision | calibration error |"
)
_TASKS = {"captions": "things that a description names", "presence": "*yes* to questions about presence"}


def detection_markdown(reports: Sequence[DetectionReport], command: str, *, notes: Sequence[str] = ()) -> str:
    """The page of some reports; ``command`` is what wrote it, ``notes`` what else is to be told."""
    lines = ["# Words that are made up, measured", "", f"Written by `{command}`; do not edit.", "", *_how()]
    lines += [line for note in notes for line in ("", note)]
    for one in reports:
        lines += ["", *_section(one)]
    return "\n".join(lines) + "\n"


def _how() -> list[str]:
    return [
        "A word is made up if it names a thing (colour and shape) that is not in the drawn scene. All scores rise with "
        "the chance of being made up, the way their papers say; an AUROC below one half means that it is the other way "
        "round here. Detectors and calibrations are fitted on scenes of one seed and measured on those of another; "
        "intervals (95 %) are bootstrapped by scene.",
        "",
        "*At equal position* counts pairs (made up, not made up) of one of up to ten position strata; *within a "
        "picture* pairs of one answer at most six tokens apart; *less position* all pairs, of the score less its mean "
        "in the stratum; *same word* pairs of one word. *Position only* and *word only* are what is known without "
        "looking: the number of the token, and how often that word was made up in the scenes fitted on. *Against token "
        "probability* is the difference of AUROC at equal position from that of -ln P on the same words. Average "
        "precision of chance is the share made up. The calibration error is expected calibration error in ten bins.",
        "",
        "These are small models of drawn scenes: they show that scores work as defined, not that they help a model of "
        "7 billion parameters.",
    ]


def _section(report: DetectionReport) -> list[str]:
    plan, best = report.plan, report.row(report.best)
    share = report.hallucinated / report.words
    lines = [
        f"## `{report.model}`: {_TASKS[plan.task]}",
        "",
        f"{plan.scenes} scenes each of {', '.join(plan.splits)}. {report.words} words, {report.hallucinated} of them "
        f"made up ({share:.2f}); fitted on {report.fitted_words} others, {report.fitted_hallucinated} made up.",
        "",
        _verdict(report, best),
        "",
        _HEAD,
        "|---" * 10 + "|",
        *(_line(row) for row in report.rows),
    ]
    return [*lines, "", *_curve(best)]


def _verdict(report: DetectionReport, best: Row) -> str:
    gap, base = best.auroc.get("difference"), report.row(BASELINE)
    if gap is None or gap[0] != gap[0]:
        return "Too few words of one outcome to compare."
    said = "beats" if gap[1] > 0 else "is behind" if gap[2] < 0 else "cannot be told apart from"
    alone = [f"*{r.name}* {r.auroc['none'][0]:.3f}" for r in report.rows if r.name in (POSITION, WORD)]
    return (
        f"The detector chosen by the scenes it was fitted on, *{short_name(best.name)}*, {said} token probability: "
        f"{_three(best.auroc['stratified'])} against {_three(base.auroc['stratified'])} at equal position, a "
        f"difference of {_three(gap)}. Over all pairs, {' and '.join(alone)}."
    )


def _line(row: Row) -> str:
    if not row.auroc:
        return f"| {short_name(row.name)} | {row.words} | not defined |" + " |" * 7
    parts = [
        _three(row.auroc[name])
        for name in ("none", "stratified", "within_image", "residual", "same_word", "difference")
    ]
    name = short_name(row.name)
    told = f"*{name}*" if row.fitted else name
    return f"| {told} | {row.words} | {' | '.join(parts)} | {_three(row.precision)} | {row.error:.3f} |"


def _curve(row: Row) -> list[str]:
    lines = [f"Calibration of *{short_name(row.name)}*:", "", "| risk told | made up | words |", "|---|---|---|"]
    return lines + [f"| {told:.2f} | {true:.2f} | {count} |" for told, true, count in row.reliability]


def _three(values: tuple[float, float, float]) -> str:
    if values[0] != values[0]:
        return "–"
    return f"{values[0]:.3f} ({values[1]:.3f} to {values[2]:.3f})"
