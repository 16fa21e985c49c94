"""Sinks: what finding them costs, and what removing or taming them does to the models in the box.

``python benchmarks/sinks.py --json sinks.json --markdown docs/sinks.md`` measures both; ``--no-cost`` and
``--no-study`` leave one out, ``--scenes`` says on how many scenes of each split. Cost: CPU time of a generation that
keeps answer rows and finds sinks, over the same less what is spent on the residual statistics and on finding; and over
runs without them, taking turns in one process. Study: questions about colour and shape; layers of maps (sinks removed)
and settings of VAR (answers and raw maps together) are chosen on the validation split and measured on the test split;
every row is paired with the same questions of the unchanged model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.capture import build, prompt
from benchmarks.paired import cpu_seconds, difference, mcnemar
from vlmattn.capture import CaptureSpec, Session
from vlmattn.capture.hidden import HiddenLog
from vlmattn.core.provenance import Provenance
from vlmattn.grid import cell_coverage
from vlmattn.maps import raw_attention
from vlmattn.scene import split_item
from vlmattn.scene.box import SINK_PATCHES
from vlmattn.sinks import SinkCoordinates, Sinks, background_test, massive_sinks, with_sinks
from vlmattn.steering import VAR
from vlmattn.trace.trace import trace_from_kept

MODELS = ("scene", "scene-sinks", "scene-sinks-strong")
GRID = [
    {"p": p, "rho": rho, "except_last_layer": last}
    for p in (0.6, 0.0)
    for rho in (0.8, 0.5, 0.0)
    for last in (True, False)
]
CONTROL = [{"p": p, "except_last_layer": last} for p in (0.6, 0.0) for last in (True, False)]
PAPERS = {"p": 0.6, "rho": 0.5, "except_last_layer": True}
_MAPS = (
    "VAR leaves sinks the share p of what they drew, so where they drew most of a row, the raw map can still peak on "
    "them at the paper's p = 0.6 although the answers are back; p = 0 takes them out of the map too, and so does "
    "removing them from the map of the corrected model. Heads that give sinks more than 1 - rho of what they give the "
    "picture are left as they are: where sinks draw that much in every head, VAR with that rho changes nothing."
)

Case = tuple[Any, Any]

# -- cost --------------------------------------------------------------------------------------------------------------


def cost(images: int, new: int, pairs: int, layers: int) -> dict[str, Any]:
    """What finding sinks adds to a generation: CPU time spent in it over the rest of the same runs, and, noisier, the
    median ratio to runs without it over pairs of turns."""
    model = build("sdpa", layers)
    inputs, layout = prompt(images)
    where = SinkCoordinates((3, 77), 1024)
    plain = CaptureSpec(rows="answer", top_k=0)
    finding = replace(plain, hidden=True, hidden_coords=where.coordinates)

    def run(spec: CaptureSpec) -> Callable[[], int]:
        def once() -> int:
            with Session(model, [layout], spec, max_new_tokens=new) as session:
                model.generate(**inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False)
            trace = trace_from_kept(session.finish()[0], layout, Provenance())
            return len(find(trace, where).tokens) if spec.hidden else 0

        return once

    spent: list[float] = []
    find = _clocked(massive_sinks, spent)
    modes = (run(plain), run(finding))
    cpu_seconds(modes[1])
    ratios, shares = [], []
    with _clocks(HiddenLog, ("add", "stats"), spent):
        for turn in range(pairs):
            spent.clear()
            order = modes if turn % 2 else modes[::-1]
            whole = {id(one): cpu_seconds(one) for one in order}
            ratios.append(whole[id(modes[1])] / whole[id(modes[0])])
            shares.append(1 + sum(spent) / (whole[id(modes[1])] - sum(spent)))
    shape = {"tokens": len(layout), "new": new, "layers": layers, "pairs": pairs}
    return shape | {"spent": _middle(shares), "ratio": _middle(ratios)}


def _middle(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _clocked(work: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return work(*args, **options)
        finally:
            spent.append(time.process_time() - start)

    return timed


@contextmanager
def _clocks(owner: type, names: Sequence[str], spent: list[float]) -> Iterator[None]:
    """Time all calls of some methods of a class meanwhile."""
    plain = {name: getattr(owner, name) for name in names}
    for name, work in plain.items():
        setattr(owner, name, _clocked(work, spent))
    try:
        yield
    finally:
        for name, work in plain.items():
            setattr(owner, name, work)


# -- study -------------------------------------------------------------------------------------------------------------


@cache
def held(name: str) -> va.Vlm:
    """A model in the box, calibrated once."""
    vlm = va.load(name)
    vlm.known_sinks()
    return vlm


@cache
def cases(split: str, scenes: int) -> list[Case]:
    """Questions about colour and shape."""
    found = [split_item(split, 0, i) for i in range(scenes)]
    return [(scene, q) for scene, questions in found for q in questions if q.kind in ("color", "shape")]


def asked(vlm: va.Vlm, part: Sequence[Case], steering: Sequence[va.Steering] = (), batch: int = 16) -> list[va.Run]:
    """All questions, with what sinks are found by."""
    spec = CaptureSpec(rows="answer", top_k=0, hidden=True, hidden_coords=vlm.known_sinks().coordinates)
    runs: list[va.Run] = []
    for first in range(0, len(part), batch):
        items = [(scene.image, q.text) for scene, q in part[first : first + batch]]
        runs += vlm.ask_many(items, capture=spec, steering=steering, max_new_tokens=4)
    return runs


def right(runs: Sequence[va.Run], part: Sequence[Case]) -> list[bool]:
    """Whether each answer is the expected one."""
    return [run.answer.casefold() == q.answer for run, (_, q) in zip(runs, part, strict=True)]


def pointing(
    runs: Sequence[va.Run], part: Sequence[Case], layer: int | None, marks: Sequence[Sinks] | None
) -> list[bool]:
    """Whether the highest patch of the first answer token touches the object; ``marks`` are dropped first."""
    hits = []
    for number, (run, (scene, question)) in enumerate(zip(runs, part, strict=True)):
        trace = run.trace if marks is None else with_sinks(run.trace, marks[number], "drop")
        values = raw_attention(trace, 0, layers=layer).values[0]
        hits.append(bool(_inside(run, scene, question).ravel()[values.argmax()]))
    return hits


def _inside(run: va.Run, scene: Any, question: Any) -> np.ndarray:
    box = tuple(float(v) for v in scene.objects[question.targets[0]].box_xyxy)
    return cell_coverage(run.trace.layout.images[0], box)[0] > 0


def found_in(vlm: va.Vlm, runs: Sequence[va.Run]) -> list[Sinks]:
    """Sinks by massive activations, run by run."""
    return [massive_sinks(run.trace, vlm.known_sinks()) for run in runs]


def random_marks(found: Sequence[Sinks], seed: int = 0) -> list[Sinks]:
    """As many random patches as there are visual sinks (two where there are none), none of them a sink."""
    rng, out = np.random.default_rng(seed), []
    for one in found:
        patches = one.layout.image_positions
        own = [t.position for t in one.visual]
        drawn = rng.choice(np.setdiff1d(patches, own), len(own) or len(SINK_PATCHES), replace=False)
        mask = np.zeros_like(one.is_sink_ln)
        mask[:, drawn] = True
        out.append(replace(one, is_sink_ln=mask))
    return out


def chosen_settings(vlm: va.Vlm, part: Sequence[Case], heads: str, layer: int | None) -> dict[str, Any]:
    """The settings of VAR with the most right answers and hits of the raw map, summed, on the validation split; of
    equals, the first, which changes least."""
    grid = GRID if heads == "centric" else CONTROL
    if not vlm.known_sinks().found:  # they all do the same: nothing
        return grid[0]
    scores = []
    for options in grid:
        runs = asked(vlm, part, [VAR(**options, heads=heads)])
        scores.append(sum(right(runs, part)) + sum(pointing(runs, part, layer, None)))
    return grid[int(np.argmax(scores))]


def study(name: str, scenes: int) -> list[dict[str, Any]]:
    """Rows of one model."""
    vlm = held(name)
    validation, test = cases("validation", max(scenes // 2, 4)), cases("test", scenes)
    before, runs = asked(vlm, validation), asked(vlm, test)
    marks, there = found_in(vlm, before), found_in(vlm, runs)
    layers = (None, *before[0].trace.layers)
    layer = max(layers, key=lambda one: np.mean(pointing(before, validation, one, marks)))
    plain = (right(runs, test), pointing(runs, test, layer, None))
    said = f"layer {layer}" if layer is not None else "all layers"
    rows = [_row(name, "unchanged", said, plain, plain)]
    for what, dropped in (("sinks removed", there), ("as many random patches removed", random_marks(there))):
        rows.append(_row(name, what, said, plain, (plain[0], pointing(runs, test, layer, dropped))))
    best = chosen_settings(vlm, validation, "centric", layer)
    settings = {"VAR, chosen": ("centric", best), "VAR, chosen, but p as in the paper": ("centric", best | {"p": 0.6})}
    settings |= {"VAR, the paper's for hallucination": ("centric", PAPERS)}
    settings |= {"VAR in all heads, chosen (control)": ("all", chosen_settings(vlm, validation, "all", layer))}
    for what, (heads, options) in settings.items():
        mended = asked(vlm, test, [VAR(**options, heads=heads)])
        told = ", ".join(f"{k}={v}" for k, v in options.items()) + f"; {said}"
        answers, left = right(mended, test), found_in(vlm, mended)
        rows.append(_row(name, what, told, plain, (answers, pointing(mended, test, layer, None))))
        if heads == "centric":
            cleared = pointing(mended, test, layer, left)
            rows.append(_row(name, f"{what}; sinks removed", told, plain, (answers, cleared)))
    return rows


def _row(name: str, what: str, said: str, plain: tuple[Any, Any], now: tuple[Any, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "change": what, "settings": said, "questions": len(plain[0])}
    for measure, before, after in zip(("right", "pointing"), plain, now, strict=True):
        row[measure] = float(np.mean(after))
        row[f"{measure}_change"] = difference(before, after)
        row[f"{measure}_p"] = mcnemar(before, after)
    return row


def chances(scenes: int) -> dict[str, float]:
    """What no look at all would score: a random object's attribute, a random patch on the object."""
    part = cases("test", scenes)
    vlm = held("scene")
    layouts = [vlm.plan(scene.image, q.text)[0] for scene, q in part]
    patch, answer = [], []
    for (scene, q), layout in zip(part, layouts, strict=True):
        box = tuple(float(v) for v in scene.objects[q.targets[0]].box_xyxy)
        patch.append(float((cell_coverage(layout.images[0], box)[0] > 0).mean()))
        answer.append(float(np.mean([getattr(o, q.kind) == q.answer for o in scene.objects])))
    return {"pointing": float(np.mean(patch)), "right": float(np.mean(answer))}


