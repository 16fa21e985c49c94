"""The guide to scanpaths runs, and its table is that of the code."""

from __future__ import annotations

import re
from math import isinf
from pathlib import Path

from vlmattn.gaze.scanpaths import SCANPATH_METRICS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "scanpaths.md").read_text(encoding="utf-8")


def test_it_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(compile(block, "scanpaths.md", "exec"), {})


def test_its_table_is_that_of_the_measures() -> None:
    told = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", TEXT, flags=re.MULTILINE)

    def line(name: str) -> tuple[str, ...]:
        one = SCANPATH_METRICS[name]
        high = "∞" if isinf(one.highest) else f"{one.highest:g}"
        order = "no" if one.symmetric else "yes"
        return name, one.better, f"{one.lowest:g} to {high}", order, one.short, one.source

    assert told == [line(name) for name in SCANPATH_METRICS]
