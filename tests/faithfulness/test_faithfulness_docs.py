"""The guide runs, and so do the examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import re
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "faithfulness.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["agreement", "localisation", "removal", "verdict"])
def test_examples(name: str) -> None:
    importlib.import_module(f"vlmattn.faithfulness.{name}")
    result = doctest.testmod(sys.modules[f"vlmattn.faithfulness.{name}"])
    assert result.attempted > 0
    assert result.failed == 0


def test_the_guide_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, "faithfulness.md", "exec"), names)
    assert len(blocks) == 3


def test_the_guide_names_every_measure() -> None:
    from vlmattn.api.faithfulness import METRICS

    assert all(f"`{name}`" in TEXT for name in METRICS)