def detection(name: str, scenes: int) -> dict[str, Any]:
    """Recall and precision over (patch, layer) pairs against what was planted, the calibration, and the background."""
    vlm, part = held(name), cases("test", scenes)
    runs = asked(vlm, part)
    planted = 0 if name == "scene" else 1
    hit = wrong = missed = on = total = 0
    expected = []
    for (scene, _), run, found in zip(part, runs, found_in(vlm, runs), strict=True):
        truth = np.zeros((len(run.trace.layers), found.is_sink_ln.shape[1]), dtype=bool)
        truth[1:, run.trace.layout.image_positions[list(SINK_PATCHES)]] = bool(planted)
        got = np.zeros_like(truth)
        for line, layer in enumerate(found.layers):
            got[run.trace.layers.index(layer)] = found.is_sink_ln[line]
        hit, wrong, missed = hit + (got & truth).sum(), wrong + (got & ~truth).sum(), missed + (~got & truth).sum()
        test = background_test(found, [tuple(float(v) for v in o.box_xyxy) for o in scene.objects])
        on, total = on + test.on_background, total + test.sinks
        expected.append(test.expected)
    return {
        "model": name,
        "calibration": vlm.known_sinks().said(),
        "recall": float(hit / (hit + missed)) if hit + missed else None,
        "precision": float(hit / (hit + wrong)) if hit + wrong else None,
        "false_sinks": int(wrong),
        "on_background": on / total if total else None,
        "background_expected": float(np.mean(expected)),
    }


