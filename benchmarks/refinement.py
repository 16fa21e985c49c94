"""Does a second look help? Plain answers against CARVE, ViCrop, masks, searches, and controls, on scenes.

``python benchmarks/refinement.py --scenes 120 --write docs``. Settings, the gate, and the route that is named best are
chosen on other scenes (seed 1) than the routes are measured on (seed 0); backgrounds and phrasings of both are unseen
in training. Questions are about one thing (colour, shape, presence) on the splits ``tiny``, ``crowded`` and
``binding``; ``position`` asks where tiny things are, which a crop alone cannot tell. Writes a table and all numbers
(``refinement-study.md``, ``refinement-study.json``).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks import refinement_routes as routes
from benchmarks.paired import mcnemar
from benchmarks.refinement_routes import Asked, Outcome, recipe
from benchmarks.refinement_table import table
from vlmattn.core.files import atomic_write_text, write_json
from vlmattn.refine import FittedGate, Recipe, fit_gate

LOOKING, PLACING = ("color", "shape", "exist"), ("where", "at")
SETS = {"tiny": ("tiny", LOOKING, 1), "crowded": ("crowded", LOOKING, 4), "binding": ("binding", ("exist",), 3),
        "position": ("tiny", PLACING, 3)}  # fmt: skip
"""Split, kinds of questions, and on how few of the scenes: one in so many."""
ALONE = {"pictures": "crop", "suffix": ""}
COSTED = 12
Route = Callable[[Sequence[Asked], dict[str, Outcome]], Outcome]


def grid(depth: int) -> dict[str, list[Recipe]]:
    """What is tried on the validation scenes, per route; the most right answers win, the first of equals."""
    layers = [None, *([n] for n in range(depth // 4, depth))]
    return {
        "peak": [recipe("peak", layers=n, window_share=share) for n in layers for share in (0.375, 0.5)],
        "CARVE contrast, crop": [recipe("carve-crop", floor=floor) for floor in (0.1, 0.3, 1.0, 3.0)],
        "CARVE mask and crop": [recipe("carve", **ALONE, layers=None, floor=floor) for floor in (0.05, 1.0)],
        "ViCrop rel-att": [
            recipe("vicrop", **ALONE, layers=n, window_px=84, floor=floor, floor_of="mean")
            for n, floor in ((None, 1.0), ("vicrop", 1.0), ("vicrop", 1e-4))
        ],
        "ViCrop grad-att": [recipe("vicrop-gradient", **ALONE, layers=n, window_px=84) for n in layers[1:]],
        "mask": [recipe("mask", share=share) for share in (0.2, 0.4)],
        "blur": [recipe("blur", share=share) for share in (0.2, 0.4)],
    }  # fmt: skip


SURER = ("peak", "CARVE contrast, crop", "CARVE mask and crop", "ViCrop rel-att", "ViCrop grad-att")
SEARCHED = ("zoom", "vstar", "zoomeye")
FEW = {"ViCrop pure-grad": ("tiny",)}
"""Routes that are measured on some sets only, being dear."""


@dataclass(frozen=True)
class Chosen:
    """What validation decides. ``best``: the route with the most right answers. ``gate``: of the best route by a crop,
    surer answer (``gated``)."""

    picked: dict[str, Recipe]
    best: str
    accuracies: dict[str, float]
    gated: str
    gate: FittedGate
    questions: int


def chosen_on(vlm: va.Vlm, asked: Sequence[Asked], name: str) -> Chosen:
    """Settings of each recipe, the best route and a gate, by validation questions."""
    first = routes.plain(asked)
    picked: dict[str, Recipe] = {}
    done: dict[str, Outcome] = {}
    for route, tried in grid(len(vlm.describe()["layers"])).items():
        outcomes = [routes.by_recipe(vlm, asked, one) for one in tried]
        scores = [out.accuracy for out in outcomes]
        picked[route], done[route] = tried[int(np.argmax(scores))], outcomes[int(np.argmax(scores))]
        print(f"  validation {route}: {', '.join(f'{s:.3f}' for s in scores)}", flush=True)
    surer = {f"{route}, surer answer": routes.surer(first, done[route]) for route in SURER}
    # Of equals, those that may keep the first answer come first.
    done = surer | {f"search {rule}": routes.by_search(asked, rule) for rule in SEARCHED} | done
    accuracies = {route: out.accuracy for route, out in done.items()}
    gated = max(surer, key=lambda route: accuracies[route])
    fitted = fit_gate([one.signs for one in asked], first.right, surer[gated].right, name=f"{name}: {gated}")
    return Chosen(picked, max(accuracies, key=lambda r: accuracies[r]), accuracies, gated, fitted, len(asked))


def all_routes(vlm: va.Vlm, chosen: Chosen) -> dict[str, Route]:
    """Every route by name; each takes the questions and the outcomes so far."""
    share, picked = chosen.picked["peak"].window_share or 0.5, chosen.picked
    found: dict[str, Route] = {
        "plain": lambda asked, _: routes.plain(asked),
        "control: two copies of the picture": lambda asked, _: routes.two_copies(vlm, asked),
        "control: random crop": lambda asked, _: routes.by_box(vlm, asked, routes.anywhere(share)),
        "control: oracle crop": lambda asked, _: routes.by_box(vlm, asked, routes.oracle(share)),
    }
    further = {
        "peak, both pictures": picked["peak"].but(pictures="both"),
        "CARVE mask, both pictures": picked["CARVE mask and crop"].but(pictures="both"),
        "ViCrop rel-att, both pictures": picked["ViCrop rel-att"].but(pictures="both"),
        "ViCrop pure-grad": recipe("vicrop-pure-gradient", **ALONE, window_px=84),
        "fade": recipe("fade"),
    }
    for name, one in (picked | further).items():
        found[name] = lambda asked, _, one=one: routes.by_recipe(vlm, asked, one)
    for name in SURER:
        found[f"{name}, surer answer"] = lambda _, done, name=name: routes.surer(done["plain"], done[name])
    for rule in SEARCHED:
        found[f"search {rule}"] = lambda asked, _, rule=rule: routes.by_search(asked, rule)
    found[f"{chosen.gated}, gated"] = lambda asked, done: routes.gated(
        done["plain"], done[chosen.gated], [chosen.gate.gate.looks_again(one.signs) for one in asked]
    )
    return found


def share_of_gain(
    one: Sequence[bool], first: Sequence[bool], best: Sequence[bool], seed: int = 0
) -> list[float] | None:
    """Of what the oracle gains over the first answers, how much a route gains, with a bootstrap 95 % interval over the
    samples where it gains; None where it does not gain."""
    rng, table = np.random.default_rng(seed), np.array([one, first, best], dtype=float)

    def share(values: np.ndarray) -> float:
        gain = values[2].mean() - values[1].mean()
        return float((values[0].mean() - values[1].mean()) / gain) if gain > 0 else float("nan")

    if np.isnan(share(table)):
        return None
    drawn = [share(table[:, rng.integers(table.shape[1], size=table.shape[1])]) for _ in range(2000)]
    return [share(table), *np.nanquantile(drawn, [0.025, 0.975]).tolist()]


def costs(vlm: va.Vlm, asked: Sequence[Asked], found: dict[str, Route], count: int) -> dict[str, Any]:
    """CPU time of both looks together over that of one answer, one question at a time; general pass apart."""
    spent: dict[str, list[float]] = {name: [] for name in ("one answer", *found)}
    general: list[float] = []
    slopes: list[float] = []
    for one in asked[:count]:
        done: dict[str, Outcome] = {}
        start = time.process_time()
        vlm.ask(one.scene.image, one.question.text, capture=routes.SPEC, max_new_tokens=6)
        spent["one answer"].append(time.process_time() - start)
        vlm.general.clear()
        start = time.process_time()
        steps = max(len(one.run.trace.answer_tokens), 1)
        vlm.general.trace(vlm, one.run.request, one.run.pictures, va.maps.GENERIC_PROMPT, steps=steps)
        general.append(time.process_time() - start)
        start = time.process_time()
        vlm.general.slopes(vlm, one.run.request, one.run.pictures, va.maps.GENERIC_PROMPT, image=0)
        slopes.append(time.process_time() - start)
        for name, route in found.items():
            start = time.process_time()
            done[name] = route([one], done)
            spent[name].append(time.process_time() - start)
    unit = float(np.mean(spent.pop("one answer")))
    for name in SURER:
        spent[f"{name}, surer answer"] = spent[name]
    factors = {name: 1 + float(np.mean(times)) / unit for name, times in spent.items()} | {"plain": 1.0}
    return {
        "seconds of one answer": unit, "general pass": float(np.mean(general)) / unit,
        "general gradient": float(np.mean(slopes)) / unit, "factor": factors,
    }  # fmt: skip


def measured(asked: Sequence[Asked], found: dict[str, Route], name: str) -> dict[str, Any]:
    """Accuracy of every route, compared with the plain answers, the random and the oracle crop."""
    done: dict[str, Outcome] = {}
    for route, answer in found.items():
        if name not in FEW.get(route, (name,)):
            continue
        start = time.process_time()
        done[route] = answer(asked, done)
        print(f"  {name} {route}: {done[route].accuracy:.3f} ({time.process_time() - start:.0f} s of CPU)", flush=True)
    plain, chance = done["plain"].right, done["control: random crop"].right
    best = done["control: oracle crop"].right
    rows = {
        route: {
            "accuracy": out.accuracy,
            "p against plain": mcnemar(plain, out.right),
            "p against random crop": mcnemar(chance, out.right),
            "share of the oracle's gain": share_of_gain(out.right, plain, best),
            "looks": float(np.mean(out.looks)),
        }
        for route, out in done.items()
    }
    return {"questions": len(asked), "routes": rows}


def one_set(model: str, scenes: int, chosen: Chosen, name: str) -> dict[str, Any]:
    """All routes on one set; a job of a process of its own."""
    vlm = loaded(model)
    split, kinds, few = SETS[name]
    asked = routes.first_looks(vlm, routes.cases(split, 0, max(scenes // few, 1), kinds))
    found = measured(asked, all_routes(vlm, chosen), name)
    return found | {"gate looked again": float(np.mean([chosen.gate.gate.looks_again(one.signs) for one in asked]))}


def loaded(model: str) -> va.Vlm:
    """The model, on one thread."""
    import torch

    torch.set_num_threads(1)  # the model is small: two processes are faster than two threads
    return va.load(model)


def study(model: str, scenes: int, jobs: int) -> dict[str, Any]:
    """Choose on validation, measure on test scenes, time."""
    vlm = loaded(model)
    validation = routes.first_looks(vlm, routes.cases("tiny", 1, max(scenes // 2, 1), LOOKING))
    chosen = chosen_on(vlm, validation, model)
    tasks: list[partial[dict[str, Any]]] = [partial(one_set, model, scenes, chosen, name) for name in SETS]
    tasks.append(partial(sinks, scenes // 3))
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = [job.result() for job in [pool.submit(task) for task in tasks]]
    result: dict[str, Any] = {
        "model": model, "scenes": scenes, "validation questions": chosen.questions,
        "validation": chosen.accuracies, "best on validation": chosen.best,
        "settings": {name: one.described() for name, one in chosen.picked.items()},
        "gate": chosen.gate.to_dict(), "sets": dict(zip(SETS, found, strict=False)), "sinks": found[-1],
        "cost": costs(vlm, validation, all_routes(vlm, chosen), COSTED),
    }  # fmt: skip
    factor, again = result["cost"]["factor"], result["sets"]["tiny"]["gate looked again"]
    factor[f"{chosen.gated}, gated"] = 1 + again * (factor[chosen.gated] - 1)
    return result


def sinks(scenes: int) -> dict[str, Any]:
    """Where a sink draws the look away, contrast has something to divide out: the model with planted sinks."""
    vlm = loaded("scene-sinks")
    asked = routes.first_looks(vlm, routes.cases("tiny", 0, max(scenes, 1), LOOKING))
    tried = {"peak": recipe("peak")} | {
        f"CARVE contrast, crop, λ {floor:g}": recipe("carve-crop", floor=floor) for floor in (0.05, 1.0)
    }
    found: dict[str, Route] = {
        "plain": lambda asked, _: routes.plain(asked),
        "control: random crop": lambda asked, _: routes.by_box(vlm, asked, routes.anywhere(0.5)),
        "control: oracle crop": lambda asked, _: routes.by_box(vlm, asked, routes.oracle(0.5)),
    }
    for name, one in tried.items():
        found[name] = lambda asked, _, one=one: routes.by_recipe(vlm, asked, one)
        found[f"{name}, surer answer"] = lambda _, done, name=name: routes.surer(done["plain"], done[name])
    return measured(asked, found, "scene-sinks")


def main() -> None:
    """Run the study, print the table, and write both files if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--model", default="scene")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 5), help="processes at once")
    parser.add_argument("--write", type=Path, help="folder for refinement-study.md and refinement-study.json")
    given = parser.parse_args()
    result = study(given.model, given.scenes, given.jobs)
    text = table(result)
    print(text)
    if given.write:
        write_json(given.write / "refinement-study.json", result)
        atomic_write_text(given.write / "refinement-study.md", text)


if __name__ == "__main__":
    main()
