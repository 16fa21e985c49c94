"""The guide to the app runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "app.md").read_text(encoding="utf-8")


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "guide"}
    exec(compile(block, "app.md", "exec"), names)
    assert [path.name for path in tmp_path.iterdir()] == ["asked.png"]


def test_its_picture_is_there() -> None:
    assert 20_000 < (DOCS / "app.png").stat().st_size < 200_000
