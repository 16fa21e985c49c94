"""The README runs, and says what the continuous integration does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")
COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/vlmattn demo",
    ".venv/bin/pip install '.[test]' && .venv/bin/python -m pytest -n auto --dist loadfile",
)


def blocks(language: str) -> list[str]:
    return [match[1] for match in matches(language)]


def matches(language: str) -> list[re.Match[str]]:
    return list(re.finditer(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE))


def test_the_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    for match in matches("python"):
        # Padded, so that a traceback names the README's own line.
        line = README.count("\n", 0, match.start(1))
        exec(compile("\n" * line + match[1], "README.md", "exec"), names)
    assert (tmp_path / "objects.png").stat().st_size > 1000
    assert (tmp_path / "sheet.webp").stat().st_size > 1000


def test_the_two_commands_are_there_and_are_what_ci_runs() -> None:
    script = (REPO / ".ci/run").read_text(encoding="utf-8").replace("install -q", "install")
    for command in COMMANDS:
        assert any(command == line.strip() for block in blocks("sh") for line in block.splitlines())
        assert command in script.replace("pytest -q", "pytest")


def test_every_command_in_the_readme_exists() -> None:
    from typer.main import get_command

    from vlmattn.cli.main import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    used = set(re.findall(r"^vlmattn (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert used
    assert used <= known


def test_names_of_the_package_resolve_after_a_plain_import() -> None:
    names = set(re.findall(r"`(?:vlmattn|va)\.((?:\w+\.)*\w+)[`(]", README))
    assert "adapters.check_adapter" in names
    code = "import vlmattn as va\n" + "\n".join(f"va.{name}" for name in sorted(names))
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pictures_of_the_readme_are_there() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (REPO / path).is_file(), path


def test_the_page_of_models_is_the_registry() -> None:
    from vlmattn.adapters.support import support_markdown

    assert (REPO / "docs/models.md").read_text(encoding="utf-8") == support_markdown()
