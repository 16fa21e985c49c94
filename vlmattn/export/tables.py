"""Parquet tables: one row for every word of answers, or for every grid of maps, with provenance in the schema."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.core.files import as_path, atomic_write_bytes
from vlmattn.core.images import Picture
from vlmattn.core.optional import require
from vlmattn.export.regions import RegionRule, rule_of
from vlmattn.export.subject import Mapped, each, is_mapped
from vlmattn.trace import Span, Trace

FORMAT = 1
_KEY = b"vlmattn"


class Asked(Protocol):
    """A question and its answer, with what was kept; ``vlm.ask(...)`` gives one."""

    @property
    def trace(self) -> Trace:
        """What was kept."""
        ...

    @property
    def pictures(self) -> Sequence[Any]:
        """Upright pictures, and videos."""
        ...

    def words(self) -> tuple[Span, ...]:
        """The words of the answer."""
        ...

    def grounding(self, **options: Any) -> Sequence[Any]:
        """How much of every word's attention went where."""
        ...

    def map(self, what: Any, **options: Any) -> Any:
        """Where a word looked."""
        ...


def word_table(
    runs: Asked | Iterable[Asked], *, rule: RegionRule | None = None, risk: Any = False, **options: Any
) -> Any:
    """A ``pyarrow.Table`` with a row for every word of every answer and picture.

    Columns: ``run`` (number), ``question``, ``answer``, ``word``, ``label`` (numbered where a word occurs more than
    once), ``position`` (of its first token, from the first of the prompt), ``answer_token`` (from 0), ``tokens``,
    ``picture``, ``picture_name``, ``width``, ``height``, ``image_share`` (all pictures), ``picture_share`` (this one),
    ``entropy`` (of the map with the largest share, 0 to 1), ``log_probability``, ``sink_share``, ``risk``, ``peak_x``,
    ``peak_y``, ``peak_value``, ``x0``, ``y0``, ``x1``, ``y1`` and ``box_score`` (null for flat maps, and of videos),
    ``model``. Coordinates are pixels of the upright original, box ends exclusive. What is not known is null.

    Args:
        runs: one or several, from ``vlm.ask`` or ``va.load_run``. rule: of boxes, see :class:`RegionRule`.
        risk: True, or a detector: how likely each word is made up. options: ``method``, ``layers`` and ``heads`` of the
            maps.

    Raises:
        SpecError: no run, or something that is none; options that do not exist.
    """
    arrow = require("pyarrow", extra="export")
    given: list[Any] = [runs] if hasattr(runs, "grounding") else list(runs) if isinstance(runs, Iterable) else [runs]
    if not given or not all(hasattr(one, "grounding") and hasattr(one, "trace") for one in given):
        raise SpecError(f"a table of words takes runs, from vlm.ask(...); got {runs!r:.80}")
    boxes = rule_of(rule, {})
    rows = [row for number, run in enumerate(given) for row in _word_rows(run, number, boxes, risk, options)]
    made = [run.trace.provenance.to_dict() for run in given]
    told = {"rows": "words", "boxes": boxes.said, "options": {k: str(v) for k, v in options.items()}}
    return arrow.Table.from_pylist(rows, schema=_word_schema(arrow)).replace_schema_metadata(_told(told, made))


def _word_schema(arrow: Any) -> Any:
    whole, text, real = arrow.int64(), arrow.string(), arrow.float64()
    kinds = {
        "run": whole, "question": text, "answer": text, "word": text, "label": text, "position": whole,
        "answer_token": whole, "tokens": arrow.list_(whole), "picture": whole, "picture_name": text, "width": whole,
        "height": whole, "image_share": real, "picture_share": real, "entropy": real, "log_probability": real,
        "sink_share": real, "risk": real, "peak_x": real, "peak_y": real, "peak_value": real, "x0": whole,
        "y0": whole, "x1": whole, "y1": whole, "box_score": real, "model": text,
    }  # fmt: skip
    return arrow.schema(list(kinds.items()))


