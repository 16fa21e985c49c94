"""``vlmattn scenes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmattn.cli.options import Json, Quiet, print_json


def scenes(
    out: Annotated[Path, typer.Argument(help="Folder to write; continued if a run was stopped.")],
    split: Annotated[str, typer.Option(help="train, validation, test, adversarial, binding, tiny …")] = "test",
    count: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 100,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
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
