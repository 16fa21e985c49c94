"""Heads found on one split, and what their maps are worth on another.

``python benchmarks/heads.py --find vlmattn/heads/found`` finds the heads of the models in the box on the validation
split: ``localization`` and ``visual`` by an atlas, ``pointing`` by boxes (``vlm.pointing_heads``).
``python benchmarks/heads.py --markdown docs/heads.md`` measures on the test split, whose scenes, backgrounds and
phrasings are others, how often the highest patch of the summed attention of the heads touches the object that was asked
about, beside all heads and chance, and how long an atlas takes (CPU time of one thread).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from vlmattn.api.heads import looks
from vlmattn.heads import HeadPreset, HeadSample, Looked, pointing, save_presets, scene_samples

MODELS = ("scene", "scene-prior", "scene-sinks", "scene-sinks-strong")
KINDS = ("color", "shape", "exist")


def about_one(count: int, split: str) -> list[HeadSample]:
    """Questions about one object that is there."""
    found: list[HeadSample] = []
    wanted = count
    while len(found) < count:
        found = [one for one in scene_samples(wanted, split=split, kinds=KINDS) if one.boxes]
        wanted += count
    return found[:count]


def find(vlm: va.Vlm, count: int) -> list[HeadPreset]:
    """The heads that ship with a model in the box."""
    atlas = vlm.head_atlas(scene_samples(count), scores=("visual", "mass", "entropy", "localization"))
    chosen = about_one(3 * count, "validation")
    return [atlas.preset("localization"), vlm.pointing_heads(chosen, most=3), atlas.preset("visual")]


def mean_pointing(found: Sequence[Looked], pairs: Sequence[tuple[int, int]] | None) -> tuple[float, float, float]:
    """Share of questions whose highest patch touches the box, with its 95 % bootstrap interval."""
    hits = np.array([next(iter(pointing([one], pairs).values())) for one in found])
    low, high = va.heads.bootstrap_interval(hits, np.random.default_rng(0))
    return float(hits.mean()), float(low), float(high)


def measured(vlm: va.Vlm, found: Sequence[HeadPreset], tested: Sequence[Looked], count: int) -> list[dict[str, Any]]:
    """One record per choice of heads."""
    samples = scene_samples(count)
    atlas = vlm.head_atlas(samples)
    code = vlm.head_atlas(samples, scores=("mass", "entropy", "localization"), variant="code")
    layers = {layer: line for line, layer in enumerate(atlas.layers)}
    by_name: dict[str, HeadPreset | None] = {"all heads": None} | {one.name: one for one in found}
    by_name["localization, variant code"] = code.preset("localization") if code.best("localization", 3)[2:] else None
    by_name |= {f"best three by {name}": atlas.preset(name) for name in ("mass", "copy", "vhd", "gradient")}
    records = []
    for name, preset in by_name.items():
        if preset is None and name != "all heads":
            continue
        pairs = None if preset is None else [(layers[layer], head) for layer, head in preset.pairs]
        share, low, high = mean_pointing(tested, pairs)
        told = "" if preset is None else ", ".join(f"{layer}.{head}" for layer, head in preset.pairs)
        records.append({"model": vlm.name, "heads": name, "which": told, "pointing": share, "low": low, "high": high})
    return records


def atlas_time(count: int) -> dict[str, float]:
    """CPU seconds of an atlas of ``scene``: the scores by default, and all of them."""
    vlm, samples, taken = va.load("scene"), scene_samples(count), {}
    vlm.head_atlas(samples[:1])
    for name, scores in (("default", None), ("all", "all")):
        begin = time.process_time()
        vlm.head_atlas(samples, scores=scores)
        taken[name] = time.process_time() - begin
    return taken


def markdown(result: dict[str, Any], command: str) -> str:
    """The page of results."""
    times, records = result["seconds"], result["pointing"]
    lines = [
        "# Heads, measured",
        "",
        f"Written by `{command}`; do not edit.",
        "",
        f"Atlas of `scene` over {result['samples']} samples of the validation split: {times['default']:.1f} s of CPU "
        f"time with the scores by default, {times['all']:.1f} s with both ablations (a pass per head and sample).",
        "",
        f"Pointing on {result['tested']} questions of the test split about the colour, the shape or the presence of "
        "one object: the share whose patch with the highest summed attention of the first answer token touches the "
        f"object's box; by chance (a random object of such scenes): {result['chance']:.2f}. Heads were chosen on the "
        'validation split. Names in bold ship with the model: `run.map(heads="pointing")`. Intervals: 95 %, by '
        "bootstrap over questions.",
        "",
        "| model | heads | layer.head | pointing |",
        "|---|---|---|---|",
    ]
    for one in records:
        name = f"**{one['heads']}**" if one["heads"] in ("localization", "pointing", "visual") else one["heads"]
        value = f"{one['pointing']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        lines.append(f"| {one['model']} | {name} | {one['which']} | {value} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Find or measure, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--find", type=Path, help="Folder to write found heads to.")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.find:
        for name in given.models:
            how = f"python benchmarks/heads.py --find vlmattn/heads/found --samples {given.samples}"
            save_presets(given.find / f"{name}.json", find(va.load(name), given.samples), model=name, how=how)
        return
    records: list[dict[str, Any]] = []
    asked = about_one(given.test, "test")
    for name in given.models:
        vlm = va.load(name)
        records += measured(vlm, list(vlm.known_heads().values()), looks(vlm, asked), given.samples)
    index = [va.scene.split_item("test", 0, n)[0] for n in range(given.test)]
    chance = float(np.mean([1 / len(scene.objects) for scene in index]))
    result = {"seconds": atlas_time(40), "samples": 40, "tested": len(asked), "chance": chance, "pointing": records}
    chosen = f"--models {' '.join(given.models)} --samples {given.samples} --test {given.test}"
    command = f"python benchmarks/heads.py {chosen} --markdown docs/heads.md"
    print(markdown(result, command))
    if given.markdown:
        given.markdown.write_text(markdown(result, command), encoding="utf-8")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
