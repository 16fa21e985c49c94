"""``vlmattn report``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.choices import check_question, choice, own_knobs, read_pictures
from vlmattn.cli.options import (
    Answer,
    Device,
    Dtype,
    Fps,
    Frames,
    Image,
    Json,
    Kernel,
    MaxNewTokens,
    More,
    Question,
    Quiet,
    Revision,
    System,
    load_model,
    print_json,
)
from vlmattn.core.errors import FileError, SpecError

if TYPE_CHECKING:
    from vlmattn.api import Vlm
    from vlmattn.capture import Steering
    from vlmattn.core.videos import Visual
    from vlmattn.report import Panel

_ENDINGS = (".html", ".htm")


def report(
    image: Image,
    question: Question,
    more: More = None,
    questions: Annotated[
        list[str] | None, typer.Option("--question", help="A further question about the same; repeat for more.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="The page: .html.")] = "report.html",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="'scene', a hub name, or a folder; repeat to see models side by side."),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare", help="A further method, beside raw attention, as for 'map --method'; repeat for more."
        ),
    ] = None,
    steering: Annotated[
        list[str] | None,
        typer.Option(help="'var', 'var:general' or 'var:p=0.6+vcd', beside the plain answer; repeat for more."),
    ] = None,
    heads: Annotated[
        list[str] | None, typer.Option(help="Presets to choose from, besides all heads; default: the model's own.")
    ] = None,
    sinks: Annotated[
        bool, typer.Option("--sinks", help="Look for attention sinks: mark them, or leave them out.")
    ] = False,
    ground: Annotated[
        bool,
        typer.Option("--ground", help="Test whether each word rests on what it looks at: six pictures more a word."),
    ] = False,
    detector: Annotated[
        str | None, typer.Option(help="File of 'vlmattn detect MODEL --save': colours words by risk.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page; default: the question.")] = "",
    colours: Annotated[str, typer.Option(help="ember, lagoon, dusk or grey.")] = "ember",
    frames: Frames = None,
    fps: Fps = None,
    answer: Answer = None,
    system: System = None,
    max_new_tokens: MaxNewTokens = 64,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a page, one file that needs no network: point at a word and see where the model looked."""
    from vlmattn.cli.progress import progress
    from vlmattn.report import write_report

    models, asked = model or ["scene"], [question, *(questions or [])]
    methods = list(dict.fromkeys(["raw", *(compare or [])]))
    changes = _checked(
        out, models, methods, steering or [], asked, 1 + len(more or []), answer, system, colours, detector
    )
    pictures = read_pictures([image, *(more or [])], frames, fps)
    options: dict[str, Any] = {"methods": methods, "heads": heads, "sinks": sinks or None, "test": ground}
    options["risk"] = detector is not None
    panels: list[Panel] = []
    with own_knobs(), progress("answers", show=not (quiet or json)) as tick:
        total = len(models) * len(changes) * len(asked)
        for name in models:
            vlm = load_model(name, device, dtype, revision, attention)
            vlm.use_detector(detector)
            given = {"answer": answer, "system": system, "max_new_tokens": max_new_tokens}
            for made in _panels(vlm, pictures, asked, changes, given, options):
                panels += made
                tick(len(panels) // len(methods), total)
    write_report(out, panels, title=title, colours=colours)
    if json:
        told = [{"title": p.title, "method": p.method, "answer": "".join(t for t, _ in p.answer)} for p in panels]
        print_json({"file": out, "panels": told})
    elif not quiet:
        for panel in panels:
            typer.echo(f"{panel.title}, {panel.method}: {''.join(text for text, _ in panel.answer) or '(no answer)'}")
        typer.echo(f"wrote {out}")


def _panels(
    vlm: Vlm,
    pictures: list[Visual],
    asked: list[str],
    changes: list[list[Steering]],
    given: dict[str, Any],
    options: dict[str, Any],
) -> Iterator[list[Panel]]:
    """The panels of one model, answer by answer: every question, plain and steered."""
    from vlmattn.api.own_heads import own_heads

    for name in options["heads"] or ():
        own_heads(vlm, name)  # a preset that does not exist is told before anything is asked
    for question in asked:
        for change in changes:
            run = vlm.ask(pictures, question, steering=change, **given)
            yield run.panels(**options)


def _checked(
    out: str,
    models: list[str],
    methods: list[str],
    steering: list[str],
    asked: list[str],
    pictures: int,
    answer: str | None,
    system: str | None,
    colours: str,
    detector: str | None,
) -> list[list[Steering]]:
    """The steering of each answer, plain first; whatever cannot be is told before a model is loaded.

    Raises:
        FileError: a place or an ending that a page cannot be written to. SpecError: a method, steering or colours that
            do not exist, more panels than a page holds, or a detector beside several models.
    """
    from pathlib import Path

    from vlmattn.core.files import check_can_write
    from vlmattn.overlay import colour_table
    from vlmattn.report.page import MOST_PANELS
    from vlmattn.steering import steering_of

    if Path(out).suffix.lower() not in _ENDINGS or Path(out).name.lower() in _ENDINGS:
        raise FileError(f"{out!r} must end in .html, such as report.html")
    check_can_write(out)
    colour_table(colours)
    for method in methods:
        choice(method, None, None)
    for one in asked:
        check_question(one, pictures, answer, system)
    if detector is not None and len(models) > 1:
        raise SpecError("a detector is of one model: give --detector with one --model")
    changes: list[list[Steering]] = [[], *([steering_of(text)] for text in steering)]
    count = len(models) * len(methods) * len(changes) * len(asked)
    if count > MOST_PANELS:
        raise SpecError(f"these are {count} panels, and a page shows at most {MOST_PANELS}: write several files")
    return changes