# -- report ------------------------------------------------------------------------------------------------------------


def markdown(report: dict[str, Any], command: str) -> str:
    """The report as a page."""
    lines = ["# Sinks, measured", "", f"Written by `{command}`; do not edit.", ""]
    if report.get("cost"):
        lines += ["Finding sinks during generation, CPU time over the same generation with answer rows kept:", ""]
        lines += ["| prompt tokens | new tokens | layers | pairs | clocked within the runs | run over run |"]
        lines += ["|---|---|---|---|---|---|"]
        for one in report["cost"]:
            told = " | ".join("{:.3f} ({:.3f} to {:.3f})".format(*one[name]) for name in ("spent", "ratio"))
            lines.append(f"| {one['tokens']} | {one['new']} | {one['layers']} | {one['pairs']} | {told} |")
    if report.get("study"):
        lines += [
            "",
            "| model | calibration | recall | precision | sinks on background (random patches) |",
            "|---|---|---|---|---|",
        ]
        for one in report["detection"]:
            share = "none" if one["on_background"] is None else f"{one['on_background']:.2f}"
            lines.append(
                f"| {one['model']} | {one['calibration']} | {_two(one['recall'])} | {_two(one['precision'])} | "
                f"{share} ({one['background_expected']:.2f}) |"
            )
        chance = report["chance"]
        told = f"Right answers by chance (a random object's): {chance['right']:.2f}; pointing by a random patch: "
        told += (
            f"{chance['pointing']:.2f}. {_MAPS} Changes against the unchanged model, with 95 % bootstrap intervals and "
        )
        lines += ["", told + "exact McNemar p.", ""]
        lines += ["| model | change | settings, chosen on validation | right | change, p | pointing | change, p |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [_line(row) for row in report["study"]]
    return "\n".join(lines) + "\n"


def _two(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _line(row: dict[str, Any]) -> str:
    cells = [row["model"], row["change"], row["settings"]]
    for measure in ("right", "pointing"):
        change = row[f"{measure}_change"]
        moved = f"{change['mean']:+.2f} ({change['low']:+.2f} to {change['high']:+.2f}), {row[f'{measure}_p']:.2g}"
        cells += [f"{row[measure]:.2f}", "" if row["change"] == "unchanged" else moved]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--no-cost", action="store_true")
    parser.add_argument("--no-study", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    report: dict[str, Any] = {}
    if not given.no_cost:
        report["cost"] = [cost(1, new, given.pairs, given.layers) for new in (8, 32)]
    if not given.no_study:
        report["chance"] = chances(given.scenes)
        report["detection"] = [detection(name, given.scenes) for name in MODELS]
        report["study"] = [row for name in MODELS for row in study(name, given.scenes)]
    left_out = " --no-cost" * given.no_cost + " --no-study" * given.no_study
    sizes = f"--scenes {given.scenes} --pairs {given.pairs} --layers {given.layers}{left_out}"
    page = markdown(report, f"python benchmarks/sinks.py {sizes} --markdown docs/sinks.md")
    print(page)
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if given.markdown is not None:
        given.markdown.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
