"""Every mitigation on the models in the box: false *yes*, CHAIR and recall, paired with plain answers, with controls.

``python -m benchmarks.mitigation --model scene-prior --json docs/mitigation-scene-prior.json --markdown
docs/mitigation-scene-prior.md`` (about twenty minutes of one core a model). The settings of each method are
chosen on scenes of seed 1, by right answers to questions of presence, and measured on scenes of seed 0. Heads and
detectors are found on seed 1, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from benchmarks.mitigation_base import Answers, Asked, Route, pictures, presence, right, steered
from benchmarks.mitigation_calibrated import by_calibration, by_search
from benchmarks.mitigation_shipped import Shipped
from benchmarks.mitigation_table import page
from vlmattn.core.errors import SpecError, VlmattnError
from vlmattn.core.files import atomic_write_text
from vlmattn.evaluate import DetectionPlan, measure_detection
from vlmattn.scene import Scene
from vlmattn.scene.captions import mentioned
from vlmattn.steering import ADHH, ScaleHeads, steering_of

SPLITS = ("random", "popular", "adversarial")
GRID: dict[str, tuple[str, ...]] = {
    "PAI": ("pai:alpha=0.2,first_layer=1", "pai:alpha=0.5,first_layer=1", "pai:alpha=1.0,first_layer=1"),
    "HGAI": ("hgai:alpha=0.2", "hgai:alpha=0.5", "hgai:alpha=1.0"),
    "VAF": ("vaf", "vaf:enhance=1.5,suppress=0.7"),
    "SPIN": ("spin", "spin:keep=0.9,factor=0.5"),
    "EAH": ("eah:tau=0.002", "eah:tau=0.01"),
    "ACT": ("act", "act:beta=0.8"),
    "VHR": ("vhr:alpha=1.25", "vhr:alpha=1.5", "vhr:alpha=2.0"),
    "PAINT": ("paint", "paint:alpha=0.3,beta=0.1"),
    "VAR": ("var",),
    "VCD": ("vcd:alpha=0.5", "vcd:alpha=1.0", "vcd:alpha=2.0", "vcd:alpha=1.0,noise_step=200"),
    "ICD": ("icd:alpha=0.5", "icd:alpha=1.0", "icd:alpha=2.0"),
    "PAI contrast": ("pai-contrast:gamma=1.1", "pai-contrast:gamma=1.5", "pai-contrast:gamma=2.5"),
    "M3ID": ("m3id", "m3id:forgetting=0.2,theta=0.9"),
    "DAMRO": ("damro:alpha=0.5", "damro:alpha=1.5"),
    "DoLa": ("dola", "dola:alpha=0.5"),
    "DeCo": ("deco:alpha=0.3", "deco:alpha=0.6", "deco:alpha=1.2"),
}
"""Settings that are tried on the scenes of seed 1; the first is the paper's, or nearest to it."""
PARTS = ("heads", "search", "calibrated", "looks", "detectors", "shipped")
"""Ways that are not settings of one method."""

# -- ways to answer ----------------------------------------------------------------------------------------------------


def looked_again(vlm: va.Vlm, choose: str, box: Callable[[Any, Any], Any] | None = None) -> Callable[..., Answers]:
    """Answers on the crop that the first look leads to, or on a window of the same size at a random place."""

    def say(images: Sequence[Any], texts: Sequence[str], new: int) -> Answers:
        told = []
        for image, text in zip(images, texts, strict=True):
            run = vlm.ask(image, text, max_new_tokens=new)
            second = run.refine("peak")
            if box is None:
                told.append(second.ask_again(choose=choose).answer)
            else:
                told.append(vlm.ask(image.crop(box(image, second)), text, max_new_tokens=new).answer)
        return told

    return say


def twice(vlm: va.Vlm) -> Callable[..., Answers]:
    """Answers to the picture given twice: more computation and more image tokens, nothing new to see."""
    plain = steered(vlm)

    def say(images: Sequence[Any], texts: Sequence[str], new: int) -> Answers:
        return plain([[image, image] for image in images], texts, new)

    return say


def anywhere(rng: np.random.Generator) -> Callable[[Any, Any], tuple[int, int, int, int]]:
    """A window of the size of the crop, at a random place."""

    def box(image: Any, second: Any) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = second.box_xyxy
        wide, high = int(x1 - x0), int(y1 - y0)
        left = int(rng.integers(0, max(1, image.width - wide + 1)))
        top = int(rng.integers(0, max(1, image.height - high + 1)))
        return left, top, left + wide, top + high

    return box


