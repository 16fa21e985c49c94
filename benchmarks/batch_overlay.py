"""What a batch of overlays takes over the model's own time, and whether its memory grows.

``python -m benchmarks.batch_overlay --rows 48``. Of one run: all that the model's thread does outside the model
(reading the table, waiting for pictures, reading off maps, keeping results) over what it does inside (``vlm.run``:
processor, generation and capture), in CPU time of that thread and on the clock. Of a random LLaVA with a decoder of
12 layers, d = 1,024, that writes 16 tokens and shares the cores with the threads beside it; and of the model in the
box, with a pause for every row in place of a GPU's work, which leaves the cores free. Photographs of 1200 x 800, two
words each, figures as PNG; the least of ``--repeat`` runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

import vlmattn as va
from benchmarks.runner import larger
from vlmattn.evaluate import Decoding
from vlmattn.pipelines import Drawing, Output, OverlayJob, open_table, overlay_table

BUDGET = 0.10


def table(folder: Path, rows: int, wh: tuple[int, int]) -> Path:
    """Questions about one photograph, saved under four names."""
    with Image.open(str(files("vlmattn.cli") / "photo" / "coffee.jpg")) as photo:
        for number in range(4):
            photo.convert("RGB").resize(wh).save(folder / f"{number}.jpg")
    row = {"question": "What is on the table?", "words": ["table", "What"]}
    lines = [json.dumps({"image": f"{number % 4}.jpg"} | row) for number in range(rows)]
    path = folder / "table.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def timed(vlm: va.Vlm, rows: int, new: int, workers: int, pause: float) -> dict[str, float]:
    """Seconds of the model's thread, inside and outside the model, by its CPU time and by the clock."""
    inside = {"cpu": 0.0, "clock": 0.0}
    run = vlm.run

    def clocked(request: Any) -> Any:
        cpu, clock = time.thread_time(), time.perf_counter()
        made = run(request)
        time.sleep(pause * len(request.items))
        inside["cpu"] += time.thread_time() - cpu
        inside["clock"] += time.perf_counter() - clock
        return made

    job = OverlayJob(decoding=Decoding(max_new_tokens=new), drawing=Drawing(), batch=4)
    with tempfile.TemporaryDirectory() as folder, patch.object(vlm, "run", clocked):
        asked = open_table(str(table(Path(folder), rows, (1200, 800))))
        cpu, clock, whole = time.thread_time(), time.perf_counter(), time.process_time()
        overlay_table(asked, Output(Path(folder) / "out"), job, vlm=vlm, workers=workers)
        cpu, clock, whole = time.thread_time() - cpu, time.perf_counter() - clock, time.process_time() - whole
    return {
        "cpu": cpu / inside["cpu"] - 1,
        "clock": clock / inside["clock"] - 1,
        "row": inside["clock"] / rows,
        "beside": (whole - cpu) / rows,
    }


def least(measure: Callable[[], dict[str, float]], repeat: int) -> dict[str, float]:
    """The least of every number."""
    found = [measure() for _ in range(repeat)]
    return {name: min(one[name] for one in found) for name in found[0]}


def memory(vlm: va.Vlm, rows: int) -> list[float]:
    """Resident MiB after every batch of one run."""
    seen = []

    def note(_done: int, _of: int) -> None:
        seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20)

    with tempfile.TemporaryDirectory() as folder:
        asked = open_table(str(table(Path(folder), rows, (300, 200))))
        job = OverlayJob(decoding=Decoding(max_new_tokens=2), drawing=Drawing(figure=False))
        overlay_table(asked, Output(Path(folder) / "out"), job, vlm=vlm, progress=note)
    return seen


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory-rows", type=int, default=2000, help="0 for none")
    given = parser.parse_args()
    torch.set_num_threads(1)
    scene = va.load("scene")
    cases = (("12 layers, d = 1,024, on the CPU", larger(), 16, 0.0), ("0.5 s a row, as on a GPU", scene, 4, 0.5))
    for name, vlm, new, pause in cases:
        timed(vlm, 8, new, given.workers, pause)
        told = least(lambda: timed(vlm, given.rows, new, given.workers, pause), given.repeat)  # noqa: B023
        word = "within" if told["cpu" if not pause else "clock"] <= BUDGET else "OVER"
        print(
            f"{name}: over the model's own {1e3 * told['row']:.0f} ms a row, its thread's CPU {told['cpu']:+.1%}, the "
            f"clock {told['clock']:+.1%} ({word} {BUDGET:.0%}); beside it {1e3 * told['beside']:.0f} ms of CPU a row"
        )
    if given.memory_rows:
        seen = memory(scene, given.memory_rows)
        tenth = max(1, len(seen) // 10)
        slope = float(np.polyfit(np.linspace(0, given.memory_rows, len(seen))[tenth:], seen[tenth:], 1)[0])
        print(f"memory over {given.memory_rows} rows: after a tenth {seen[tenth]:.0f} MiB, at the end {seen[-1]:.0f} "
              f"MiB, slope {1024 * slope:.2f} KiB a row")  # fmt: skip


if __name__ == "__main__":
    main()
