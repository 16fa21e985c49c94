"""How fast scanpaths are compared: ``python benchmarks/gaze_scanpaths.py --json gaze-scanpaths.json``.

CPU time of one thread per pair, by number of fixations, of MultiMatch (plain and simplified) and ScanMatch (without and
with 50 ms bins): of many pairs at once, of one pair called alone, and of multimatch_gaze and GazeParser on the same
pairs in the same process, by turns, with their values compared. The first must be importable (``PYTHONPATH``);
the second is GPL and is loaded from its source: ``--gazeparser .../GazeParser/ScanMatch.py``. Their objects are made
once and not timed. Then wall time of a ScanMatch matrix of ``--matrix`` by ``--matrix`` scanpaths.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vlmattn.gaze import Scanpath
from vlmattn.gaze.scanpaths import ScanMatch, Simplification, multimatch, scanpath_matrix
from vlmattn.gaze.scanpaths.multimatch import multimatch_pairs

WH = (1024, 768)
SIMPLE = Simplification(45.0, 100.0, 0.3)
SETTINGS = {
    "scanmatch": ScanMatch(variant="gazeparser"),
    "scanmatch 50 ms": ScanMatch(bin_s=0.05, variant="gazeparser"),
}


def drawn(count: int, fixations: int, seed: int = 0) -> list[Scanpath]:
    """Random walks on the picture, durations in whole milliseconds."""
    rng = np.random.default_rng(seed)
    paths = []
    for _ in range(count):
        points = np.clip(np.cumsum(rng.normal(0, 120, (fixations, 2)), axis=0) % WH, 0, np.array(WH) - 1)
        paths.append(Scanpath(*points.T, WH, duration=rng.integers(100, 600, fixations) / 1000))
    return paths


def ours() -> dict[str, tuple[Callable[..., Any], Callable[[Scanpath, Scanpath], Any]]]:
    """Of many pairs, and of one."""

    def simplified(paths: list[Scanpath], one: Any, other: Any) -> Any:
        return multimatch_pairs(paths, one, other, simplify=SIMPLE)

    told: dict[str, Any] = {
        "multimatch": (multimatch_pairs, lambda a, b: multimatch(a, b).values),
        "multimatch simplified": (simplified, lambda a, b: multimatch(a, b, simplify=SIMPLE).values),
    }
    return {**told, **{name: (rule.pairs, rule) for name, rule in SETTINGS.items()}}


def theirs(gazeparser: Path | None) -> dict[str, Callable[[Scanpath, Scanpath], Any]]:
    """What can be loaded of the reference packages."""
    found: dict[str, Callable[[Scanpath, Scanpath], Any]] = {}
    try:
        from multimatch_gaze import docomparison
    except ImportError:
        print("multimatch_gaze cannot be imported: not timed")
    else:
        found["multimatch"] = lambda a, b: docomparison(rows(a), rows(b), WH)
        found["multimatch simplified"] = lambda a, b: docomparison(
            rows(a), rows(b), WH, grouping=True, TDir=45.0, TDur=0.3, TAmp=100.0
        )
    if gazeparser is not None:
        found |= {name: scanmatch_of(gazeparser, rule) for name, rule in SETTINGS.items()}
    return found


def rows(path: Scanpath) -> Any:
    """A scanpath as multimatch_gaze takes it."""
    named = [("start_x", "f8"), ("start_y", "f8"), ("duration", "f8")]
    return np.array(list(zip(path.x, path.y, path.duration, strict=True)), dtype=named)


def scanmatch_of(source: Path, rule: ScanMatch) -> Callable[[Scanpath, Scanpath], float]:
    """GazeParser's ScanMatch, from its source file alone."""
    spec = importlib.util.spec_from_file_location("gazeparser_scanmatch", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    named = {"Xres": WH[0], "Yres": WH[1], "Xbin": rule.columns, "Ybin": rule.rows, "Threshold": rule.threshold}
    matcher = module.ScanMatch(**named, **({"TempBin": 50} if rule.bin_s else {}))

    def sequence(path: Scanpath) -> Any:
        return matcher.fixationToSequence(np.column_stack([path.xy, np.round(np.asarray(path.duration) * 1000)]))

    return lambda a, b: float(matcher.match(sequence(a).astype(int), sequence(b).astype(int))[0])


def cpu(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU time, and what the call gave."""
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


def compared(fixations: int, pairs: int, few: int, references: dict[str, Any]) -> list[dict[str, Any]]:
    """One line per measure."""
    paths, lines = drawn(2 * pairs, fixations), []
    one = np.arange(pairs)
    for name, (many, single) in ours().items():
        many(paths[:4], one[:2], one[:2] + 2)
        slow, alone, at_once, apart = [], [], [], 0.0
        for turn in range(few):
            spent, values = cpu(lambda many=many: many(paths, one, one + pairs))
            at_once.append(spent / pairs)
            a, b = paths[turn], paths[turn + pairs]
            value = single(a, b)
            spent, _ = cpu(lambda single=single: [single(paths[i], paths[i + pairs]) for i in range(30)])
            alone.append(spent / 30)
            apart = max(apart, float(np.abs(np.ravel(value) - values[turn]).max()))
            if name in references:
                try:
                    spent, value = cpu(lambda name=name, a=a, b=b: references[name](a, b))
                except (IndexError, ValueError):
                    continue  # Simplification stops the package on some scanpaths.
                slow.append(spent)
                apart = max(apart, float(np.abs(np.ravel(value) - values[turn]).max()))
        line = {"measure": name, "fixations": fixations, "pair_us": 1e6 * np.median(at_once)}
        line |= {"alone_us": 1e6 * np.median(alone), "largest_difference": apart}
        if slow:
            line |= {"reference_us": 1e6 * np.median(slow), "ratio": np.median(slow) / np.median(at_once)}
            line["ratio_alone"] = np.median(slow) / np.median(alone)
        lines.append(line)
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()), flush=True)
    return lines


def matrix(count: int, fixations: int, workers: int) -> dict[str, Any]:
    """Wall time of all pairs of two sets."""
    mine, others = drawn(count, fixations, 1), drawn(count, fixations, 2)
    start = time.perf_counter()
    scanpath_matrix(mine, others, workers=workers)
    line = {"matrix": f"{count} x {count}", "fixations": fixations, "workers": workers}
    line["wall_s"] = time.perf_counter() - start
    print(line)
    return line


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixations", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--pairs", type=int, default=500, help="compared at once")
    parser.add_argument("--turns", type=int, default=7, help="by turns with the reference")
    parser.add_argument("--gazeparser", type=Path, help="GazeParser's ScanMatch.py")
    parser.add_argument("--matrix", type=int, default=1000, help="scanpaths a side, 0 for none")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    references = theirs(told.gazeparser)
    lines = [line for n in told.fixations for line in compared(n, told.pairs, told.turns, references)]
    if told.matrix:
        lines.append(matrix(told.matrix, 50, told.workers))
    if told.json:
        told.json.write_text(json.dumps(lines, indent=1, default=float), encoding="utf-8")


if __name__ == "__main__":
    main()
