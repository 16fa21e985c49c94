"""Is the verdict of ``run.grounding(test=True)`` right? Fitted on some scenes, measured on others.

``python benchmarks/grounding.py --scenes 60 --json docs/grounding.json --markdown docs/grounding.md``. Questions about
colour, shape, size, place, presence and what lies somewhere, asked of ``scene`` and of ``scene-prior``, which claims
what usually goes with what is there. An answer counts as supported if it is right; answers of *no* are left out, as
they rest on no place. The rule is fitted on the validation split and on adversarial scenes of seed 1, and measured on
the test split and on adversarial scenes of seed 0, beside the answer's own log-probability alone, the deletion test
alone, the image share alone, and always saying what is more frequent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.paired import mcnemar
from vlmattn.core.logistic import logistic
from vlmattn.faithfulness import Evidence, VerdictRule, fit_verdict, reliability
from vlmattn.scene import split_item

KINDS = ("color", "shape", "size", "exist", "where", "at")
MODELS = ("scene", "scene-prior")
FITTED = (("validation", 0), ("adversarial", 1))
MEASURED = (("test", 0), ("adversarial", 0))


def measure(name: str, split: str, seed: int, scenes: int) -> list[dict[str, Any]]:
    """One record per answer: evidence, image share, whether it is right."""
    vlm, records = va.load(name), []
    for index in range(scenes):
        scene, questions = split_item(split, seed, index)
        for question in questions:
            if question.kind not in KINDS:
                continue
            run = vlm.ask(scene.image, question.text, max_new_tokens=6)
            if run.answer.casefold() in ("no", ""):
                continue
            (word, *_) = run.grounding(test=True)
            if word.evidence is None:
                continue
            records.append(
                {
                    "model": name,
                    "split": split,
                    "seed": seed,
                    "kind": question.kind,
                    "scene": index,
                    "right": run.answer.casefold() == question.answer,
                    "share": word.image_share,
                    "evidence": word.evidence.to_dict(),
                }
            )
    return records


def evidence_of(record: dict[str, Any]) -> Evidence:
    """What :meth:`Evidence.to_dict` told."""
    told = record["evidence"]
    return Evidence(told["drop"], tuple(told["controls"]), told["log_probability"], tuple(told["box_xyxy"]))


def alone(train: Sequence[float], right: Sequence[bool], test: Sequence[float]) -> np.ndarray:
    """Chances by one number alone."""
    bias, weights = logistic(np.array(train)[:, None], np.array(right, dtype=float))
    return np.asarray(1 / (1 + np.exp(-(bias + weights[0] * np.array(test)))))


def auroc(scores: np.ndarray, right: np.ndarray) -> float:
    """Chance that a right answer has a higher score than a wrong one."""
    from scipy.stats import rankdata

    n, m = int(right.sum()), int((~right).sum())
    return float((rankdata(scores)[right].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def interval(hits: np.ndarray, scenes: Sequence[Any], seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of a mean, drawn by scene."""
    names = sorted(set(scenes))
    groups = [hits[[i for i, s in enumerate(scenes) if s == name]] for name in names]
    rng = np.random.default_rng(seed)
    means = [
        np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]).mean() for _ in range(draws)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def judged(name: str, chances: np.ndarray, part: list[dict[str, Any]]) -> dict[str, Any]:
    """How good chances are on a part: accuracy at one half, its interval, AUROC and calibration."""
    right = np.array([r["right"] for r in part])
    hits = (chances >= 0.5) == right
    low, high = interval(hits, [(r["model"], r["split"], r["scene"]) for r in part])
    curve = reliability(chances, right)
    told = {"rule": name, "n": len(part), "accuracy": float(hits.mean()), "low": low, "high": high}
    told |= {"auroc": auroc(chances, right), "error": curve.error, "hits": hits.tolist()}
    return told | {"curve": [list(curve.told), list(curve.true), list(curve.counts)]}


