"""Executes the notebooks of this folder in one process, and writes their outputs into them, or checks those there are.

``python docs/notebooks/execute.py`` writes all of them, ``… sinks gaze`` some; ``--check`` writes nothing and says
which checked outputs (cells with the tag ``checked``) are no longer what the notebook shows. Needs ``pip install
'vlmattn[notebook]'``. One process for all: importing the libraries takes longer than most of the notebooks do.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import traceback
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from vlmattn.adapters import registry

FOLDER = Path(__file__).resolve().parent
METADATA = {"language_info": {"name": "python"}}


class CellFailed(RuntimeError):
    """A cell raised, warned or wrote to stderr."""


class Outputs(list[dict[str, Any]]):
    """The outputs of a cell, in the order in which they come."""

    def write(self, name: str, text: str) -> None:
        """Text of a stream, joined with what the same stream wrote just before."""
        if self and self[-1].get("name") == name:
            self[-1]["text"] += text
        elif text:
            self.append(nbformat.v4.new_output("stream", name=name, text=text))


class _Stream:
    encoding = "utf-8"

    def __init__(self, outputs: Outputs, name: str) -> None:
        self.outputs, self.name = outputs, name

    def write(self, text: str) -> int:
        self.outputs.write(self.name, text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False


class _Warned(logging.Handler):
    """Puts what transformers logs into the cell's outputs, where a reader would see it."""

    def __init__(self, outputs: Outputs) -> None:
        super().__init__(logging.WARNING)
        self.outputs = outputs

    def emit(self, record: logging.LogRecord) -> None:
        self.outputs.write("stderr", record.getMessage() + "\n")


class Notebooks:
    """Runs notebooks, each in a namespace and a working directory of its own."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell

    def run(self, notebook: Any, name: str) -> Any:
        """A copy of a notebook with its outputs made anew.

        Raises:
            CellFailed: a cell raised, or wrote to stderr; says which.
        """
        done = nbformat.from_dict(notebook)
        done.metadata = nbformat.from_dict(METADATA)
        self.shell.reset(new_session=False)
        registry.families()  # fills the registry, so that what is given back is all of it
        before, count, families = Path.cwd(), 0, dict(registry._FAMILIES)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                for number, cell in enumerate(done.cells, 1):
                    cell.id = f"cell-{number:02}"
                    if cell.cell_type == "code":
                        count += 1
                        cell.execution_count = count
                        cell.outputs = self._cell(cell.source, f"{name}, cell {number}", count)
            finally:
                os.chdir(before)
                # A family that a notebook registers is known in that notebook alone.
                registry._FAMILIES.clear()
                registry._FAMILIES.update(families)
        return done

    def _cell(self, source: str, where: str, count: int) -> Outputs:
        outputs = Outputs()
        hook, publisher = self.shell.display_trap.hook, self.shell.display_pub
        self.shell.display_trap.hook = _hook(self.shell, outputs, count)
        self.shell.display_pub = _publisher(outputs)
        warned = _Warned(outputs)
        logging.getLogger("transformers").addHandler(warned)
        try:
            with redirect_stdout(_Stream(outputs, "stdout")), redirect_stderr(_Stream(outputs, "stderr")):
                result = self.shell.run_cell(source)
        finally:
            logging.getLogger("transformers").removeHandler(warned)
            self.shell.display_trap.hook, self.shell.display_pub = hook, publisher
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            raise CellFailed(f"{where}: {''.join(traceback.format_exception(error))}") from error
        said = [one["text"] for one in outputs if one.get("name") == "stderr"]
        if said:
            raise CellFailed(f"{where} wrote to stderr: {''.join(said)}")
        return outputs


def _hook(shell: InteractiveShell, outputs: Outputs, count: int) -> Any:
    class Hook(DisplayHook):
        def __call__(self, result: Any = None) -> None:
            if result is None or self.quiet():
                return
            data, metadata = shell.display_formatter.format(result)
            data = _as_json(data)
            outputs.append(nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=count))

    return Hook(shell=shell)


def _publisher(outputs: Outputs) -> DisplayPublisher:
    class Publisher(DisplayPublisher):
        def publish(self, data: Any, metadata: Any = None, **rest: Any) -> None:
            outputs.append(nbformat.v4.new_output("display_data", _as_json(data), metadata=metadata or {}))

    return Publisher()


def _as_json(data: dict[str, Any]) -> dict[str, Any]:
    """Bytes in base64, as notebooks hold them; of a picture in two formats the smaller one."""
    formats = sorted((len(data[kind]), kind) for kind in ("image/png", "image/jpeg") if kind in data)
    kept = {kind: value for kind, value in data.items() if kind not in [kind for _, kind in formats[1:]]}
    return {kind: b64encode(v).decode("ascii") if isinstance(v, bytes) else v for kind, v in kept.items()}


@contextmanager
def notebooks() -> Iterator[Notebooks]:
    """What runs notebooks; leaves nothing of IPython behind in the process or in the home folder."""
    from transformers.utils import logging as transformers_logging

    main, bars = sys.modules["__main__"], transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        config = Config()
        config.HistoryManager.enabled = False
        try:
            yield Notebooks(InteractiveShell.instance(config=config, ipython_dir=folder))
        finally:
            InteractiveShell.clear_instance()
            sys.modules["__main__"] = main
            if bars:
                transformers_logging.enable_progress_bar()


def read(name: str) -> Any:
    """A notebook of this folder by its name without ending."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def names() -> list[str]:
    """All notebooks of this folder."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def differences(shown: Any, made: Any) -> list[str]:
    """What a notebook shows that it no longer makes: kinds of outputs of every cell, and texts of those ``checked``."""
    told = []
    for number, (old, new) in enumerate(zip(shown.cells, made.cells, strict=True), 1):
        if old.cell_type != "code":
            continue
        checked = "checked" in old.metadata.get("tags", ())
        for what, of in (("kinds of output", _kinds), *((("text", _texts),) if checked else ())):
            before, now = of(old.outputs), of(new.outputs)
            if before != now:
                told.append(f"cell {number}: {what} was {before!r}, is {now!r}")
    return told


def _kinds(outputs: Sequence[Any]) -> list[str]:
    kinds = [f"{o.output_type} {o.get('name', '')} {' '.join(sorted(o.get('data', ())))}" for o in outputs]
    # Which of the two a picture is depends on its size alone.
    return [kind.replace("image/jpeg", "image").replace("image/png", "image") for kind in kinds]


def _texts(outputs: Sequence[Any]) -> list[str]:
    return [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]


def main() -> int:
    """Run what was asked for; 1 if something differs."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("names", nargs="*", help="without .ipynb; default: all")
    options.add_argument("--check", action="store_true", help="write nothing")
    given = options.parse_args()
    wrong = 0
    with notebooks() as runner:
        for name in given.names or names():
            shown = read(name)
            made = runner.run(shown, name)
            if given.check:
                found = differences(shown, made)
                print(name, "as shown" if not found else "\n  ".join(["differs:", *found]))
                wrong += bool(found)
            else:
                nbformat.validate(made)
                nbformat.write(made, FOLDER / f"{name}.ipynb")
                print(name, (FOLDER / f"{name}.ipynb").stat().st_size // 1000, "kB")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
