"""The notebooks run, show what they make, and say what is true of them."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("IPython")
pytest.importorskip("pandas")

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
MOST_BYTES = 600_000


@pytest.fixture(scope="module")
def execute() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["execute_notebooks"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["execute_notebooks"]


@pytest.fixture(scope="module")
def runner(execute: ModuleType) -> Iterator[Any]:
    with execute.notebooks() as runner:
        yield runner


def notebook(*sources: str, checked: bool = True) -> Any:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell in cells:
        cell.metadata["tags"] = ["checked"] if checked else []
    return nbformat.v4.new_notebook(cells=cells)


def test_all_six_are_there() -> None:
    assert NAMES == ["gaze", "hallucination", "quick_start", "refinement", "sinks", "your_own_model"]


@pytest.mark.parametrize("name", NAMES)
def test_it_shows_what_it_makes(runner: Any, execute: ModuleType, name: str) -> None:
    shown = execute.read(name)
    before = execute.registry.families()
    made = runner.run(shown, name)
    assert execute.differences(shown, made) == []
    assert execute.registry.families() == before


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_is_small_clean_and_whole(execute: ModuleType, name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    shown = execute.read(name)
    nbformat.validate(shown)
    assert len(text) < MOST_BYTES
    assert dict(shown.metadata) == execute.METADATA
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("checked" in cell.metadata.get("tags", ()) for cell in code) >= 3
    assert not re.search(r"(?<![\w./:])/(?:root|home|tmp|work|usr)/", text)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.get("name") == "stderr" or o.output_type == "error"]
    assert any("image" in " ".join(o.get("data", {})) for o in outputs)


@pytest.mark.parametrize("page", [*(f"{name}.ipynb" for name in NAMES), "README.md"])
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (FOLDER / page).read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not (FOLDER / link).exists()]


def test_the_index_lists_all() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"\((\w+)\.ipynb\)", index))) == NAMES


def test_streams_results_and_displays_come_in_order(runner: Any) -> None:
    source = "from IPython.display import display\nprint('one')\nprint('two')\ndisplay(1)\nprint('three')\n2"
    (cell,) = runner.run(notebook(source), "order").cells
    assert [o.output_type for o in cell.outputs] == ["stream", "display_data", "stream", "execute_result"]
    assert cell.outputs[0].text == "one\ntwo\n"
    assert cell.outputs[-1].data == {"text/plain": "2"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("import sys\nprint('careful', file=sys.stderr)", "wrote to stderr: careful"),
        ("import logging\nlogging.getLogger('transformers.x').warning('old')", "wrote to stderr: old"),
    ],
)
def test_what_a_reader_must_not_see_fails(
    runner: Any, execute: ModuleType, source: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    logging.getLogger("transformers.x").propagate = True
    caplog.set_level(logging.WARNING, logger="transformers")  # whatever other tests made of it
    before = Path.cwd()
    with pytest.raises(execute.CellFailed, match=told) as caught:
        runner.run(notebook("3", source), "bad")
    assert "bad, cell 2" in str(caught.value)
    assert Path.cwd() == before


def test_notebooks_share_no_names(runner: Any, execute: ModuleType) -> None:
    runner.run(notebook("left = 1"), "first")
    with pytest.raises(execute.CellFailed, match="NameError"):
        runner.run(notebook("left"), "second")


@pytest.mark.parametrize(
    ("now", "checked", "count"),
    [("print('a')\n1", True, 0), ("print('b')\n1", True, 1), ("print('b')\n1", False, 0), ("print('a')", False, 1)],
)
def test_what_no_longer_holds_is_told(runner: Any, execute: ModuleType, now: str, checked: bool, count: int) -> None:
    shown = runner.run(notebook("print('a')\n1", checked=checked), "shown")
    made = runner.run(notebook(now, checked=checked), "made")
    assert len(execute.differences(shown, made)) == count


def test_a_family_that_a_notebook_registers_ends_with_it(runner: Any) -> None:
    from vlmattn.adapters import families

    source = (
        "from vlmattn.adapters import Adapter, FamilySpec, register\n"
        "register(FamilySpec('of_a_notebook', ('of_a_notebook',), (), (), (), ()))(Adapter);"
    )
    before = [family.name for family in families()]
    runner.run(notebook(source), "registers")
    assert [family.name for family in families()] == before
    assert "llava" in before


def test_nothing_of_ipython_is_left(execute: ModuleType) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    main = sys.modules["__main__"]
    InteractiveShell.clear_instance()
    with execute.notebooks():
        assert InteractiveShell.initialized()
    assert not InteractiveShell.initialized()
    assert sys.modules["__main__"] is main