def part_of(records: list[dict[str, Any]], where: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """Records of some splits and seeds."""
    return [r for r in records if (r["split"], r["seed"]) in where]


def report(records: list[dict[str, Any]], rule: VerdictRule) -> dict[str, Any]:
    """All tables; the rule is that of the validation records."""
    train = part_of(records, FITTED)
    right = [r["right"] for r in train]
    logp = [r["evidence"]["log_probability"] for r in train]
    tables = {}
    for title, part in {
        "fitted on": train,
        "test": part_of(records, MEASURED[:1]),
        "adversarial": part_of(records, MEASURED[1:]),
        "both": part_of(records, MEASURED),
    }.items():
        truth = np.array([r["right"] for r in part])
        chances = np.array([rule.chance(evidence_of(r)) for r in part])
        excess = alone([evidence_of(r).excess for r in train], right, [evidence_of(r).excess for r in part])
        rows = [
            judged("deletion test and log-probability", chances, part),
            judged("deletion test alone", excess, part),
            judged("log-probability alone", alone(logp, right, [r["evidence"]["log_probability"] for r in part]), part),
            judged("image share alone", alone([r["share"] for r in train], right, [r["share"] for r in part]), part),
            judged("always the more frequent", np.full(len(part), float(np.mean(right))), part),
        ]
        for row in rows[1:]:
            row["p"] = mcnemar(row["hits"], rows[0]["hits"])
        said = [rule.verdict(evidence_of(r)) for r in part]
        decided = np.array([v != "unclear" for v in said])
        agreed = np.array([(v == "supported") == t for v, t in zip(said, truth, strict=True)])
        tables[title] = {
            "rows": [{k: v for k, v in row.items() if k != "hits"} for row in rows],
            "right": float(truth.mean()),
            "unclear": float(1 - decided.mean()),
            "decided_accuracy": float(agreed[decided].mean()) if decided.any() else float("nan"),
        }
    return {
        "rule": {"bias": rule.bias, "excess": rule.excess, "log_probability": rule.log_probability},
        "tables": tables,
    }


def markdown(found: dict[str, Any], command: str) -> str:
    """The report as a page."""
    weights = found["rule"]
    lines = ["# Verdicts, measured", "", f"Written by `{command}`; do not edit.", ""]
    lines += [
        "An answer is called supported if a deletion test and its log-probability say so (see "
        "`vlmattn/faithfulness/verdict.py`); the truth is whether it is right. Answers of *no* are left out. Fitted: "
        f"bias {weights['bias']:.3f}, excess {weights['excess']:.3f}, log-probability "
        f"{weights['log_probability']:.3f}. Intervals are bootstrapped by scene; p compares with the first line "
        "(exact McNemar).",
    ]
    for title, table in found["tables"].items():
        said = f"{table['rows'][0]['n']} answers, {table['right']:.2f} of them right. Verdicts: {table['unclear']:.2f} "
        lines += ["", f"## {title}", "", said + f"unclear; of the others {table['decided_accuracy']:.2f} right.", ""]
        lines += ["| by | accuracy | AUROC | calibration error | p |", "|---|---|---|---|---|"]
        for row in table["rows"]:
            p = "" if "p" not in row else f"{row['p']:.2g}"
            span = f"{row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            lines.append(f"| {row['rule']} | {span} | {row['auroc']:.3f} | {row['error']:.3f} | {p} |")
    curve = found["tables"]["both"]["rows"][0]["curve"]
    lines += ["", "## Calibration, both", "", "| chance told | came true | answers |", "|---|---|---|"]
    lines += [f"| {t:.2f} | {c:.2f} | {n} |" for t, c, n in zip(*curve, strict=True)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=60, help="of each split and model")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    records = []
    for name in MODELS:
        for split, seed in (*FITTED, *MEASURED):
            records += measure(name, split, seed, given.scenes)
            print(name, split, seed, len(records), flush=True)
    train = part_of(records, FITTED)
    rule = fit_verdict([evidence_of(r) for r in train], [r["right"] for r in train], source=f"{len(train)} answers")
    found = report(records, rule)
    print(json.dumps(found["rule"]))
    if given.json:
        given.json.write_text(json.dumps({"records": records, **found}, indent=1) + "\n", encoding="utf-8")
    text = markdown(found, f"python benchmarks/grounding.py --scenes {given.scenes} --markdown docs/grounding.md")
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
