"""The tables of ``benchmarks/mitigation.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.paired import mcnemar
from vlmattn.evaluate import holm, permutation_test, ratio


def page(found: dict[str, Any], command: str) -> str:
    """The report of one model as Markdown."""
    rows, plain = found["rows"], found["rows"][0]
    count = len(found["labels"]["adversarial"])
    lines = [f"# Mitigations on `{found['model']}`", "", f"Written by `{command} --markdown …`; do not edit.", ""]
    lines += [
        f"{count} questions of presence of each split, {found['captions']} captions of scenes with an anchor whose "
        "partner is missing; scenes of seed 0. Settings, heads and detectors come from seed 1;"
        " detectors with a threshold "
        "are those that come with the model, fitted on seed 5. *False yes*: share of "
        "absent things that are affirmed; *recall*: share of present things that are. p: exact McNemar on all answers "
        "of the adversarial split, and of captions a permutation test of wrong things per caption, each against plain; "
        "*Holm*: adjusted for all rows but controls. Cost: CPU time of the questions over that of plain ones; routes "
        "that ask one by one (second looks, detectors) are compared with answers in batches of 20. *Controls* do as "
        "much without guidance.", "",
        "## Questions of presence", "",
        "False *yes* and recall are of the adversarial split.", "",
        "| way | settings | random | popular | adversarial | false yes | recall | p | Holm | cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    asked = [row for row in rows if row["right"]]
    tests = [mcnemar(plain["right"]["adversarial"], row["right"]["adversarial"]) for row in asked[1:]]
    adjusted = _adjusted(asked[1:], tests)
    for row, p, q in zip(asked, [None, *tests], [None, *adjusted], strict=True):
        rates = [f"{np.mean(row['right'][split]):.3f}" for split in ("random", "popular", "adversarial")]
        false, recall = _yes(row, found["labels"])
        cost = row["seconds"] / plain["seconds"]
        lines.append(
            f"| {_name(row)} | {row['told']} | {' | '.join(rates)} | {false:.3f} | {recall:.3f} | {_p(p)} | {_p(q)} "
            f"| {cost:.1f} |"
        )
    lines += ["", _unbeaten(asked, found["labels"])]
    lines += ["", "## Captions", "", "| way | CHAIR_i | CHAIR_s | recall | things named | p | Holm |", "|---" * 7 + "|"]
    told = [row for row in rows if "wrong" in row]
    tests = [_permuted(plain["wrong"], row["wrong"]) for row in told[1:]]
    adjusted = _adjusted(told[1:], tests)
    for row, p, q in zip(told, [None, *tests], [None, *adjusted], strict=True):
        wrong, named = np.array(row["wrong"]), np.array(row["named"])
        recall = sum(row["found"]) / sum(row["there"])
        lines.append(
            f"| {_name(row)} | {wrong.sum() / max(1, named.sum()):.3f} | {np.mean(wrong > 0):.3f} | {recall:.3f} "
            f"| {named.mean():.2f} | {_p(p)} | {_p(q)} |"
        )
    if "frontiers" in found:
        lines += _frontiers(found["frontiers"])
    return "\n".join(lines) + "\n"


def _unbeaten(rows: list[dict[str, Any]], labels: dict[str, list[str]]) -> str:
    """The ways that no other one beats in false *yes* without losing recall, controls left out."""
    points = {row["name"]: _yes(row, labels) for row in rows if not row["control"]}
    kept = [
        f"{name} ({false:.3f} at recall {recall:.3f})"
        for name, (false, recall) in sorted(points.items(), key=lambda one: one[1])
        if not any((f <= false and r >= recall) and (f, r) != (false, recall) for f, r in points.values())
    ]
    return f"The frontier, of which no other way has less false *yes* at as much recall: {'; '.join(kept)}."


def _frontiers(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Tables of the shipped detectors at every threshold."""
    said = (
        "The least that any threshold reaches for the recall that it may give up, read off the very items that are "
        "measured: a threshold chosen beforehand does no better."
    )
    lines = ["", "## Frontier of the shipped detectors", "", said]
    for kind, error in (("yes", "false yes"), ("things", "CHAIR_i")):
        lines += ["", f"| recall given up, at most | threshold | {error} | recall |", "|---" * 4 + "|"]
        for one in found[kind]:
            told = f"{one['limit']:.3f}" if one["limit"] <= 1 else "none"
            lines.append(f"| {one['loss']:.3f} | {told} | {one['error']:.3f} | {one['recall']:.3f} |")
    return lines


def _yes(row: dict[str, Any], labels: dict[str, list[str]]) -> tuple[float, float]:
    right = np.array(row["right"]["adversarial"])
    absent = np.array([one == "no" for one in labels["adversarial"]])
    return float(1 - right[absent].mean()), float(right[~absent].mean())


def _adjusted(rows: list[dict[str, Any]], tests: list[float]) -> list[float | None]:
    wanted = [n for n, row in enumerate(rows) if not row["control"]]
    values = holm([tests[n] for n in wanted])
    found = dict(zip(wanted, values, strict=True))
    return [None if n not in found else float(found[n]) for n in range(len(rows))]


def _permuted(before: list[int], after: list[int]) -> float:
    table = np.stack([np.asarray(before, float), np.ones(len(before))], axis=1)
    other = np.stack([np.asarray(after, float), np.ones(len(after))], axis=1)
    return float(permutation_test(table, other, ratio, draws=9999, seed=0))


def _name(row: dict[str, Any]) -> str:
    return f"*control: {row['name']}*" if row["control"] else row["name"]


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
