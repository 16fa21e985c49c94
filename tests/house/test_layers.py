"""Imports point downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "vlmattn"
LAYERS = (
    ("cli", "__main__"),
    ("app", "service"),
    ("pipelines",),
    ("evaluate",),
    ("api",),
    ("report", "export"),
    ("hallucination", "gaze", "faithfulness", "detection", "steering", "refine"),
    ("sinks", "heads", "maps"),
    ("overlay",),
    ("trace", "grid"),
    ("capture",),
    ("adapters", "scene"),
    ("display",),
    ("core",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}
SIBLINGS = {("trace", "grid"), ("cli", "service")}


def imported(source: str) -> set[str]:
    """Names of the subpackages of vlmattn that a module imports anywhere, in functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vlmattn":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("vlmattn.")}
    return found


def wrong_imports(package: str, source: str) -> list[str]:
    """One line for each import that points up, sideways, or nowhere; relative imports are not used here."""
    package = "cli" if package == "__main__" else package
    wrong = []
    for name in sorted(imported(source)):
        if name not in RANK:
            wrong.append(f"{package} imports vlmattn.{name}, which is in no layer")
        elif name != package and RANK[name] <= RANK[package] and (package, name) not in SIBLINGS:
            wrong.append(f"{package} imports {name}, which does not lie below it")
    return wrong


MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert package in RANK, f"{package} is in no layer"
    assert not wrong_imports(package, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("capture", "from vlmattn.api import load"),
        ("core", "def f():\n    import vlmattn.grid.project"),
        ("adapters", "from vlmattn import scene"),
        ("maps", "from vlmattn.sinks.rule import x"),
        ("grid", "from vlmattn.trace import Trace"),
        ("core", "import vlmattn.api.load as x"),
        ("core", "from ..api import load"),
        ("core", "from vlmattn import load"),
        ("scene", "from vlmattn.adapters import Adapter"),
        ("capture", "if TYPE_CHECKING:\n    from vlmattn.trace import Trace"),
    ],
)
def test_an_upward_import_is_noticed(package: str, source: str) -> None:
    assert wrong_imports(package, source)


def test_a_downward_import_is_fine() -> None:
    assert not wrong_imports("maps", "from vlmattn.trace import Trace\nfrom vlmattn.maps.raw import x")


def test_only_adapters_ask_for_the_model_type() -> None:
    for path in MODULES:
        if path.relative_to(ROOT).parts[0] in ("adapters", "scene"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                assert "model_type" not in ast.unparse(node), f"{path} compares model_type"
