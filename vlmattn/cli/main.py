"""The ``vlmattn`` command.

Exit codes: 0 done; 1 the model or a check failed (verification, capture); 2 something given cannot be used (files,
prompts, options, models); 130 interrupted. Errors are one line on standard error, never a traceback (set
``VLMATTN_TRACEBACK=1`` to see one).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vlmattn.cli import (
    app as app_command,
)
from vlmattn.cli import (
    ask,
    demo,
    detect,
    evaluate,
    export,
    faithfulness,
    gaze,
    heads,
    lens,
    models,
    overlay,
    refine,
    report,
    scenes,
    score,
    serve,
    sinks,
    verify,
)
from vlmattn.core.errors import (
    BudgetExceeded,
    DependencyMissing,
    InputError,
    LayoutError,
    ModelLoadError,
    UnsupportedModel,
    VlmattnError,
)

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
app.command("overlay")(overlay.overlay)
app.command("sinks")(sinks.sinks)
app.command("heads")(heads.heads)
app.command("lens")(lens.lens)
app.command("detect")(detect.detect)
app.command("faithfulness")(faithfulness.faithfulness)
app.command("refine")(refine.refine)
app.command("report")(report.report)
app.command("export")(export.export)
app.command("models")(models.models)
app.command("verify")(verify.verify)
app.command("evaluate")(evaluate.evaluate)
app.command("score")(score.score)
app.command("compare")(score.compare)
app.command("app")(app_command.app)
app.command("serve")(serve.serve)
app.add_typer(scenes.app, name="scenes")
app.add_typer(gaze.app, name="gaze")

INTERRUPTED = 130
_UNUSABLE = (InputError, ModelLoadError, UnsupportedModel, LayoutError, BudgetExceeded, DependencyMissing)
# Typer brings its own copy of click from some version on; its errors are found by the name of their base.
_USAGE: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_NOISY = r"(torch|transformers|torchvision|huggingface_hub|tokenizers|accelerate|PIL|numpy)(\.|$)"


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
    _print_every_character()
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _leave_closed_pipe()
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        _say("interrupted")
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    try:
        code = app(args=list(args) if args is not None else None, prog_name="vlmattn", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as done:
        # Typer itself answers a closed pipe with exit code 1.
        if isinstance(done.__context__, BrokenPipeError):
            raise BrokenPipeError from done
        return done.code if isinstance(done.code, int) else 1
    except _USAGE as error:
        return _misused(error)
    except (typer.Abort, EOFError):
        return INTERRUPTED
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except VlmattnError as error:
        return _report(error, 2 if isinstance(error, _UNUSABLE) else 1)
    except Exception as error:  # noqa: BLE001 (the last resort: whatever it is, users get one line)
        return _report(error, 1, f"{type(error).__name__}: ", " (set VLMATTN_TRACEBACK=1 to see where)")


def _report(error: Exception, code: int, before: str = "", after: str = "") -> int:
    if os.environ.get("VLMATTN_TRACEBACK"):
        raise error
    _say(f"{before}{_one_line(error)}{after}")
    return code


def _misused(error: Any) -> int:
    """One line for arguments that do not fit, and exit code 2; the help where there are none at all."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return 2
    command = getattr(getattr(error, "ctx", None), "command_path", "vlmattn")
    _say(f"{' '.join(error.format_message().split()).rstrip('.')}; see {command} --help")
    return 2


def _say(text: str) -> None:
    print(f"vlmattn: {text}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _leave_closed_pipe() -> int:
    # Whoever read has seen enough. What is still in the buffer goes nowhere, or Python would complain on leaving.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _print_every_character() -> None:
    # What a terminal's encoding lacks is written as an escape instead of ending the command.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _quiet_libraries() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not os.environ.get("VLMATTN_TRACEBACK"):
        warnings.filterwarnings("ignore", module=_NOISY)
