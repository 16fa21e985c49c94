"""The guide runs, and names every score."""

from __future__ import annotations

import re
from pathlib import Path

from vlmattn.detection import RULES, SCORES

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "detection.md").read_text(encoding="utf-8")


def test_the_guide_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, "detection.md", "exec"), names)
    assert len(blocks) == 3


def test_the_guide_names_every_score_and_rule() -> None:
    assert all(f"`{name}`" in TEXT for name in (*SCORES, *RULES))
    table = re.findall(r"^\| (`.*?) \|", TEXT, flags=re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(table))) == sorted(SCORES)


def test_the_study_measures_every_score() -> None:
    study = (DOCS / "detection-study.md").read_text(encoding="utf-8")
    assert all(f"\n| {name} |" in study for name in SCORES)
    assert "at equal position" in study