def routes(
    vlm: va.Vlm, seed: int, validation: Asked, scenes: int, only: Sequence[str], shipped: Shipped | None
) -> list[Route]:
    """All ways, or those of :data:`PARTS` and :data:`GRID` that are named; settings are chosen on ``validation``."""
    found = [Route("plain", steered(vlm), "no change")]
    for name, several in GRID.items():
        if only and name not in only:
            continue
        best, rate = "", -1.0
        for text in several:
            now = np.mean(right(steered(vlm, steering_of(text)), validation))
            best, rate = (text, now) if now > rate else (best, rate)
        found.append(Route(name, steered(vlm, steering_of(best)), best))
        print(f"chosen: {best} ({rate:.3f})", flush=True)
    if not only or "heads" in only:
        found += by_heads(vlm, seed, validation)
    if not only or "search" in only:
        found += by_search(vlm)
    if not only or "calibrated" in only:
        found += by_calibration(vlm, seed, validation)
    if not only or "looks" in only:
        found += by_looks(vlm, seed)
    if not only or "detectors" in only:
        found += by_detector(vlm, scenes)
    if shipped is not None:
        found += shipped.routes(2 * len(validation))
    return found


def by_looks(vlm: va.Vlm, seed: int) -> list[Route]:
    """Second looks, and as much without guidance."""
    found = [Route("second look, surer answer", looked_again(vlm, "surer"), "peak, choose=surer")]
    found.append(Route("second look", looked_again(vlm, "second"), "peak"))
    rng = np.random.default_rng(seed)
    found.append(Route("second look elsewhere", looked_again(vlm, "second", anywhere(rng)), "random window", True))
    found.append(Route("the picture twice", twice(vlm), "", True))
    return found


def by_heads(vlm: va.Vlm, seed: int, validation: Asked) -> list[Route]:
    """Heads that raise false *yes*, silenced as AD-HH does and altogether; and as many others."""
    from vlmattn.api.hallucination_heads import Named

    named = []
    for scene, question in validation:
        run = vlm.ask(scene.image, question.text, max_new_tokens=2)
        if run.answer.casefold().startswith("yes"):
            named.append(Named(run, 0, question.answer == "no"))
    if len({one.hallucinated for one in named}) < 2:
        return []
    wrong, true = ([one for one in named if one.hallucinated is what][:20] for what in (True, False))
    heads = vlm.hallucination_heads([*wrong, *true])
    every = [(layer, head) for layer in heads.layers for head in range(heads.score_lh.shape[1])]
    rng, found = np.random.default_rng(seed), []
    kinds: dict[str, Callable[[Any], Any]] = {
        "AD-HH": lambda some: ADHH(heads=some, threshold=0.1),
        "heads out": lambda some: ScaleHeads(some, 0.0),
    }
    for name, make in kinds.items():
        tried = [heads.top(count) for count in (1, 2, 4)]
        rates = [np.mean(right(steered(vlm, make(some)), validation)) for some in tried]
        best = tried[int(np.argmax(rates))]
        others = [every[n] for n in rng.permutation(len(every)) if every[n] not in best][: len(best)]
        found.append(Route(name, steered(vlm, make(best)), ", ".join(f"{a}.{b}" for a, b in best)))
        told = ", ".join(f"{a}.{b}" for a, b in others)
        found.append(Route(f"{name}: random heads", steered(vlm, make(tuple(others))), told, True))
    return found


def by_detector(vlm: va.Vlm, scenes: int) -> list[Route]:
    """Words that a detector calls unsupported, taken back: *yes* becomes *no*, things are left out of captions."""
    found = []
    for task in ("presence", "captions"):
        plan = DetectionPlan(task=task, splits=("adversarial", "test"), scenes=scenes, seed=2, draws=200)
        try:
            _, detector = measure_detection(vlm, plan)
        except SpecError as error:
            print(f"no detector of {task}: {error}", flush=True)
            continue
        told = detector.name if len(detector.name) < 40 else f"{detector.name.split(':')[0]} of inside"
        plain = steered(vlm)
        if task == "presence":
            found.append(Route("detector: yes taken back", taken_back(vlm, detector), told, only=("presence",)))
        else:
            names = left_out(vlm, detector)
            found.append(Route("detector: things left out", plain, told, only=("captions",), names=names))
            rng = np.random.default_rng(0)
            names = left_out(vlm, detector, rng)
            found.append(Route("as many things left out at random", plain, "", True, ("captions",), names))
    return found


