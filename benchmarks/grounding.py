"""Is the verdict of ``run.grounding(test=True)`` right? Fitted on some scenes, measured on others.

``python benchmarks/grounding.py --scenes 80 --json docs/grounding.json --markdown docs/grounding.md``. What counts as
supported: a claim that something is there (*yes* to a question about presence, of ``scene`` and of ``scene-prior``,
which claims what usually goes with what is there) is supported if it is there. The rule is fitted on scenes of seed 1
and measured on scenes of seed 0, beside the answer's own log-probability alone, the deletion test alone, the image
share alone, and always saying what is more frequent. Last, the same rule on answers about colour, shape, size and place
of things that are there, right ones against wrong ones: what it was not made for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.paired import mcnemar
from vlmattn.core.logistic import logistic
from vlmattn.faithfulness import Evidence, VerdictRule, fit_verdict, reliability
from vlmattn.scene import split_item

PRESENCE, OTHERS = ("exist",), ("color", "shape", "size", "where", "at")
MODELS = ("scene", "scene-prior")
SPLITS = ("adversarial", "popular", "random", "binding")


def measure(name: str, split: str, seed: int, scenes: int, kinds: Sequence[str] = PRESENCE) -> list[dict[str, Any]]:
    """One record per answer: evidence, image share, whether it is right."""
    vlm, records = va.load(name), []
    for index in range(scenes):
        scene, questions = split_item(split, seed, index)
        for question in questions:
            if question.kind not in kinds:
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


def tables(train: list[dict[str, Any]], test: list[dict[str, Any]], rule: VerdictRule) -> dict[str, Any]:
    """One table for what was fitted on, one for each split, and one for all that was measured."""
    parts = {"fitted on": train} | {split: [r for r in test if r["split"] == split] for split in SPLITS}
    return {title: table(train, part, rule) for title, part in (parts | {"all": test}).items() if part}


def table(train: list[dict[str, Any]], part: list[dict[str, Any]], rule: VerdictRule) -> dict[str, Any]:
    """How good the rule and others are on a part."""
    right = [r["right"] for r in train]
    truth = np.array([r["right"] for r in part])

    def by(number: Callable[[dict[str, Any]], float]) -> np.ndarray:
        return alone([number(r) for r in train], right, [number(r) for r in part])

    rows = [
        judged("deletion test and log-probability", np.array([rule.chance(evidence_of(r)) for r in part]), part),
        judged("deletion test alone", by(lambda r: evidence_of(r).excess), part),
        judged("log-probability alone", by(lambda r: r["evidence"]["log_probability"]), part),
        judged("image share alone", by(lambda r: r["share"]), part),
        judged("always the more frequent", np.full(len(part), float(np.mean(right))), part),
    ]
    for row in rows[1:]:
        row["p"] = mcnemar(row["hits"], rows[0]["hits"])
    said = [rule.verdict(evidence_of(r)) for r in part]
    decided = np.array([v != "unclear" for v in said])
    agreed = np.array([(v == "supported") == t for v, t in zip(said, truth, strict=True)])
    return {
        "rows": [{k: v for k, v in row.items() if k != "hits"} for row in rows],
        "right": float(truth.mean()),
        "unclear": float(1 - decided.mean()),
        "decided_accuracy": float(agreed[decided].mean()) if decided.any() else float("nan"),
    }


def markdown(found: dict[str, Any], command: str) -> str:
    """The report as a page."""
    weights = found["rule"]
    lines = ["# Verdicts, measured", "", f"Written by `{command}`; do not edit.", ""]
    lines += [
        "*Yes* to a question about presence is supported if the thing is there; see the script. Fitted rule: bias "
        f"{weights['bias']:.3f}, excess {weights['excess']:.3f}, log-probability {weights['log_probability']:.3f}. "
        "Intervals are bootstrapped by scene; p compares with the first line (exact McNemar).",
    ]
    for title, one in found["tables"].items():
        said = f"{one['rows'][0]['n']} claims, {one['right']:.2f} of them true. Verdicts: {one['unclear']:.2f} "
        lines += ["", f"## {title}", "", said + f"unclear; of the others {one['decided_accuracy']:.2f} right.", ""]
        lines += ["| by | accuracy | AUROC | calibration error | p |", "|---|---|---|---|---|"]
        for row in one["rows"]:
            p = "" if "p" not in row else f"{row['p']:.2g}"
            span = f"{row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            lines.append(f"| {row['rule']} | {span} | {row['auroc']:.3f} | {row['error']:.3f} | {p} |")
    curve = found["tables"]["all"]["rows"][0]["curve"]
    lines += ["", "## Calibration, all", "", "| chance told | came true | answers |", "|---|---|---|"]
    lines += [f"| {t:.2f} | {c:.2f} | {n} |" for t, c, n in zip(*curve, strict=True)]
    others = found["others"]
    lines += ["", "## Answers about things that are there", ""]
    lines += [
        f"{others['n']} answers about colour, shape, size and place, {others['wrong']} of them wrong. That a right one "
        f"has a higher score than a wrong one: {others['excess']:.2f} by the deletion test, "
        f"{others['log_probability']:.2f} by log-probability (0.5 is chance). A thing that is seen wrongly is looked "
        "at all the same, and the answer rests on it: the verdict tells claims without anything behind them, not "
        "mistakes about what is there."
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=80, help="of each split, seed and model")
    parser.add_argument("--others", type=int, default=40, help="scenes with other questions")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    train, test, others = [], [], []
    for name in MODELS:
        for split in SPLITS:
            train += measure(name, split, 1, given.scenes)
            test += measure(name, split, 0, given.scenes)
            print(name, split, len(train), len(test), flush=True)
        others += measure(name, "test", 0, given.others, OTHERS)
    rule = fit_verdict([evidence_of(r) for r in train], [r["right"] for r in train], source=f"{len(train)} claims")
    right = np.array([r["right"] for r in others])
    found: dict[str, Any] = {
        "rule": {"bias": rule.bias, "excess": rule.excess, "log_probability": rule.log_probability},
        "tables": tables(train, test, rule),
        "others": {
            "n": len(others),
            "wrong": int((~right).sum()),
            "excess": auroc(np.array([evidence_of(r).excess for r in others]), right),
            "log_probability": auroc(np.array([r["evidence"]["log_probability"] for r in others]), right),
        },
    }
    print(json.dumps(found["rule"]))
    if given.json:
        given.json.write_text(
            json.dumps({"fitted": train, "measured": test, "others": others, **found}, indent=1) + "\n",
            encoding="utf-8",
        )
    text = markdown(
        found,
        f"python benchmarks/grounding.py --scenes {given.scenes} --others {given.others} --markdown docs/grounding.md",
    )
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
