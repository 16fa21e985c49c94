"""Public names of the modelled scanpaths and of the comparison: sorted, true, and told in the reference; docs run."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
REFERENCE = (REPO / "docs" / "reference.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", ["vlmattn.gaze.models", "vlmattn.evaluate.gaze"])
def test_every_public_name_has_its_line(module: str) -> None:
    names = list(importlib.import_module(module).__all__)
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    section = re.search(rf"^## `{re.escape(module)}`\n(.*?)(?=^## |\Z)", REFERENCE, flags=re.DOTALL | re.MULTILINE)
    assert section
    assert sorted(re.findall(r"^\* `(\w+)`: \S", section[1], flags=re.MULTILINE)) == sorted(names)


def test_the_guide_runs() -> None:
    text = (REPO / "docs" / "gaze-models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, "gaze-models.md", "exec"), names)
    assert blocks
