"""``vlmattn detect``."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmattn.cli.options import Device, Dtype, Json, Kernel, Quiet, Revision, load_model, print_json


def detect(
    model: Annotated[
        str, typer.Argument(help="'scene', 'scene-prior' or another model in the box, a hub name, or a folder.")
    ] = "scene-prior",
    task: Annotated[str, typer.Option(help="captions, or presence (yes to questions about presence).")] = "captions",
    split: Annotated[
        list[str] | None, typer.Option(help="Split of the scenes; repeat for more; default: adversarial, test.")
    ] = None,
    scenes: Annotated[int, typer.Option(min=5, help="Of each split, once to fit and once to measure.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes measured on.")] = 0,
    fit_seed: Annotated[int, typer.Option(min=0, help="Of the scenes that detectors are fitted on.")] = 1,
    draws: Annotated[int, typer.Option(min=1, help="Of the bootstrap.")] = 2000,
    cache: Annotated[str | None, typer.Option(help="Folder of finished parts, which are not run again.")] = None,
    markdown: Annotated[str | None, typer.Option(help="Write the table to this file.")] = None,
    save: Annotated[
        str | None, typer.Option(help="Write the detector to this file: vlm.use_detector(FILE) reads it.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How well made up words of a model can be told, by every score and by detectors, on drawn scenes."""
    from vlmattn.cli.progress import progress
    from vlmattn.core.files import atomic_write_text, check_can_hold, check_can_write
    from vlmattn.evaluate.detecting import DetectionPlan, measure_detection
    from vlmattn.evaluate.detection_table import detection_markdown

    plan = DetectionPlan(task, tuple(split or ("adversarial", "test")), scenes, fit_seed, seed, draws)  # type: ignore[arg-type]
    for place in (markdown, save):
        if place is not None:
            check_can_write(place)
    if cache is not None:
        check_can_hold(cache)
    vlm = load_model(model, device, dtype, revision, attention)
    vlm.known_sinks()
    with progress("words", show=not (quiet or json)) as tick:
        report, detector = measure_detection(vlm, plan, cache=cache, progress=tick)
    text = detection_markdown([report], f"vlmattn detect {model} --task {task} --scenes {scenes}")
    if markdown is not None:
        atomic_write_text(markdown, text)
    if save is not None:
        detector.save(save)
    if json:
        print_json(report.to_dict())
    elif not quiet:
        typer.echo(text)
