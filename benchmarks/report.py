"""How long a report takes to write and to open, and how large it is.

    PYTHONPATH=. python benchmarks/report.py [--words 30] [--layers 12] [--repeat 3]

A trace of random attention (LLaVA-1.5's grid of 24 x 24, 32 heads) on a photograph of 12 megapixels with a sensor's
grain. Written: CPU time of this process, and its part that encodes the picture. Opened: milliseconds from the beginning
of the navigation to the first map drawn and every control listening, in headless Chromium, from a file.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.overlay import decoded, photograph
from tests.report.made import trace_of
from vlmattn.core.images import Picture
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.report import panel_of, write_report
from vlmattn.report.pictures import PICTURE_BYTES, encoded

OPEN_MS, BYTES = 1000, 2_000_000


def clocked(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what came out."""
    start = time.process_time()
    made = action()
    return time.process_time() - start, made


def opening(path: Path, repeat: int) -> list[float]:
    """Milliseconds to interactive of fresh pages."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(repeat):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-ready]")
            found.append(float(page.evaluate("performance.getEntriesByName('interactive')[0].startTime")))
            page.close()
        browser.close()
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, default=30)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    image = decoded(photograph())
    layout = ImageLayout(image.size, (Tile("base", (24, 24), (0.0, 0.0, float(image.size[0]), float(image.size[1]))),))
    answer = " ".join(f"word{n}" for n in range(asked.words))
    trace = trace_of("What is it?", answer, [layout], layers=asked.layers, heads=asked.heads)
    picture = Picture(image, "photograph.jpg")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        maps, panel = clocked(lambda: panel_of(trace, [picture]))
        page, _ = clocked(lambda: write_report(path, panel))
        shown, _ = clocked(lambda: encoded(image, PICTURE_BYTES))
        size = path.stat().st_size
        times = opening(path, asked.repeat)
    print(
        f"{asked.words} words x {asked.layers} layers x {asked.heads} heads, picture {image.size[0]} x {image.size[1]}"
    )
    print(f"written: maps {maps:.2f} s, page {page:.2f} s, of which the picture {shown:.2f} s (CPU)")
    print(f"size: {size / 1e6:.2f} MB ({'within' if size < BYTES else 'OVER'} {BYTES / 1e6:g} MB)")
    middle, least = statistics.median(times), min(times)
    verdict = "within" if middle < OPEN_MS else "OVER"
    print(f"interactive: median {middle:.0f} ms, least {least:.0f} ms of {len(times)} ({verdict} {OPEN_MS} ms)")


if __name__ == "__main__":
    main()
