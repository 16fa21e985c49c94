"""Does a second look help? Plain answers against CARVE, ViCrop, masks, searches, and controls, on scenes.

``python benchmarks/refinement.py --scenes 100 --write docs``. Settings are chosen on other scenes (seed 1) than the
routes are measured on (seed 0); backgrounds and phrasings of both are unseen in training. Questions are about one thing
(colour, shape, presence) on the splits ``tiny``, ``crowded`` and ``binding``; ``position`` asks where tiny things are,
which a crop alone cannot tell. Writes a table and all numbers (``refinement-study.md``, ``refinement-study.json``).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

import vlmattn as va
from benchmarks import refinement_routes as routes
from benchmarks.refinement_routes import Asked, Outcome, recipe
from vlmattn.core.files import atomic_write_text, write_json
from vlmattn.refine import FittedGate, Recipe, fit_gate

LOOKING, PLACING = ("color", "shape", "exist"), ("where", "at")
SETS = {"tiny": ("tiny", LOOKING), "crowded": ("crowded", LOOKING), "binding": ("binding", ("exist",)),
        "position": ("tiny", PLACING)}  # fmt: skip
ALONE = {"pictures": "crop", "suffix": ""}
GRID: dict[str, list[Recipe]] = {
    "peak": [recipe("peak", window_share=share) for share in (0.375, 0.5)],
    "CARVE contrast, crop": [recipe("carve-crop", floor=floor) for floor in (0.3, 1.0, 3.0)],
    "CARVE mask and crop": [recipe("carve", **ALONE, layers=None, floor=floor) for floor in (0.05, 1.0)],
    "ViCrop rel-att": [
        recipe("vicrop", **ALONE, layers=layers, window_px=84, floor=floor, floor_of="mean")
        for layers, floor in ((None, 1.0), ("vicrop", 1e-4))
    ],
    "ViCrop grad-att": [recipe("vicrop-gradient", **ALONE, layers=[layer], window_px=84) for layer in (1, 2)],
    "mask": [recipe("mask", share=share) for share in (0.2, 0.4)],
    "blur": [recipe("blur", share=share) for share in (0.2, 0.4)],
}
"""What is tried on the validation scenes, per route; the most right answers win, the first of equals."""


def chosen_on(vlm: va.Vlm, asked: Sequence[Asked]) -> dict[str, Recipe]:
    found = {}
    for name, tried in GRID.items():
        scores = [float(np.mean(routes.by_recipe(vlm, asked, one).right)) for one in tried]
        found[name] = tried[int(np.argmax(scores))]
        print(f"  validation {name}: {', '.join(f'{s:.3f}' for s in scores)}", flush=True)
    return found


def all_routes(vlm: va.Vlm, picked: dict[str, Recipe], fitted: FittedGate | None) -> dict[str, Callable[..., Outcome]]:
    """Every route by name; each takes the questions and the outcomes so far."""
    share = picked["peak"].window_share or 0.5
    found: dict[str, Callable[..., Outcome]] = {
        "plain": lambda asked, _done: routes.plain(asked),
        "control: two copies of the picture": lambda asked, _done: routes.two_copies(vlm, asked),
        "control: random crop": lambda asked, _done: routes.by_box(vlm, asked, routes.anywhere(share)),
        "control: oracle crop": lambda asked, _done: routes.by_box(vlm, asked, routes.oracle(share)),
    }
    for name, one in picked.items():
        found[name] = lambda asked, _done, one=one: routes.by_recipe(vlm, asked, one)
    for name in ("peak", "CARVE contrast, crop"):
        found[f"{name}, surer answer"] = lambda _asked, done, name=name: routes.surer(done["plain"], done[name])
    found["peak, both pictures"] = lambda asked, _done: routes.by_recipe(
        vlm, asked, picked["peak"].but(pictures="both")
    )
    found["CARVE mask, both pictures"] = lambda asked, _done: routes.by_recipe(
        vlm, asked, picked["CARVE mask and crop"].but(pictures="both")
    )
    found["ViCrop pure-grad"] = lambda asked, _done: routes.by_recipe(
        vlm, asked, recipe("vicrop-pure-gradient", **ALONE, window_px=84)
    )
    found["fade"] = lambda asked, _done: routes.by_recipe(vlm, asked, recipe("fade"))
    for rule in ("zoom", "vstar", "zoomeye"):
        found[f"search {rule}"] = lambda asked, _done, rule=rule: routes.by_search(asked, rule)
    if fitted is not None:
        found["peak, surer, gated"] = lambda asked, done: routes.gated(
            done["plain"], done["peak, surer answer"], [fitted.gate.looks_again(one.signs) for one in asked]
        )
    return found


def paired(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Two-sided exact McNemar test: chance of so uneven a split of the questions that only one of both gets right."""
    only = sum(a and not b for a, b in zip(one, other, strict=True))
    differ = sum(a != b for a, b in zip(one, other, strict=True))
    return float(binomtest(only, differ).pvalue) if differ else 1.0


