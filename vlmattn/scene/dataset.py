"""Writes splits of scenes as pictures with questions, answers and boxes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import atomic_write_bytes, atomic_write_text, write_json
from vlmattn.scene.generator import Scene
from vlmattn.scene.questions import Question
from vlmattn.scene.splits import SPLITS, split_item

FORMAT = 2
_LEFT_OVER = 60.0  # seconds


def write_split(
    folder: str | Path,
    split: str = "test",
    count: int = 100,
    seed: int = 0,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``count`` scenes of a split: ``images/*.png``, ``questions.jsonl``, ``questions.parquet``, ``README.md``.

    The same arguments give the same bytes. A run that was stopped goes on where it was; a finished folder is left as it
    is.

    Raises:
        SpecError: no such split, a count below 1 or a seed below 0. FileError: the folder holds something else.
    """
    if split not in SPLITS:
        raise SpecError(f"split {split!r} does not exist; splits are {', '.join(SPLITS)}")
    if count < 1:
        raise SpecError(f"count must be at least 1, got {count}")
    if seed < 0:
        raise SpecError(f"seed must be 0 or more, got {seed}")
    root = Path(folder)
    plan = {"format": FORMAT, "split": split, "count": count, "seed": seed}
    _claim(root, plan)
    _tidy(root)
    records: list[dict[str, Any]] = []
    for index in range(count):
        scene, questions = split_item(split, seed, index)
        name = f"images/{split}-{index:06d}.png"
        if not (root / name).is_file():
            atomic_write_bytes(root / name, png_bytes(scene))
        records += _records(f"{split}-{index:06d}", name, scene, questions)
        if progress is not None:
            progress(index + 1, count)
    lines = "".join(json.dumps(r, ensure_ascii=False, sort_keys=True) + "\n" for r in records)
    atomic_write_text(root / "questions.jsonl", lines)
    atomic_write_bytes(root / "questions.parquet", _parquet(records))
    atomic_write_text(root / "README.md", _card(plan, records))
    return root


def png_bytes(scene: Scene) -> bytes:
    """The picture as a PNG file."""
    stream = io.BytesIO()
    scene.image.save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def pixel_hash(scene: Scene) -> str:
    """SHA-256 of the pixels and their shape; equal on every machine, whatever writes the PNG."""
    shape = ",".join(str(n) for n in scene.pixels.shape)
    return hashlib.sha256(shape.encode() + scene.pixels.tobytes()).hexdigest()


def _claim(root: Path, plan: dict[str, Any]) -> None:
    marker = root / "split.json"
    if marker.is_file():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FileError(f"{marker} is not JSON ({error}): choose another folder") from error
        if found != plan:
            raise FileError(f"{root} holds another data set ({found}): choose another folder")
        return
    if root.exists() and (not root.is_dir() or any(not p.name.startswith(f".{marker.name}.") for p in root.iterdir())):
        raise FileError(f"{root} exists and is not a data set of this program: choose another folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make {root}: {error.strerror or error}") from error
    write_json(marker, plan)


def _tidy(root: Path) -> None:
    # A killed run leaves at most the file that it was writing, under a temporary name; a fresh one may be
    # another run's.
    (root / "images").mkdir(exist_ok=True)
    old = time.time() - _LEFT_OVER
    for pattern in (".split.json.*", ".questions.*", ".README.md.*", "images/.*.png.*"):
        for leftover in root.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                if leftover.stat().st_mtime < old:
                    leftover.unlink()


def _records(scene_id: str, image: str, scene: Scene, questions: tuple[Question, ...]) -> list[dict[str, Any]]:
    objects = [
        {"color": o.color, "shape": o.shape, "size": o.size, "box_xyxy": list(o.box_xyxy)} for o in scene.objects
    ]
    return [
        {
            "id": f"{scene_id}-{number}",
            "image": image,
            "image_wh": list(scene.image_wh),
            "kind": q.kind,
            "question": q.text,
            "answer": q.answer,
            "foil": q.foil,
            "target_boxes_xyxy": [list(scene.objects[t].box_xyxy) for t in q.targets],
            "objects": objects,
        }
        for number, q in enumerate(questions)
    ]


def _parquet(records: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    box = pa.list_(pa.int32())
    item = pa.struct([("color", pa.string()), ("shape", pa.string()), ("size", pa.string()), ("box_xyxy", box)])
    text = ("id", "image", "kind", "question", "answer", "foil")
    fields = [(name, pa.string()) for name in text]
    fields += [("image_wh", box), ("target_boxes_xyxy", pa.list_(box)), ("objects", pa.list_(item))]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records, schema=pa.schema(fields)), sink)
    return bytes(sink.getvalue().to_pybytes())


def _card(plan: dict[str, Any], records: list[dict[str, Any]]) -> str:
    kinds: dict[str, int] = {}
    for record in records:
        kinds[record["kind"]] = kinds.get(record["kind"], 0) + 1
    rows = "\n".join(f"| {kind} | {count} |" for kind, count in sorted(kinds.items()))
    return (
        f"# Scenes: {plan['split']}\n\n{SPLITS[plan['split']].purpose}.\n\n"
        f"{plan['count']} scenes, seed {plan['seed']}, format {plan['format']}. Written by `vlmattn scenes FOLDER "
        f"--split {plan['split']} --count {plan['count']} --seed {plan['seed']}`;"
        " the same command gives the same pixels.\n\n"
        "Boxes are (x0, y0, x1, y1) in pixels, origin top left, ends exclusive. Coloured shapes drawn by a program: no "
        "people, no photographs, no personal data. Licence: CC0-1.0.\n\n"
        f"| kind | questions |\n|---|---|\n{rows}\n"
    )
