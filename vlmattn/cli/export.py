"""``vlmattn export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.choices import (
    check_normalisation,
    check_question,
    check_sinks,
    choice,
    own_knobs,
    read_pictures,
)
from vlmattn.cli.options import (
    Answer,
    Device,
    Dtype,
    Fps,
    Frames,
    Heads,
    Json,
    Kernel,
    Layers,
    MaxNewTokens,
    Method,
    Model,
    More,
    Quiet,
    Revision,
    Sinks,
    System,
    load_model,
    print_json,
)
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api import Run

_REGIONS = ("coco", "cvat", "label-studio", "fiftyone")
# Options of one kind of format each, by the names that the command line has for them.
_OF = {
    "size": ("figure",),
    "over": ("figure", "animation"),
    "methods": ("figure",),
    "rate": ("animation",),
    "max_side": ("animation",),
    "quantile": _REGIONS,
    "most": _REGIONS,
}


def export(
    image: Annotated[str, typer.Argument(help="The picture or video; or a run saved before (.safetensors).")],
    question: Annotated[str | None, typer.Argument(help="The question; of a saved run, leave it out.")] = None,
    words: Annotated[
        list[str] | None, typer.Argument(help="Words or phrases of answer or question; default: all of the answer.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="figure, animation, coco, cvat, label-studio, fiftyone, trace, words or maps; default: by the ending "
            "of --out (.pdf, .svg, .png, .webp; .gif, .mp4; .safetensors; .parquet).",
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="File, or folder for annotations.")] = "export.pdf",
    more: More = None,
    frames: Frames = None,
    fps: Fps = None,
    model: Model = "scene",
    method: Method = "raw",
    layers: Layers = None,
    heads: Heads = None,
    normalise: Annotated[str | None, typer.Option(help="none, share, uniform, max, minmax, rank.")] = None,
    sinks: Sinks = "keep",
    picture: Annotated[int | None, typer.Option(min=0, help="Of several pictures, this one only, from 0.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Of a figure: single, onehalf, double, or a width in inches; default: single.")
    ] = None,
    over: Annotated[
        str | None, typer.Option(help="Figure: layers, a column each. Animation: tokens (default) or layers.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Figure: methods side by side, as 'raw,value,rollout', each as shares.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Animation: frames a second; default: 2.")] = None,
    max_side: Annotated[int | None, typer.Option(help="Animation: longest side of pictures; default: 960.")] = None,
    quantile: Annotated[
        float | None, typer.Option(help="Annotations: regions are pixels at or above this quantile; default: 0.9.")
    ] = None,
    most: Annotated[int | None, typer.Option(help="Annotations: regions of a map, the largest first.")] = None,
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
    """Write maps as figures, animations, annotations, tables, or the whole run, to be read by other programs."""
    from vlmattn.api.exporting import kind_of

    kind = kind_of(out, format)
    given = {"size": _size(size), "over": over, "methods": _names(methods), "rate": rate}
    own = _own(kind, given | {"max_side": max_side, "quantile": quantile, "most": most})
    wanted, saved = choice(method, layers, heads), _is_saved(image)
    named = [word for word in (question if saved else None, *(words or [])) if word is not None]
    _check(kind, wanted.read | {"words": named, "normalise": normalise, "picture": picture, "sinks": sinks})
    if saved:
        run = _saved(image, more)
    else:
        paths = [image, *(more or [])]
        check_question(question or "", len(paths), answer, system)
        pictures = read_pictures(paths, frames, fps)
        vlm = load_model(model, device, dtype, revision, attention)
        with own_knobs():
            run = vlm.ask(
                pictures, question or "", answer=answer, system=system, max_new_tokens=max_new_tokens,
                capture=wanted.spec(vlm),
            )  # fmt: skip
    read = {name: value for name, value in wanted.read.items() if value not in (None, "raw")}
    read |= {} if normalise is None else {"normalise": normalise}
    read |= {} if sinks == "keep" else {"sinks": sinks}
    read |= {} if picture is None else {"image": picture}
    _write(run, out, kind, named, own | read, json=json, quiet=quiet)


def _is_saved(path: str) -> bool:
    from vlmattn.export.traces import is_trace

    return is_trace(path)


def _saved(path: str, more: Any) -> Run:
    from vlmattn.api import load_run

    if more:
        raise SpecError(f"{path} is a saved run, which has its pictures: leave out --image")
    return load_run(path)


def _own(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options of the chosen format, by the names that :meth:`Run.export` has for them.

    Raises:
        SpecError: an option of another format.
    """
    said = {name: value for name, value in given.items() if value is not None}
    wrong = [name for name in said if kind not in _OF[name]]
    if wrong:
        told = f"--{wrong[0].replace('_', '-')} goes with --format {' or '.join(_OF[wrong[0]])}"
        raise SpecError(f"{told}, and this writes {kind}")
    return {"fps" if name == "rate" else name: value for name, value in said.items()}


def _check(kind: str, read: dict[str, Any]) -> None:
    """What can be told to be wrong before a model is loaded."""
    check_sinks(read["sinks"])
    if read["normalise"] is not None:
        check_normalisation(read["normalise"])
    if any(not word.strip() for word in read["words"]):
        raise SpecError("a word to look for is empty: leave it out for all words of the answer")
    if kind in ("trace", "words") and read["words"]:
        raise SpecError(f"--format {kind} takes all words of the answer: leave out {', '.join(read['words'])}")


def _size(text: str | None) -> str | float | None:
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _write(run: Run, out: str, kind: str, words: Any, options: dict[str, Any], *, json: bool, quiet: bool) -> None:
    written = run.export(Path(out), words or None, format=kind, **options)
    if json:
        files, skipped = [str(file) for file in written.files], list(written.skipped)
        print_json({"answer": run.answer, "format": kind, "files": files, "skipped": skipped})
    elif not quiet:
        typer.echo(run.answer or "(the model gave no answer)")
        for line in written.skipped:
            typer.echo(f"left out {line}")
        typer.echo(f"wrote {written.file}" + f" and {len(written.files) - 1} more" * (len(written.files) > 1))
