"""``vlmattn models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vlmattn.cli.options import Json, Quiet, print_json

if TYPE_CHECKING:
    from vlmattn.adapters import FamilySpec


def models(json: Json = False, quiet: Quiet = False) -> None:
    """The model families that are supported and what is known of each; the presets of maps and their papers."""
    from dataclasses import asdict

    from vlmattn.adapters import families

    rows = families()
    if json:
        print_json([asdict(row) for row in rows])
    elif not quiet:
        _tell_families(rows)
        _tell_presets()


def _tell_families(rows: tuple[FamilySpec, ...]) -> None:
    for row in rows:
        most = "any number of" if row.max_images is None else f"at most {row.max_images}"
        typer.echo(f"{row.name}: {', '.join(row.model_types)}")
        typer.echo(f"  towers    {', '.join(row.towers)}")
        typer.echo(f"  pictures  {most}")
        for rule in row.geometry:
            typer.echo(f"  geometry  {rule}")
        if row.notes:
            typer.echo(f"  note      {row.notes}")


def _tell_presets() -> None:
    from vlmattn.maps import HEAD_PRESETS, PRESETS, ROW_PRESETS

    typer.echo("\npresets of layers (carried to another depth in proportion)")
    for layers in PRESETS.values():
        place = f"{layers.first}-{layers.last} of {layers.depth}" if layers.source else "all"
        _tell_preset(layers.name, f"{place}; {layers.note}", layers.source)
    typer.echo("presets of heads (of one model; not carried over)")
    for heads in HEAD_PRESETS.values():
        _tell_preset(heads.name, heads.note, heads.source)
    typer.echo("presets of rows")
    for rows in ROW_PRESETS.values():
        _tell_preset(rows.name, rows.note, rows.source)


def _tell_preset(name: str, what: str, source: str) -> None:
    typer.echo(f"  {name:<13} {what}" + (f" ({source})" if source else ""))
