"""The reference names everything that is public, lists every preset, and its example runs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "docs" / "reference.md").read_text(encoding="utf-8")
# The command line is described by its own help.
ELSEWHERE = ("core", "cli")
PACKAGES = sorted({p.parent.name for p in (REPO / "vlmattn").glob("*/__init__.py")} - set(ELSEWHERE))


def told(module: str) -> list[str]:
    section = re.search(rf"^## `{re.escape(module)}`\n(.*?)(?=^## |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert section, f"docs/reference.md has no section '## `{module}`'"
    return re.findall(r"^\* `(\w+)`: \S", section[1], flags=re.MULTILINE)


@pytest.mark.parametrize(
    "module",
    ["vlmattn", *(f"vlmattn.{name}" for name in PACKAGES), "vlmattn.adapters.testing", "vlmattn.gaze.scanpaths"],
)
def test_every_public_name_has_its_line(module: str) -> None:
    assert told(module) == list(importlib.import_module(module).__all__)


@pytest.mark.parametrize(
    ("table", "pattern"),
    [
        ("PRESETS", r"^\| layers \| `(\w+)` \|"),
        ("HEAD_PRESETS", r"^\| heads \| `(\w+)` \|"),
        ("ROW_PRESETS", r"^\| rows \| `(\w+)` \|"),
        ("NORMALISATIONS", r"^\| `(\w+)` \|"),
    ],
)
def test_every_choice_is_listed(table: str, pattern: str) -> None:
    import vlmattn.maps

    choices = getattr(vlmattn.maps, table)
    assert re.findall(pattern, TEXT, flags=re.MULTILINE) == list(choices)
    for one in choices.values():
        assert getattr(one, "source", "") in TEXT


def test_its_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {"__name__": "reference"}
    for block in blocks:
        exec(compile(block, "reference.md", "exec"), names)
    assert blocks
    assert sorted(p.name for p in tmp_path.iterdir()) == ["look.npz", "look.png", "sheet.png"]


def test_the_readme_leads_to_it() -> None:
    assert "](docs/reference.md)" in (REPO / "README.md").read_text(encoding="utf-8")
