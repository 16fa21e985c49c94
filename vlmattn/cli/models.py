"""``vlmattn models``."""

from __future__ import annotations

import typer

from vlmattn.cli.options import Json, print_json


def models(json: Json = False) -> None:
    """The model families that are supported, and what is known of each."""
    from dataclasses import asdict

    from vlmattn.adapters import families

    rows = families()
    if json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        most = "any number of" if row.max_images is None else f"at most {row.max_images}"
        typer.echo(f"{row.name}: {', '.join(row.model_types)}")
        typer.echo(f"  towers    {', '.join(row.towers)}")
        typer.echo(f"  pictures  {most}")
        for rule in row.geometry:
            typer.echo(f"  geometry  {rule}")
        if row.notes:
            typer.echo(f"  note      {row.notes}")
