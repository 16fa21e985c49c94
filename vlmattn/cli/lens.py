"""``vlmattn lens``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vlmattn.cli.choices import check_map_file, check_question, numbers, own_knobs, read_pictures
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
    Model,
    More,
    Question,
    Quiet,
    Revision,
    System,
    load_model,
    print_json,
)
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api import Run
    from vlmattn.api.patch_words import PatchWords


def lens(
    image: Image,
    question: Question,
    more: More = None,
    model: Model = "scene",
    layers: Annotated[
        str | None,
        typer.Option(
            help="States of layers, as '1' or '4-8': 0 enters the first, n leaves the last of n; default: all."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Words per patch.")] = 5,
    word: Annotated[
        str | None, typer.Option(help="Also the internal confidence of this word: its highest probability anywhere.")
    ] = None,
    mark_sinks: Annotated[bool, typer.Option("--mark-sinks", help="Find attention sinks and cross them out.")] = False,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Picture of the last layer read (PNG, WebP, JPEG), NPZ or JSON.")
    ] = None,
    picture: Annotated[int, typer.Option(min=0, help="Which picture to read, from 0, if there are several.")] = 0,
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
    """Which words every patch of a picture says, layer by layer (logit lens), drawn on the picture."""
    from vlmattn.api.states import check_layers

    paths = [image, *(more or [])]
    if picture >= len(paths):
        raise SpecError(f"--picture {picture} does not exist: there are {len(paths)}, counted from 0")
    if word is not None and not word.strip():
        raise SpecError("--word is empty")
    check_question(question, len(paths), answer, system)
    chosen = None if layers is None else numbers(layers, "--layers")
    if out is not None:
        check_map_file(out)
    pictures = read_pictures(paths, frames, fps)
    vlm = load_model(model, device, dtype, revision, attention)
    check_layers(vlm.model, chosen)
    with own_knobs():
        run = vlm.ask(pictures, question, answer=answer, system=system, max_new_tokens=max_new_tokens)
        found = run.patch_words(chosen, top=top, image=picture, sinks=run.sinks() if mark_sinks else None)
        sure = None if word is None else run.internal_confidence(word, image=picture, layers=chosen)
    _show(run, found, out, word, sure, json=json, quiet=quiet)


def _show(
    run: Run, found: PatchWords, out: str | None, word: str | None, sure: float | None, *, json: bool, quiet: bool
) -> None:
    file = found.save(out) if out is not None else None
    if json:
        told = {"answer": run.answer, "word": word, "internal_confidence": sure, "lens": found.to_dict()}
        print_json(told | {"file": None if file is None else str(file)})
    elif not quiet:
        typer.echo(run.answer or "(the model gave no answer)")
        typer.echo(str(found))
        if sure is not None:
            typer.echo(f"internal confidence of {word!r}: {sure:.4f}")
        if file is not None:
            typer.echo(f"wrote {file}")
