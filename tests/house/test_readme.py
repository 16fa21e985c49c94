"""What the README says to type works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/vlmattn demo",
    ".venv/bin/pip install '.[test]' && .venv/bin/python -m pytest",
)
pytestmark = pytest.mark.skipif(not README.is_file(), reason="there is no README yet")


def python_blocks(text: str) -> list[tuple[int, str]]:
    """The fenced python blocks of a Markdown text, each with the line it starts on."""
    found = re.finditer(r"^```python[ \t]*\n(.*?)^```[ \t]*$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in found]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_there_word_for_word(command: str) -> None:
    assert command in README.read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_the_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(README.read_text(encoding="utf-8"))
    assert blocks, "the README shows no python"
    names: dict[str, Any] = {"__name__": "readme"}
    for line, source in blocks:
        # Padded, so that a traceback names the README's own line.
        exec(compile("\n" * (line - 1) + source, str(README), "exec"), names)
