"""A comparison in files: JSON, CSV, and a page to read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmattn.core.files import atomic_write_text, write_json
from vlmattn.evaluate.gaze.measuring import FLOORS, PEOPLE, CaseResult
from vlmattn.evaluate.gaze.summary import Summary, SummaryRow
from vlmattn.evaluate.statistics import Interval

WARNING = (
    "SYNTHETIC OBSERVERS: the scanpaths compared with are made by a rule (vlmattn.gaze.observers). They are no "
    "people's, and no number here says how people look."
)


def write_tables(folder: Path, results: Sequence[CaseResult], summary: Summary, settings: Mapping[str, Any]) -> None:
    """Write ``result.json``, ``rows.csv``, ``summary.csv`` and ``report.md``, each whole."""
    told = {"settings": plain(dict(settings)), "summary": plain(summary.to_dict())}
    if summary.synthetic:
        told["warning"] = WARNING
    write_json(folder / "result.json", told)
    atomic_write_text(folder / "rows.csv", _rows_csv(results, summary.synthetic))
    atomic_write_text(folder / "summary.csv", _summary_csv(summary))
    atomic_write_text(folder / "report.md", markdown(summary, settings))


def markdown(summary: Summary, settings: Mapping[str, Any] | None = None) -> str:
    """The summary as a page: a table for maps and one for scanpaths, sources down, measures across."""
    lines = [f"# Where {(settings or {}).get('model') or 'the model'} looks, and where people look", ""]
    if summary.synthetic:
        lines += [f"**{WARNING}**", ""]
    lines += [
        f"{summary.cases} cases on {summary.images} pictures. Means over cases of means over subjects, with 95 % "
        "intervals (pictures drawn again). In brackets: the share of the way from the floor to the ceiling. The floor "
        f"is chance for maps (that of {FLOORS['map']!r} where a measure states none) and {FLOORS['scanpath']!r} for "
        f"scanpaths. The ceiling is {PEOPLE!r}: for maps the density of all others, for scanpaths the mean over all "
        "others. A consensus can be above it.",
        "",
    ]
    for kind, title in (("map", "Maps"), ("scanpath", "Scanpaths"), ("search", "Search")):
        rows = [row for row in summary.rows if row.kind == kind]
        if not rows:
            continue
        lines += [f"## {title}", "", *_table(rows), ""]
    lines += _depths(summary)
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: Sequence[SummaryRow]) -> list[str]:
    metrics = list(dict.fromkeys(row.metric for row in rows))
    held = {(row.source, row.metric): row for row in rows}
    arrows = {row.metric: {"higher": " ↑", "lower": " ↓"}.get(row.better, "") for row in rows}
    lines = [f"| | {' | '.join(m + arrows[m] for m in metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for source in dict.fromkeys(row.source for row in rows):
        cells = [_cell(held.get((source, metric))) for metric in metrics]
        lines.append(f"| {source} | {' | '.join(cells)} |")
    return lines


def _cell(row: SummaryRow | None) -> str:
    if row is None:
        return "-"
    share = "" if row.of_ceiling is None else f" ({row.of_ceiling.value:.0%})"
    return f"{row.value.value:.3f} [{row.value.low:.3f}, {row.value.high:.3f}]{share}"


def _depths(summary: Summary) -> list[str]:
    if not summary.depths:
        return []
    lines = ["## By layer", "", "| | measure | most like people | in so many draws | means, first layer to last |"]
    lines.append("|---|---|---|---|---|")
    for one in summary.depths:
        means = ", ".join(f"{value:.3f}" for value in one.means)
        lines.append(f"| {one.kind} | {one.metric} | {one.best} | {one.sureness:.0%} | {means} |")
    return lines


def _rows_csv(results: Sequence[CaseResult], synthetic: bool) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["image", "task", "question", "subject", "kind", "source", "metric", "value", "synthetic"])
    for one in results:
        for row in one.rows:
            for subject, values in row.values.items():
                for metric, value in values.items():
                    shown = "" if value != value else repr(value)
                    head = [one.image, one.task or "", one.question, subject, row.kind, row.source]
                    writer.writerow([*head, metric, shown, int(synthetic)])
    return stream.getvalue()


def _summary_csv(summary: Summary) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    ends = ["value", "low", "high", "of_ceiling", "of_ceiling_low", "of_ceiling_high"]
    writer.writerow(["kind", "source", "metric", "better", *ends, "cases", "synthetic"])
    for row in summary.rows:
        share = row.of_ceiling
        numbers = [*_ends(row.value), *(("", "", "") if share is None else _ends(share))]
        writer.writerow([row.kind, row.source, row.metric, row.better, *numbers, row.cases, int(summary.synthetic)])
    return stream.getvalue()


def _ends(one: Interval) -> tuple[str, str, str]:
    return repr(one.value), repr(one.low), repr(one.high)


def plain(value: Any) -> Any:
    """A value as JSON can say it: null for what is not a finite number, text for what it has no word for."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return None if value - value != 0 else value
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