def taken_back(vlm: va.Vlm, detector: Any) -> Callable[..., Answers]:
    """*No* where the detector says that a *yes* is made up."""

    def say(images: Sequence[Any], texts: Sequence[str], new: int) -> Answers:
        told = []
        for image, text in zip(images, texts, strict=True):
            run = vlm.ask(image, text, max_new_tokens=new)
            words = [w for w in run.detect(by=detector, objects=(), scores=()).words if w.text.casefold() == "yes"]
            risk = words[0].risk if words else None
            told.append("no" if risk is not None and risk > 0.5 else run.answer)
        return told

    return say


def left_out(vlm: va.Vlm, detector: Any, rng: np.random.Generator | None = None) -> Callable[..., list[list[str]]]:
    """Names of what captions name, without what is unsupported; with ``rng``, without as many at random."""

    def names(images: Sequence[Any], texts: Sequence[str], new: int) -> list[list[str]]:
        found = []
        for image, text in zip(images, texts, strict=True):
            run = vlm.ask(image, text, max_new_tokens=new)
            said = mentioned(run.answer)
            things = run.detect(by=detector, scores=()).objects
            bad = [one.name for one in things if one.risk is not None and one.risk > 0.5]
            if rng is not None:
                bad = [str(one) for one in rng.permutation(said)[: len(bad)]] if said else []
            found.append([one for one in said if one not in bad])
        return found

    return names


# -- what is measured --------------------------------------------------------------------------------------------------


def measured(route: Route, asked: dict[str, Asked], scenes: Sequence[Scene]) -> dict[str, Any]:
    """Outcomes of one route, item by item, and seconds of CPU time."""
    out: dict[str, Any] = {"name": route.name, "told": route.told, "control": route.control, "right": {}}
    start = time.process_time()
    if "presence" in route.only:
        out["right"] = {split: right(route.say, part) for split, part in asked.items()}
    out["seconds"] = time.process_time() - start if route.spent is None else route.spent(4)
    if "captions" in route.only:
        images, texts = [s.image for s in scenes], ["Describe the picture."] * len(scenes)
        if route.names is not None:
            names = route.names(images, texts, 60)
        else:
            names = [mentioned(one) for one in route.say(images, texts, 60)]
        pairs = list(zip(names, scenes, strict=True))
        out["named"] = [len(some) for some, _ in pairs]
        out["wrong"] = [sum(one not in scene.names for one in some) for some, scene in pairs]
        out["found"] = [len(set(some) & set(scene.names)) for some, scene in pairs]
        out["there"] = [len(set(scene.names)) for _, scene in pairs]
    return out


def study(model: str, count: int, captions: int, scenes: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """The study of one model: all of it, or ``only`` some ways."""
    vlm = va.load(model)
    validation = [*presence("adversarial", count // 2, 1), *presence("random", count // 4, 1)]
    asked = {split: presence(split, count, 0) for split in SPLITS}
    shown = pictures(captions, 0)
    rows, shipped = [], Shipped.of(vlm) if not only or "shipped" in only else None
    for route in routes(vlm, 1, validation, scenes, only, shipped):
        try:
            rows.append(measured(route, asked, shown))
        except VlmattnError as error:
            print(f"{route.name} left out: {error}", flush=True)
            continue
        rate = statistics.mean(map(float, rows[-1]["right"].get("adversarial", [0])))
        print(f"{route.name}: adversarial {rate:.3f}, {rows[-1]['seconds']:.0f} s", flush=True)
    labels = {split: [q.answer for _, q in part] for split, part in asked.items()}
    clusters = {split: [id(scene) for scene, _ in part] for split, part in asked.items()}
    numbers = {split: [sorted(set(ids)).index(one) for one in ids] for split, ids in clusters.items()}
    found = {"model": model, "labels": labels, "scenes": numbers, "captions": captions, "rows": rows}
    return found if shipped is None else found | {"frontiers": shipped.frontiers(asked["adversarial"], shown)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="scene-prior")
    parser.add_argument("--count", type=int, default=200, help="questions of each split")
    parser.add_argument("--captions", type=int, default=100)
    parser.add_argument("--detector-scenes", type=int, default=60)
    parser.add_argument("--only", nargs="+", default=(), choices=(*GRID, *PARTS), help="ways; default: all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    found = study(given.model, given.count, given.captions, given.detector_scenes, given.only)
    if given.json is not None:
        atomic_write_text(given.json, json.dumps(found) + "\n")
    command = f"python -m benchmarks.mitigation --model {given.model} --count {given.count} --captions {given.captions}"
    command += f" --only {' '.join(given.only)}" if given.only else ""
    text = page(found, command)
    print(text)
    if given.markdown is not None:
        atomic_write_text(given.markdown, text)


if __name__ == "__main__":
    main()
