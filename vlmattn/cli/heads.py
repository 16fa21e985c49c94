"""``vlmattn heads``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmattn.cli.options import (
    Answer,
    Device,
    Dtype,
    Json,
    Kernel,
    MaxNewTokens,
    Quiet,
    Revision,
    load_model,
    print_json,
)
from vlmattn.core.errors import FileError, SpecError

if TYPE_CHECKING:
    from vlmattn.heads import HeadAtlas, HeadSample

_PICTURES, _ARRAYS = (".png", ".webp", ".jpg", ".jpeg"), (".json", ".npz")


def heads(
    model: Annotated[
        str, typer.Argument(help="'scene' or another model in the box, a hub name, or a folder.")
    ] = "scene",
    image: Annotated[list[str] | None, typer.Option("--image", help="A picture; repeat for more.")] = None,
    question: Annotated[
        list[str] | None, typer.Option("--question", help="One question for all pictures, or one for each.")
    ] = None,
    answer: Answer = None,
    samples: Annotated[
        str | None,
        typer.Option(help="JSONL file: image, question and, if known, answer, boxes, words, kind on each line."),
    ] = None,
    scenes: Annotated[
        int | None, typer.Option(min=1, help="Questions about drawn scenes instead of your own; default: 40.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the scenes; default: validation.")] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(help="A score, or 'all'; repeat for several; default: all but the ablations."),
    ] = None,
    variant: Annotated[str, typer.Option(help="Of localization heads: paper or code.")] = "paper",
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Heat maps (PNG, WebP, JPEG), or the atlas (JSON, NPZ).")
    ] = None,
    save_heads: Annotated[
        str | None,
        typer.Option(
            help="JSON file of the best heads by score; as vlmattn_heads.json in a model's folder they are its own."
        ),
    ] = None,
    count: Annotated[int, typer.Option("-k", min=1, help="How many heads of a score to save.")] = 3,
    keep: Annotated[
        str | None, typer.Option(help="Folder of finished samples; a stopped atlas goes on from it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals, and of repeated texts.")] = 0,
    max_new_tokens: MaxNewTokens = 16,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Which attention heads carry vision: scores of every head on pictures and questions, with the best of each."""
    from vlmattn.cli.progress import progress
    from vlmattn.heads import save_presets
    from vlmattn.heads.kinds import score_names
    from vlmattn.heads.localization import check_variant

    named = None if not score else "all" if score == ["all"] else score
    score_names(named)
    check_variant(variant)
    chosen = _samples(image, question, answer, samples, scenes, split)
    _check_files(out, save_heads)
    vlm = load_model(model, device, dtype, revision, attention)
    with progress("heads", show=not (json or quiet)) as tick:
        atlas = vlm.head_atlas(
            chosen, scores=named, variant=variant, keep=keep, seed=seed, max_new_tokens=max_new_tokens, progress=tick
        )
    if save_heads is not None:
        save_presets(save_heads, atlas.presets(count), model=vlm.name, how=f"vlmattn heads, {len(chosen)} samples")
    files = [str(path) for path in (_written(atlas, out), save_heads) if path is not None]
    if json:
        print_json(atlas.to_dict() | {"files": files})
    elif not quiet:
        typer.echo(str(atlas))
        for file in files:
            typer.echo(f"wrote {file}")


def _samples(
    image: list[str] | None,
    question: list[str] | None,
    answer: str | None,
    samples: str | None,
    scenes: int | None,
    split: str | None,
) -> tuple[HeadSample, ...]:
    from vlmattn.heads import read_samples, scene_samples

    if sum((bool(image), samples is not None, scenes is not None)) > 1:
        raise SpecError("give one of --image, --samples and --scenes")
    if not image and (question or answer is not None):
        raise SpecError("--question and --answer go with --image")
    if split is not None and (image or samples is not None):
        raise SpecError("--split goes with drawn scenes only")
    if samples is not None:
        return read_samples(samples)
    return _own(image, question, answer) if image else scene_samples(scenes or 40, split=split or "validation")


def _own(image: list[str], question: list[str] | None, answer: str | None) -> tuple[HeadSample, ...]:
    from vlmattn.cli.choices import check_question
    from vlmattn.core.images import load_image
    from vlmattn.heads import HeadSample

    asked = list(question or ())
    if len(asked) not in (1, len(image)):
        raise SpecError(f"{len(image)} pictures came with {len(asked)} questions: give one --question, or one for each")
    asked = asked * len(image) if len(asked) == 1 else asked
    for one in asked:
        check_question(one, 1, answer)
    pictures = [load_image(path).image for path in image]
    return tuple(HeadSample(seen, one, answer) for seen, one in zip(pictures, asked, strict=True))


def _check_files(out: str | None, save_heads: str | None) -> None:
    from vlmattn.core.files import check_can_write

    if out is not None:
        if Path(out).suffix.lower() not in (*_PICTURES, *_ARRAYS):
            raise FileError(f"{out!r} has no known ending: expected {', '.join((*_PICTURES, *_ARRAYS))}")
        check_can_write(out)
    if save_heads is not None:
        if Path(save_heads).suffix.lower() != ".json":
            raise FileError(f"--save-heads writes JSON, got {save_heads!r}")
        check_can_write(save_heads)


def _written(atlas: HeadAtlas, out: str | None) -> Path | None:
    if out is None:
        return None
    path = Path(out)
    return atlas.save(path) if path.suffix.lower() in _ARRAYS else atlas.picture().save(path)
