"""A small table of drawn scenes, bad rows among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import vlmattn as va
from vlmattn.evaluate import Decoding
from vlmattn.pipelines import Drawing, Output, OverlayJob, OverlaysDone, open_table, overlay_table

WORDS = (None, "the|color", ["zebra", "color"], "zebra")


def write_table(folder: Path, rows: int = 14) -> Path:
    """``table.jsonl`` with its pictures; every fifth row cannot be asked."""
    folder.mkdir(exist_ok=True)
    lines = []
    for number in range(rows):
        scene, questions = va.scene.split_item("test", 0, number)
        scene.image.resize((90, 60)).save(folder / f"{number}.png")
        row: dict[str, Any] = {"image": f"{number}.png", "question": questions[0].text, "id": f"a/é {number // 2}"}
        row |= {"words": WORDS[number % 4], "answer": "it is green" if number % 6 == 0 else None}
        lines.append(row | ({"image": "missing.png"} if number % 5 == 4 else {}))
    path = folder / "table.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def job(**changes: Any) -> OverlayJob:
    """Few tokens, bare pictures, three rows at once."""
    given = {"decoding": Decoding(max_new_tokens=6), "drawing": Drawing(figure=False), "batch": 3} | changes
    return OverlayJob(**given)


def done(table: Path, out: Path, *, vlm: Any = None, table_kind: str = "jsonl", **changes: Any) -> OverlaysDone:
    """The table asked."""
    return overlay_table(open_table(str(table)), Output(out, table_kind), job(**changes), vlm=vlm)


def whole(folder: Path) -> dict[str, bytes]:
    """All that a run wrote for its user: the table and the overlays."""
    inner = ("shards", "lock", "manifest.json")
    files = [p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] not in inner]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
