"""The guide runs, and names every measure and reader."""

from __future__ import annotations

import re
from pathlib import Path

from vlmattn import gaze

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "gaze.md").read_text(encoding="utf-8")


def test_the_guide_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, "gaze.md", "exec"), names)
    assert len(blocks) == 2
    # The look of the model in the box lies on what was asked about.
    assert gaze.nss(names["pixels"], names["inside"]) > 0.5
    assert gaze.auc(names["pixels"], names["inside"]) > 0.6


def test_the_guide_names_everything() -> None:
    for name, metric in gaze.MAP_METRICS.items():
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert (cells[1], cells[4], cells[5]) == (metric.better, metric.constant, metric.source)
    for name in gaze.__all__:
        if name.startswith(("read_", "from_", "write_", "conditional_")):
            assert f"`{name}`" in TEXT, name
    assert all(f"`{name}`" in TEXT for name in gaze.BLURS)
