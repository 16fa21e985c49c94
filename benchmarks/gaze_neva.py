"""Does NevaClip look at what a text names: ``python benchmarks/gaze_neva.py --scenes 120 --json gaze-neva.json``.

Unseen drawn scenes (split ``test``; settings were chosen on ``validation``), the open_clip model in the box. On each
scene one object is named, by a caption ("a red circle") and by a question; what counts is whether a fixation among the
first three lies in its box. Beside it: no text (the whole picture is the aim), a wrong caption (a thing that is not in
the scene), an unlike one (that shares neither colour nor shape with the object either), a random walk from the middle,
places at random, and the settings of NevaClip's code (``--published``). Walks and places are drawn 50 times per scene.
Intervals: Wilson for shares, bootstrap over scenes for differences.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.api import load_clip
from vlmattn.evaluate import bootstrap, paired_bootstrap, ratio, wilson
from vlmattn.gaze import Scanpath
from vlmattn.gaze.models import Neva, neva_clip, random_walk, uniform_scanpath
from vlmattn.gaze.observers import likeness
from vlmattn.gaze.scanpaths import first_hit
from vlmattn.scene import Scene, SceneObject, split_item
from vlmattn.scene.objects import COLORS, SHAPES
from vlmattn.scene.phrasings import with_article

WITHIN = 3
DRAWS = 50


def chosen(scenes: int, split: str, seed: int) -> list[tuple[Scene, SceneObject, str, str]]:
    """Each scene with the object that is named, and the names of two things that are not there, one of them unlike."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(scenes):
        scene, _ = split_item(split, seed, index)
        thing = scene.objects[int(rng.integers(len(scene.objects)))]
        absent = [f"{c} {s}" for c in COLORS for s in SHAPES if f"{c} {s}" not in scene.names]
        unlike = [name for name in absent if likeness(thing, name) == 0]
        names = (options[int(rng.integers(len(options)))] for options in (absent, unlike))
        found.append((scene, thing, *names))
    return found


def hits(paths: Sequence[Scanpath], things: Sequence[SceneObject], within: int = WITHIN) -> NDArray[np.float64]:
    """(n,) 1 where a fixation among the first ``within`` lies in the thing's box."""
    numbers = [first_hit(path, thing.box_xyxy) for path, thing in zip(paths, things, strict=True)]
    return np.array([number is not None and number < within for number in numbers], dtype=float)


def chance(make: Callable[..., Scanpath], items: Sequence[tuple[Scene, SceneObject, str, str]]) -> NDArray[np.float64]:
    """(n,) the share of drawn scanpaths that hit, scene by scene."""
    rng = np.random.default_rng(0)
    things = [thing for _, thing, *_ in items]
    each = [hits([make(s.image_wh, count=WITHIN, rng=rng) for s, *_ in items], things) for _ in range(DRAWS)]
    return np.asarray(np.mean(each, axis=0))


def share(values: NDArray[np.float64]) -> dict[str, Any]:
    """A share with its interval."""
    if set(np.unique(values)) <= {0.0, 1.0}:
        one = wilson(int(values.sum()), len(values))
    else:
        one = bootstrap(np.column_stack([values, np.ones(len(values))]), ratio)
    return {"share": one.value, "low": one.low, "high": one.high, "scenes": len(values)}


def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, Any]:
    """Of two shares on the same scenes."""
    ones = np.ones(len(a))
    one = paired_bootstrap(np.column_stack([a, ones]), np.column_stack([b, ones]), ratio)
    return {"difference": one.value, "low": one.low, "high": one.high}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--published", action="store_true", help="the settings of NevaClip's code too; slow")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    encoder = load_clip("scene-clip").encoder
    items = chosen(given.scenes, given.split, given.seed)
    images, things = [s.image for s, *_ in items], [thing for _, thing, *_ in items]
    texts: dict[str, list[str] | None] = {
        "caption": [with_article(t.name) for t in things],
        "wrong caption": [with_article(name) for _, _, name, _ in items],
        "unlike caption": [with_article(name) for _, _, _, name in items],
        "question": [f"where is the {t.name}?" for t in things],
        "no text": None,
    }
    values = {"random walk": chance(random_walk, items), "random places": chance(uniform_scanpath, items)}
    told: dict[str, Any] = {name: share(one) for name, one in values.items()}
    runs = [(name, text, Neva(WITHIN)) for name, text in texts.items()]
    if given.published:
        runs.append(("caption, published settings", texts["caption"], Neva.published(WITHIN)))
    for name, text, settings in runs:
        start = time.process_time()
        paths = neva_clip(encoder, images, text, settings=settings)
        values[name] = hits(paths, things)
        told[name] = share(values[name]) | {
            "first": float(hits(paths, things, 1).mean()),
            "cpu_s_per_scene": (time.process_time() - start) / len(items),
        }
        print(name, told[name], flush=True)
    told["caption - random walk"] = difference(values["caption"], values["random walk"])
    told["unlike caption - random walk"] = difference(values["unlike caption"], values["random walk"])
    told["wrong caption - random walk"] = difference(values["wrong caption"], values["random walk"])
    for name, one in told.items():
        shown = (f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in one.items())
        print(f"{name:32s} {'  '.join(shown)}")
    if given.json:
        given.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