def _word_rows(run: Asked, number: int, rule: RegionRule, risk: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    words = [word for word in run.words() if any(c.isalnum() for c in word.text)]
    found = run.grounding(risk=risk, **options)
    trace, rows = run.trace, []
    for word, one in zip(words, found, strict=True):
        common = {
            "run": number,
            "question": trace.question,
            "answer": trace.answer,
            "word": word.text,
            "label": word.label,
            "position": word.tokens[0],
            "answer_token": word.tokens[0] - trace.layout.answer_start,
            "tokens": list(word.tokens),
            "image_share": _known(one.image_share),
            "entropy": _known(one.entropy),
            "log_probability": _known(one.log_probability),
            "sink_share": one.sink_share,
            "risk": one.risk,
            "model": trace.provenance.model,
        }
        for picture, seen in enumerate(run.pictures):
            rows.append(
                common
                | {"picture": picture, "picture_name": seen.name, "width": seen.wh[0], "height": seen.wh[1]}
                | {"picture_share": _known(one.image_shares[picture])}
                | _place(run, word, picture, one.peaks_xy[picture], rule, options)
            )
    return rows


def _place(
    run: Asked, word: Span, picture: int, peak: Any, rule: RegionRule, options: dict[str, Any]
) -> dict[str, Any]:
    """Peak and box of a word on a picture; nothing of a flat map, and no box of a video, which has one per frame."""
    if peak is None:
        return {}
    look = run.map(word, image=picture, **options)
    told = {"peak_x": peak[0], "peak_y": peak[1], "peak_value": look.patch_map.peak().value}
    if not isinstance(run.pictures[picture], Picture):
        return told
    try:
        _, (x0, y0, x1, y1), score = rule.regions(look.pixels)[0]
    except MapError:
        return told
    return told | {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "box_score": score}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def map_table(looks: Mapped | Iterable[Mapped]) -> Any:
    """A ``pyarrow.Table`` with a row for every grid of every map.

    Columns: ``map`` (number), ``label``, ``picture_name``, ``width``, ``height``, ``tile``, ``kind``, ``rows``,
    ``cols``, ``x0``, ``y0``, ``x1``, ``y1`` (what the grid spans, in pixels of the upright original; beyond it where
    there is padding), ``row_spans`` and ``col_spans`` (null where cells divide that evenly), ``frames``, ``values`` and
    ``visible`` (lists, row by row), ``unit``, ``method``, ``layers``, ``heads``, ``normalisation``, ``provenance``
    (JSON).

    Raises:
        SpecError: nothing given, or something that is no look.
    """
    arrow = require("pyarrow", extra="export")
    # A look at a video is one map with a grid per frame, or per group of frames.
    given: list[Any] = [looks] if is_mapped(looks) else list(looks) if isinstance(looks, Iterable) else [looks]
    each(given)
    rows = [row for number, look in enumerate(given) for row in _map_rows(look, number)]
    made = [look.patch_map.provenance.to_dict() for look in given]
    return arrow.Table.from_pylist(rows, schema=_map_schema(arrow)).replace_schema_metadata(
        _told({"rows": "grids"}, made)
    )


def _map_schema(arrow: Any) -> Any:
    whole, text, real = arrow.int64(), arrow.string(), arrow.float64()
    spans = arrow.list_(arrow.list_(real))
    kinds = {
        "map": whole, "label": text, "picture_name": text, "width": whole, "height": whole, "tile": whole, "kind": text,
        "rows": whole, "cols": whole, "x0": real, "y0": real, "x1": real, "y1": real, "row_spans": spans,
        "col_spans": spans, "frames": arrow.list_(whole), "values": arrow.list_(real),
        "visible": arrow.list_(arrow.bool_()), "unit": text, "method": text, "layers": text, "heads": text,
        "normalisation": text, "provenance": text,
    }  # fmt: skip
    return arrow.schema(list(kinds.items()))


def _map_rows(look: Mapped, number: int) -> list[dict[str, Any]]:
    found, made = look.patch_map, look.patch_map.provenance
    common = {
        "map": number,
        "label": look.label,
        "picture_name": look.picture.name,
        "width": found.layout.image_wh[0],
        "height": found.layout.image_wh[1],
        "unit": made.unit,
        "method": made.method,
        "layers": made.layers,
        "heads": made.heads,
        "normalisation": made.normalisation,
        "provenance": made.to_json(),
    }
    rows = []
    for index, (tile, grid, seen) in enumerate(
        zip(found.layout.tiles, found.values, found.visible_cells(), strict=True)
    ):
        x0, y0, x1, y1 = tile.source_box_xyxy
        place: dict[str, Any] = {"tile": index, "kind": tile.kind, "rows": tile.grid_hw[0], "cols": tile.grid_hw[1]}
        place |= {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "frames": list(tile.frames)}
        spans = {name: getattr(tile, name) for name in ("row_spans", "col_spans")}
        place |= {name: None if held is None else [list(span) for span in held] for name, held in spans.items()}
        rows.append(common | place | {"values": grid.ravel().tolist(), "visible": seen.ravel().tolist()})
    return rows


def _told(told: dict[str, Any], made: list[dict[str, Any]]) -> dict[bytes, bytes]:
    head = {"format": FORMAT, "made_by": "vlmattn", **told, "provenance": made}
    return {_KEY: json.dumps(head, ensure_ascii=True, sort_keys=True).encode("ascii")}


def save_table(path: str | Path, table: Any) -> Path:
    """Write a table as ``.parquet``, atomically.

    Raises:
        FileError: another ending, or a place that cannot be written. SpecError: no table.
    """
    arrow, parquet = require("pyarrow", extra="export"), require("pyarrow.parquet", extra="export")
    target = as_path(path)
    if target.suffix.lower() != ".parquet":
        raise FileError(f"a table is written as .parquet, got {str(target)!r}")
    if not isinstance(table, arrow.Table):
        raise SpecError(f"expected a pyarrow.Table, from word_table or map_table; got {type(table).__name__}")
    stream = io.BytesIO()
    parquet.write_table(table, stream, compression="zstd")
    return atomic_write_bytes(target, stream.getvalue())


def load_table(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """A table that :func:`save_table` wrote, as ``pyarrow.Table``, and its head: what its rows are, and provenance.

    Raises:
        FileError: missing, damaged, or another table.
    """
    arrow, parquet = require("pyarrow", extra="export"), require("pyarrow.parquet", extra="export")
    try:
        table = parquet.read_table(io.BytesIO(as_path(path).read_bytes()))
        head = json.loads((table.schema.metadata or {})[_KEY])
    except FileNotFoundError:
        raise FileError(f"{path} does not exist") from None
    except KeyError:
        raise FileError(f"{path} is not a table that vlmattn wrote") from None
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise FileError(f"{path} is not a Parquet table, or is damaged or cut off: {error}") from error
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise FileError(f"{path} has another format than {FORMAT}, which this version reads")
    return table, head