def share_of_gain(one: Sequence[bool], first: Sequence[bool], best: Sequence[bool], seed: int = 0) -> list[float]:
    """Of what the oracle gains over the first answers, how much a route gains; with a bootstrap 95 % interval."""
    rng, table = np.random.default_rng(seed), np.array([one, first, best], dtype=float)

    def share(values: np.ndarray) -> float:
        gain = values[2].mean() - values[1].mean()
        return float((values[0].mean() - values[1].mean()) / gain) if gain > 0 else float("nan")

    drawn = [share(table[:, rng.integers(table.shape[1], size=table.shape[1])]) for _ in range(2000)]
    return [share(table), *np.nanquantile(drawn, [0.025, 0.975]).tolist()]


def costs(vlm: va.Vlm, asked: Sequence[Asked], found: dict[str, Callable[..., Outcome]], count: int) -> dict[str, Any]:
    """CPU time of both looks together over that of one answer, one question at a time; general pass apart."""
    spent: dict[str, list[float]] = {name: [] for name in ("one answer", *found)}
    general = []
    for one in asked[:count]:
        done: dict[str, Outcome] = {}
        start = time.process_time()
        vlm.ask(one.scene.image, one.question.text, capture=routes.SPEC, max_new_tokens=6)
        spent["one answer"].append(time.process_time() - start)
        vlm.general.clear()
        start = time.process_time()
        vlm.general.trace(vlm, one.run.request, one.run.pictures, va.maps.GENERIC_PROMPT, steps=6)
        general.append(time.process_time() - start)
        for name, route in found.items():
            start = time.process_time()
            done[name] = route([one], done)
            spent[name].append(time.process_time() - start)
    unit = float(np.mean(spent.pop("one answer")))
    spent["peak, surer answer"] = spent["peak"]
    spent["CARVE contrast, crop, surer answer"] = spent["CARVE contrast, crop"]
    factors = {name: 1 + float(np.mean(times)) / unit for name, times in spent.items()} | {"plain": 1.0}
    return {"seconds of one answer": unit, "general pass": float(np.mean(general)) / unit, "factor": factors}


def measured(
    asked: Sequence[Asked], found: dict[str, Callable[..., Outcome]], name: str
) -> tuple[dict[str, Any], dict[str, Outcome]]:
    done: dict[str, Outcome] = {}
    for route, answer in found.items():
        start = time.perf_counter()
        done[route] = answer(asked, done)
        accuracy = float(np.mean(done[route].right))
        print(f"  {name} {route}: {accuracy:.3f} ({time.perf_counter() - start:.0f} s)", flush=True)
    plain, chance = done["plain"].right, done["control: random crop"].right
    best = done["control: oracle crop"].right
    rows = {
        route: {
            "accuracy": float(np.mean(out.right)),
            "p against plain": paired(out.right, plain),
            "p against random crop": paired(out.right, chance),
            "share of the oracle's gain": share_of_gain(out.right, plain, best),
            "looks": float(np.mean(out.looks)),
        }
        for route, out in done.items()
    }
    return {"questions": len(asked), "routes": rows}, done


