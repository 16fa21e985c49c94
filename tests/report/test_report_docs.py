"""The blocks of docs/report.md run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "report.md"


def test_its_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "report"}
    for block in blocks:
        exec(compile(block, "report.md", "exec"), names)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both.html", "run.html", "trace.html"]


def test_every_control_is_told() -> None:
    text, folder = DOCS.read_text(encoding="utf-8"), DOCS.parents[1] / "vlmattn" / "report"
    controls = (folder / "controls.js").read_text(encoding="utf-8")
    names = re.findall(r'(?:slider|choice)\("([^"]+)"', controls) + re.findall(r'\["\w+", "([^"]+)", \(', controls)
    assert len(names) >= 14
    for name in names:
        assert name in text, name
