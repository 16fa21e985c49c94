"""Traces as one file: arrays as safetensors, everything else as JSON in its head, and the pictures, if they are wanted.

Nothing is unpickled. A digest over names, types, shapes, bytes and the head tells a damaged file from a whole one.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.errors import FileError, VlmattnError
from vlmattn.core.files import as_path, atomic_write_bytes
from vlmattn.core.head_preset import HeadPreset
from vlmattn.core.images import MAX_PIXELS, Picture
from vlmattn.core.layout import ImageLayout, Tile, TokenLayout
from vlmattn.core.provenance import Provenance
from vlmattn.core.videos import Video, Visual
from vlmattn.trace import Hidden, TokenScores, Trace

KIND, FORMAT = "vlmattn trace", 1
ENDING = ".safetensors"
_LAYOUT_ARRAYS = ("input_ids", "kinds", "image", "tile", "row", "col", "char_span")
_TRACE_ARRAYS = (
    "positions", "columns", "attn_lhqk", "mass_lhqs", "visible_lqk", "value_norm_lhk", "head_norm_lhq", "vision",
    "received_lhn",
)  # fmt: skip
_SCORE_ARRAYS = ("entropy_t", "top_ids_tk", "top_logp_tk", "chosen_logp_t")
_HIDDEN_ARRAYS = (
    "rms_ln", "peak_ln", "peak_coord_ln", "coord_lnc", "top_coord_lnk", "top_value_lnk", "median_ln",
)  # fmt: skip

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class SavedTrace:
    """A trace from a file.

    Attributes:
        trace: all of it. pictures: upright pictures and videos that it is of; empty if they were not saved.
        heads: of the model, by name, when it was saved. steered: whether the model was changed while it ran.
    """

    trace: Trace
    pictures: tuple[Visual, ...] = ()
    heads: Mapping[str, HeadPreset] = field(default_factory=dict)
    steered: bool = False


def save_trace(
    path: str | Path,
    trace: Trace,
    pictures: Sequence[Visual] = (),
    *,
    heads: Mapping[str, HeadPreset] | None = None,
    steered: bool = False,
) -> Path:
    """Write a trace as one ``.safetensors`` file, atomically; what :func:`load_trace` gives back is equal.

    Args:
        path: ends in ``.safetensors``. trace: all of it is kept, layout and provenance too. pictures: of the prompt, in
            order, upright; written without loss, names, notes and times too. heads: that the model has by name.
            steered: said in the file.

    Raises:
        FileError: another ending, another number of pictures than the prompt has, or a place that cannot be written.
    """
    from safetensors.numpy import save

    target = as_path(path)
    if target.suffix.lower() != ENDING:
        raise FileError(f"a trace is written as {ENDING}, got {str(target)!r}")
    if pictures and len(pictures) != len(trace.layout.images):
        raise FileError(f"the trace is of {len(trace.layout.images)} pictures, and {len(pictures)} were given")
    arrays = _trace_arrays(trace)
    shown = [_put_visual(seen, number, arrays) for number, seen in enumerate(pictures)]
    head = {"kind": KIND, "format": FORMAT, "trace": _trace_head(trace), "pictures": shown, "steered": steered}
    head["heads"] = {name: one.to_dict() for name, one in (heads or {}).items()}
    text = json.dumps(head, ensure_ascii=True, sort_keys=True)
    whole = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in sorted(arrays.items())}
    return atomic_write_bytes(target, save(whole, metadata={"vlmattn": f"{_digest(whole, text)}\n{text}"}))


def load_trace(path: str | Path) -> SavedTrace:
    """What :func:`save_trace` wrote: equal arrays, layout, provenance and pictures.

    Raises:
        FileError: missing, damaged, cut off, or no trace that this version reads.
    """
    target = as_path(path)
    arrays, text, digest = _read(target)
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{target} is damaged: its head is no JSON: {error}") from error
    if not isinstance(head, dict) or head.get("kind") != KIND:
        raise FileError(f"{target} holds no trace of vlmattn")
    if head.get("format") != FORMAT:
        raise FileError(f"{target} has format {head.get('format')}; this version reads {FORMAT}")
    if digest != _digest(arrays, text):
        raise FileError(f"{target} is damaged: its content does not have the digest that was written with it")
    try:
        trace = _trace(head["trace"], arrays)
        pictures = tuple(_visual(told, number, arrays) for number, told in enumerate(head["pictures"]))
        if pictures and len(pictures) != len(trace.layout.images):
            raise ValueError(f"{len(pictures)} pictures of {len(trace.layout.images)}")
        heads = {str(name): HeadPreset.from_dict(told) for name, told in head["heads"].items()}
        return SavedTrace(trace, pictures, heads, bool(head["steered"]))
    except (KeyError, TypeError, ValueError, AttributeError, OSError, IndexError, VlmattnError) as error:
        raise FileError(f"{target} holds a trace that is not whole: {error!r:.300}") from error


def is_trace(path: str) -> bool:
    """Whether a path is that of a saved trace, by its ending."""
    return Path(path).suffix.lower() == ENDING


def _read(target: Path) -> tuple[Arrays, str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(target), framework="numpy") as file:
            told = file.metadata() or {}
            if "vlmattn" not in told:
                raise FileError(f"{target} holds no trace of vlmattn: other arrays, or weights of a model")
            # One entry, because several would be written in an order that changes from run to run.
            digest, _, text = told["vlmattn"].partition("\n")
            return {name: file.get_tensor(name) for name in sorted(file.keys())}, text, digest
    except FileNotFoundError:
        raise FileError(f"{target} does not exist") from None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{target} is not a trace that vlmattn wrote, or is damaged or cut off: {error}") from error


def _digest(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    found = hashlib.sha256(text.encode("utf-8", "replace"))
    for name, array in arrays.items():
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


# -- writing -----------------------------------------------------------------------------------------------------------


def _trace_arrays(trace: Trace) -> Arrays:
    parts: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
        ("trace", trace, _TRACE_ARRAYS),
        ("layout", trace.layout, _LAYOUT_ARRAYS),
        ("scores", trace.scores, _SCORE_ARRAYS),
        ("hidden", trace.hidden, _HIDDEN_ARRAYS),
    )
    held = {f"{part}.{name}": getattr(of, name) for part, of, names in parts if of is not None for name in names}
    return {name: np.asarray(array) for name, array in held.items() if array is not None}


def _trace_head(trace: Trace) -> dict[str, Any]:
    layout, hidden = trace.layout, trace.hidden
    return {
        "layers": [int(n) for n in trace.layers],
        "heads": [[h if isinstance(h, str) else int(h) for h in heads] for heads in trace.heads],
        "segments": list(trace.segments),
        "depth": int(trace.depth),
        "blind": [int(n) for n in trace.blind],
        "provenance": trace.provenance.to_dict(),
        "scores": trace.scores is not None,
        "hidden": None
        if hidden is None
        else {
            "layers": [int(n) for n in hidden.layers],
            "coords": [int(n) for n in hidden.coords],
            "width": hidden.width,
        },
        "layout": {
            "text": layout.text,
            "question_span": [int(n) for n in layout.question_span],
            "answer_start": int(layout.answer_start),
            "placeholders": [[int(a), int(b)] for a, b in layout.placeholders],
            "memory": int(layout.memory),
            "resampled": int(layout.resampled),
            "images": [_told_image(one) for one in layout.images],
        },
    }


def _told_image(one: ImageLayout) -> dict[str, Any]:
    tiles = [{f.name: _listed(getattr(tile, f.name)) for f in fields(Tile)} for tile in one.tiles]
    return {"image_wh": _listed(one.image_wh), "tiles": tiles, "views": one.views, "times": _listed(one.times)}


def _listed(value: Any) -> Any:
    """Tuples as lists and NumPy numbers as Python's; floats keep every digit in JSON."""
    if isinstance(value, (tuple, list)):
        return [_listed(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def _put_visual(seen: Visual, number: int, arrays: Arrays) -> dict[str, Any]:
    told: dict[str, Any] = {"name": seen.name, "notes": list(seen.notes), "video": None}
    frames = seen.frames if isinstance(seen, Video) else [seen]
    if isinstance(seen, Video):
        told["video"] = {
            "fps": float(seen.fps),
            "numbers": list(seen.numbers),
            "total": seen.total,
            "frames": [{"name": frame.name, "notes": list(frame.notes)} for frame in frames],
        }
    for at, frame in enumerate(frames):
        stream = io.BytesIO()
        frame.image.save(stream, "PNG", compress_level=1)
        arrays[f"picture.{number}.{at}"] = np.frombuffer(stream.getvalue(), dtype=np.uint8)
    return told


# -- reading -----------------------------------------------------------------------------------------------------------


def _trace(told: dict[str, Any], arrays: Arrays) -> Trace:
    hidden, segments = told["hidden"], told["segments"]
    return Trace(
        layout=_layout(told["layout"], arrays),
        layers=tuple(told["layers"]),
        heads=tuple(tuple(one) for one in told["heads"]),
        segments=tuple(segments),
        scores=TokenScores(**_of("scores", _SCORE_ARRAYS, arrays)) if told["scores"] else None,
        hidden=None
        if hidden is None
        else Hidden(
            layers=tuple(hidden["layers"]),
            coords=tuple(hidden["coords"]),
            width=hidden["width"],
            **_of("hidden", _HIDDEN_ARRAYS, arrays),
        ),
        provenance=Provenance.from_dict(told["provenance"]),
        depth=told["depth"],
        blind=tuple(told["blind"]),
        **_of("trace", _TRACE_ARRAYS, arrays),
    )


def _of(part: str, names: Sequence[str], arrays: Arrays) -> dict[str, Any]:
    return {name: arrays.get(f"{part}.{name}") for name in names}


def _layout(told: dict[str, Any], arrays: Arrays) -> TokenLayout:
    return TokenLayout(
        text=told["text"],
        question_span=(told["question_span"][0], told["question_span"][1]),
        answer_start=told["answer_start"],
        images=tuple(_image(one) for one in told["images"]),
        placeholders=tuple((a, b) for a, b in told["placeholders"]),
        memory=told["memory"],
        resampled=told["resampled"],
        **{name: arrays[f"layout.{name}"] for name in _LAYOUT_ARRAYS},
    )


def _image(told: dict[str, Any]) -> ImageLayout:
    tiles = tuple(Tile(**{name: _tupled(value) for name, value in one.items()}) for one in told["tiles"])
    return ImageLayout(_tupled(told["image_wh"]), tiles, told["views"], _tupled(told["times"]))


def _tupled(value: Any) -> Any:
    return tuple(_tupled(one) for one in value) if isinstance(value, list) else value


def _visual(told: dict[str, Any], number: int, arrays: Arrays) -> Visual:
    film = told["video"]
    if film is None:
        return _picture(arrays[f"picture.{number}.0"], told)
    frames = [_picture(arrays[f"picture.{number}.{at}"], one) for at, one in enumerate(film["frames"])]
    return Video(frames, film["fps"], film["numbers"], film["total"], told["name"], tuple(told["notes"]))


def _picture(content: NDArray[np.uint8], told: dict[str, Any]) -> Picture:
    with Image.open(io.BytesIO(content.tobytes()), formats=["PNG"]) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"a picture of {image.width} x {image.height}")
        return Picture(image.convert("RGB"), str(told["name"]), tuple(str(note) for note in told["notes"]))