def study(model: str, scenes: int) -> dict[str, Any]:
    vlm = va.load(model)
    validation = routes.first_looks(vlm, routes.cases("tiny", 1, max(scenes * 2 // 3, 1), LOOKING))
    picked = chosen_on(vlm, validation)
    first = routes.plain(validation)
    second = routes.surer(first, routes.by_recipe(vlm, validation, picked["peak"]))
    fitted = fit_gate([one.signs for one in validation], first.right, second.right, name=f"{model}, peak, surer")
    found = all_routes(vlm, picked, fitted)
    result: dict[str, Any] = {
        "model": model, "scenes": scenes, "validation questions": len(validation),
        "settings": {name: one.described() for name, one in picked.items()},
        "gate": fitted.to_dict(), "sets": {},
    }  # fmt: skip
    for name, (split, kinds) in SETS.items():
        count = scenes if name == "tiny" else max(scenes // 2, 1)
        asked = routes.first_looks(vlm, routes.cases(split, 0, count, kinds))
        result["sets"][name], _ = measured(asked, found, name)
        again = float(np.mean([fitted.gate.looks_again(one.signs) for one in asked]))
        result["sets"][name]["gate looked again"] = again
        if name == "tiny":
            result["cost"] = costs(vlm, asked, found, 24)
            factor = result["cost"]["factor"]
            factor["peak, surer, gated"] = 1 + again * (factor["peak"] - 1)
    return result


def sinks(scenes: int) -> dict[str, Any]:
    """Where a sink draws the look away, contrast has something to divide out: the model with planted sinks."""
    vlm = va.load("scene-sinks")
    asked = routes.first_looks(vlm, routes.cases("tiny", 0, scenes, LOOKING))
    tried = {"peak": recipe("peak")} | {
        f"CARVE contrast, crop, λ {floor:g}": recipe("carve-crop", floor=floor) for floor in (0.05, 1.0)
    }
    found: dict[str, Callable[..., Outcome]] = {
        "plain": lambda asked, _done: routes.plain(asked),
        "control: random crop": lambda asked, _done: routes.by_box(vlm, asked, routes.anywhere(0.5)),
        "control: oracle crop": lambda asked, _done: routes.by_box(vlm, asked, routes.oracle(0.5)),
    }
    for name, one in tried.items():
        found[name] = lambda asked, _done, one=one: routes.by_recipe(vlm, asked, one)
        found[f"{name}, surer answer"] = lambda _asked, done, name=name: routes.surer(done["plain"], done[name])
    return measured(asked, found, "scene-sinks")[0]


def table(result: dict[str, Any]) -> str:
    """The study in Markdown."""
    sets, factor = result["sets"], result["cost"]["factor"]
    head = "| route | " + " | ".join(f"{n} ({s['questions']})" for n, s in sets.items())
    lines = [
        "# Study: does a second look help?", "",
        f"Model `{result['model']}`; command `python benchmarks/refinement.py --model {result['model']} --scenes "
        f"{result['scenes']} --write docs`. Share of right answers (number of questions). On `tiny`: p of the exact "
        "paired test against the plain answer and against the random crop; of what the oracle crop gains, how much the "
        "route gains, with a bootstrap 95 % interval; CPU time of both looks over that of one answer, without the "
        f"general pass, which costs {result['cost']['general pass']:.1f} answers once per picture (CARVE, ViCrop "
        "rel-att).", "",
        f"{head} | p, plain | p, random | of the oracle's gain | cost |",
        "|---" * (len(sets) + 5) + "|",
    ]  # fmt: skip
    for route, row in sets["tiny"]["routes"].items():
        cells = [f"{s['routes'][route]['accuracy']:.3f}" for s in sets.values()]
        gain = row["share of the oracle's gain"]
        told = f"{gain[0]:.0%} ({gain[1]:.0%} to {gain[2]:.0%})"
        cells += [f"{row['p against plain']:.2g}", f"{row['p against random crop']:.2g}", told]
        lines.append(f"| {route} | {' | '.join(cells)} | {factor[route]:.1f} |")
    gate = result["gate"]
    lines += [
        "", f"The gate, fitted on {result['validation questions']} validation questions, looked again at "
        + ", ".join(f"{s['gate looked again']:.0%} ({n})" for n, s in sets.items())
        + f" of the questions; on validation it saved {gate['saved']:.0%} of the second looks.", "",
        "Settings chosen on validation:", "",
    ]  # fmt: skip
    lines += [f"* {name}: {_settings(one)}" for name, one in result["settings"].items()]
    if "sinks" in result:
        lines += ["", f"`scene-sinks`, tiny things, {result['sinks']['questions']} questions:", "",
                  "| route | right | p, plain | of the oracle's gain |", "|---|---|---|---|"]  # fmt: skip
        for route, row in result["sinks"]["routes"].items():
            gain = row["share of the oracle's gain"][0]
            lines.append(f"| {route} | {row['accuracy']:.3f} | {row['p against plain']:.2g} | {gain:.0%} |")
    return "\n".join(lines) + "\n"


def _settings(one: dict[str, Any]) -> str:
    names = ("layers", "floor", "share", "window_share", "window_px")
    return ", ".join(f"{name} {one[name]}" for name in names if one[name] is not None)


def main() -> None:
    """Run the study, print the table, and write both files if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--model", default="scene")
    parser.add_argument("--write", type=Path, help="folder for refinement-study.md and refinement-study.json")
    given = parser.parse_args()
    result = study(given.model, given.scenes)
    result["sinks"] = sinks(max(given.scenes // 2, 1))
    text = table(result)
    print(text)
    if given.write:
        write_json(given.write / "refinement-study.json", result)
        atomic_write_text(given.write / "refinement-study.md", text)


if __name__ == "__main__":
    main()
