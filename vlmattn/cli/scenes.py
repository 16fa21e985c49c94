"""``vlmattn scenes``: write data sets of drawn scenes, and score models on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vlmattn.cli.options import Device, Dtype, Json, Kernel, Quiet, Revision, load_model, print_json

if TYPE_CHECKING:
    from vlmattn.api import Vlm
    from vlmattn.scene.evaluation import Answerer


class _WritesByDefault(TyperGroup):
    """``scenes FOLDER`` is short for ``scenes write FOLDER``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["write", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_WritesByDefault,
    help="Data sets of drawn scenes, and how well a model answers questions about them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def write(
    out: Annotated[Path, typer.Argument(help="Folder to write; continued if a run was stopped.")],
    split: Annotated[
        str, typer.Option(help="train, validation, test, adversarial, popular, random, binding, tiny, crowded.")
    ] = "test",
    count: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a data set of scenes: pictures, questions, answers and boxes, as PNG, JSONL and Parquet."""
    from vlmattn.cli.progress import progress
    from vlmattn.scene import write_split

    with progress("scenes", show=not (json or quiet)) as tick:
        write_split(out, split, count, seed, progress=tick)
    if json:
        print_json({"folder": str(out), "split": split, "count": count, "seed": seed})
    elif not quiet:
        typer.echo(f"wrote {count} {split} scenes to {out}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="'scene', a hub name, or a folder.")] = "scene",
    split: Annotated[list[str] | None, typer.Option(help="Repeat for several; default: all of the card.")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes of the test split; 300 at most of others.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 32,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON file of the scores; a stopped run goes on from it.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on questions about scenes: the tables of a model card, for any checkpoint."""
    from vlmattn.cli.progress import progress
    from vlmattn.scene.card import SPLITS_SCORED, score_model, tables

    wanted = tuple(split or SPLITS_SCORED)
    _check_splits(wanted)
    vlm = load_model(model, device, dtype, revision, attention)
    scores: dict[str, Any] = {}
    for name in wanted:
        with progress(name, show=not (json or quiet)) as tick:
            found = _kept(out, model, seed, name, scenes) or score_model(
                _answerer(vlm), scenes, batch=batch, seed=seed, splits=(name,), progress=lambda _, d, t: tick(d, t)
            )
        scores = found | {"model": model, "splits": scores.get("splits", {}) | found["splits"]}
        _keep(out, scores)
    if json:
        print_json(scores)
    elif not quiet:
        typer.echo(tables(scores))


def _check_splits(names: tuple[str, ...]) -> None:
    from vlmattn.core.errors import SpecError
    from vlmattn.scene import SPLITS

    for name in names:
        if name not in SPLITS:
            raise SpecError(f"split {name!r} does not exist; splits are {', '.join(SPLITS)}")


def _answerer(vlm: Vlm) -> Answerer:
    from vlmattn.capture import CaptureSpec

    least = CaptureSpec(rows="last", layers=[0], reduce="mean", top_k=0)

    def answer(images: list[Any], questions: list[str]) -> list[str]:
        return [run.answer for run in vlm.ask_many(list(zip(images, questions, strict=True)), capture=least)]

    return answer


def _kept(out: Path | None, model: str, seed: int, split: str, scenes: int) -> dict[str, Any] | None:
    # What an earlier run of the same command has already scored.
    import json

    from vlmattn.core.errors import FileError

    if out is None or not out.exists():
        return None
    try:
        held = json.loads(out.read_text(encoding="utf-8"))
        same = held["model"] == model and held["seed"] == seed
        found = held["splits"].get(split)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{out} holds no scores of this program ({error}): choose another file") from error
    if not same:
        raise FileError(f"{out} holds scores of {held['model']}, seed {held['seed']}: choose another file")
    wanted = scenes if split == "test" else min(scenes, 300)
    return {**held, "splits": {split: found}} if found and found["scenes"] == wanted else None


def _keep(out: Path | None, scores: dict[str, Any]) -> None:
    from vlmattn.core.files import write_json

    if out is not None:
        write_json(out, scores)
