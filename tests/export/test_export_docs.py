"""The page on exports runs, and names every format and option there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vlmattn.api import EXPORTS
from vlmattn.api.exporting import _OPTIONS

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:supervision")
def test_its_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("matplotlib", "pycocotools", "supervision", "av", "pandas"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "export"}
    for match in re.finditer(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE):
        exec(compile("\n" * TEXT.count("\n", 0, match.start(1)) + match[1], "export.md", "exec"), names)
    folders = {"coco", "cvat", "label-studio", "fiftyone"}
    assert folders <= {p.name for p in tmp_path.iterdir()}
    assert all(p.stat().st_size > 1000 for p in tmp_path.iterdir() if p.is_file())


def test_every_format_and_option_is_told() -> None:
    for name in EXPORTS:
        assert f'"{name}"' in TEXT or name in ("figure", "animation", "trace", "words")
    options = {option for known in _OPTIONS.values() for option in known} - {"titles", "rule", "name"}
    assert not [option for option in options if option not in TEXT]


def test_the_readme_leads_to_it() -> None:
    assert "](docs/export.md)" in (REPO / "README.md").read_text(encoding="utf-8")
