"""``vlmattn models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vlmattn.cli.options import Json, Quiet, print_json
from vlmattn.core.errors import UnsupportedModel

if TYPE_CHECKING:
    from vlmattn.adapters.support import Support


def models(
    kind: Annotated[str | None, typer.Argument(help="A model type, for all that is known of it.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The model types that are supported or refused, and the presets of maps; or all that is known of one type."""
    from dataclasses import asdict

    from vlmattn.adapters.support import support_table

    rows = support_table()
    if kind is not None:
        rows = tuple(row for row in rows if row.is_called(kind))
        if not rows:
            raise UnsupportedModel(f"{kind!r} is no model type that is known; 'vlmattn models' lists them")
    if json:
        print_json([asdict(row) for row in rows])
    elif not quiet:
        for row in rows:
            _tell(row, in_full=kind is not None)
        if kind is None:
            _tell_presets()


def _tell(row: Support, *, in_full: bool) -> None:
    if not row.supported:
        typer.echo(f"{row.model_type:<24} refused: {row.reason}")
        return
    typer.echo(f"{row.model_type:<24} {', '.join(row.families)}")
    for rule in row.geometry if in_full else ():
        typer.echo(f"  geometry  {rule}")
    if in_full:
        typer.echo(f"  videos    {row.videos}")
    if in_full and row.notes:
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
