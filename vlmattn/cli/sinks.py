"""``vlmattn sinks``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from vlmattn.api import Run, Vlm
    from vlmattn.core.videos import Visual
    from vlmattn.sinks import SinkCoordinates, Sinks


def sinks(
    image: Image,
    question: Question,
    more: More = None,
    model: Model = "scene",
    rule: Annotated[
        str, typer.Option(help="massive (phi of the residual stream) or received (attention received, ACT).")
    ] = "massive",
    tau: Annotated[float | None, typer.Option(help="Threshold on phi; of 'massive'.")] = None,
    tau_relative: Annotated[float | None, typer.Option(help="The same over the root of the width.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Times an even share of attention; of 'received'.")] = None,
    coordinates: Annotated[
        str | None, typer.Option(help="Sink coordinates, such as '1415,2533'; default: published or calibrated ones.")
    ] = None,
    calibration: Annotated[str | None, typer.Option(help="Read a calibration written by --save-calibration.")] = None,
    save_calibration: Annotated[
        str | None, typer.Option(help="Calibrate, and write the coordinates to this JSON file.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Numbers: '1', '4-8', '1,3,-1'; default: all with sinks.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Picture of the sinks (PNG, WebP, JPEG), or NPZ or JSON.")
    ] = None,
    picture: Annotated[int, typer.Option(min=0, help="Which picture to draw, from 0, if there are several.")] = 0,
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
    """Which tokens and patches are attention sinks, in which layers, and how much of the attention they take."""
    from vlmattn.api.sinks import check_rule

    given = {"tau": tau, "tau_relative": tau_relative, "alpha": alpha, "coordinates": coordinates}
    options = _options(rule, given, layers, calibration, save_calibration)
    paths = [image, *(more or [])]
    if picture >= len(paths):
        raise SpecError(f"--picture {picture} does not exist: there are {len(paths)}, counted from 0")
    check_question(question, len(paths), answer, system)
    known = _read_calibration(calibration, save_calibration)
    if out is not None:
        check_map_file(out)
    pictures = read_pictures(paths, frames, fps)
    _check_drawn(out, pictures[picture])
    vlm = load_model(model, device, dtype, revision, attention)
    check_rule(vlm, rule, options)
    if known is not None:
        check_rule(vlm, rule, options | {"coordinates": known})
    with own_knobs():
        _calibrate(vlm, known, save_calibration)
        run = vlm.ask(pictures, question, answer=answer, system=system, max_new_tokens=max_new_tokens)
        found = run.sinks(rule, **options)  # type: ignore[arg-type]
    _show(run, found, out, picture, json=json, quiet=quiet)


def _options(
    rule: str, given: dict[str, Any], layers: str | None, calibration: str | None, save: str | None
) -> dict[str, Any]:
    if rule not in ("massive", "received"):
        raise SpecError(f"--rule must be massive or received, got {rule!r}")
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if (name == "alpha") != (rule == "received"):
            raise SpecError(f"--{name.replace('_', '-')} does not go with --rule {rule}")
    if rule == "received" and (calibration or save):
        raise SpecError("a calibration does not go with --rule received, which needs none")
    if sum(one is not None for one in (given["coordinates"], calibration, save)) > 1:
        raise SpecError("give one of --coordinates, --calibration and --save-calibration")
    if "coordinates" in options:
        options["coordinates"] = numbers(options["coordinates"], "--coordinates")
    if layers is not None:
        options["layers"] = numbers(layers, "--layers")
    return options


def _read_calibration(path: str | None, save: str | None) -> SinkCoordinates | None:
    from vlmattn.core.files import check_can_write
    from vlmattn.sinks import SinkCoordinates

    if save is not None:
        check_can_write(save)
    return SinkCoordinates.load(path) if path is not None else None


def _calibrate(vlm: Vlm, known: SinkCoordinates | None, save: str | None) -> None:
    if save is not None:
        vlm.calibrate_sinks().save(save)
    elif known is not None:
        vlm.sink_coordinates = known


def _show(run: Run, found: Sinks, out: str | None, picture: int, *, json: bool, quiet: bool) -> None:
    file = _draw(run, found, out, picture) if out is not None else None
    if json:
        print_json({"answer": run.answer, "sinks": found.to_dict(), "file": None if file is None else str(file)})
    elif not quiet:
        typer.echo(run.answer or "(the model gave no answer)")
        typer.echo(str(found))
        if file is not None:
            typer.echo(f"wrote {file}")


def _check_drawn(out: str | None, seen: Visual) -> None:
    from vlmattn.core.videos import Video

    if out is not None and isinstance(seen, Video) and Path(out).suffix.lower() == ".npz":
        raise SpecError(
            f"{out!r} would hold the pixels of one frame, and {seen.name} is a video: write a picture or JSON"
        )


def _draw(run: Run, found: Sinks, out: str, picture: int) -> Path:
    from vlmattn.api.video_look import VideoLook, look_at

    look = look_at(found.patch_map(picture), run.pictures[picture])
    if isinstance(look, VideoLook) or Path(out).suffix.lower() in (".npz", ".json"):
        return look.save(out)
    boxes = [token.box_xyxy for token in found.visual if token.image == picture and token.box_xyxy is not None]
    return look.save(out, box=boxes, peak=False)
