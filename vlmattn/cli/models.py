"""``vlmattn models``."""

from __future__ import annotations

from vlmattn.cli.options import Json, print_json


def models(json: Json = False) -> None:
    """The model families that are supported, and what is known of each."""
    from dataclasses import asdict

    from vlmattn.adapters import families

    rows = families()
    if json:
        print_json([asdict(row) for row in rows])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("family", "model types", "towers", "pictures", "geometry"):
        table.add_column(name, overflow="fold")
    for row in rows:
        most = "any" if row.max_images is None else str(row.max_images)
        table.add_row(row.name, ", ".join(row.model_types), ", ".join(row.towers), most, "; ".join(row.geometry))
    Console(highlight=False).print(table)
