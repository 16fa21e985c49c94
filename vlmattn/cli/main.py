"""The ``vlmattn`` command.

Exit codes: 0 done; 1 the model or a check failed (verification, capture); 2 something given cannot be used (files,
prompts, options); 130 interrupted. Errors are one line on standard error, never a traceback (set
``VLMATTN_TRACEBACK=1`` to see one).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from vlmattn.cli import ask, demo, models, scenes, verify
from vlmattn.core.errors import DependencyMissing, InputError, ModelLoadError, UnsupportedModel, VlmattnError

app = typer.Typer(
    name="vlmattn",
    help="Where a vision-language model looks, whether that look is real, and what to do when it is not.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("ask")(ask.ask)
app.command("map")(ask.map_command)
app.command("models")(models.models)
app.command("verify")(verify.verify)
app.command("scenes")(scenes.scenes)


def _version(show: bool) -> None:
    if show:
        import vlmattn

        typer.echo(f"vlmattn {vlmattn.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and leave.")
    ] = False,
) -> None:
    """Where a vision-language model looks, whether that look is real, and what to do when it is not."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in ``SystemExit``."""
    _quiet_libraries()
    try:
        app(args=list(args) if args is not None else None, standalone_mode=True)
    except VlmattnError as error:
        sys.exit(_report(error))
    except KeyboardInterrupt:
        print("vlmattn: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (OSError, MemoryError) as error:
        if os.environ.get("VLMATTN_TRACEBACK"):
            raise
        print(f"vlmattn: {type(error).__name__}: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _report(error: VlmattnError) -> int:
    if os.environ.get("VLMATTN_TRACEBACK"):
        raise error
    print(f"vlmattn: {_one_line(error)}", file=sys.stderr)
    return 2 if isinstance(error, (InputError, ModelLoadError, UnsupportedModel, DependencyMissing)) else 1


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _quiet_libraries() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
