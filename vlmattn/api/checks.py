"""Refuses options that cannot be used, by name, before or where they would fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from types import TracebackType
from typing import Any

import numpy as np

from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.core.head_preset import HeadPreset
from vlmattn.core.images import Picture
from vlmattn.core.provenance import METHODS
from vlmattn.core.videos import Video, Visual
from vlmattn.core.words import Part
from vlmattn.trace import Trace

MAP_OPTIONS = ("layers", "heads", "rows", "part", "occurrence", "convention", "over_rows", "over_heads", "over_layers")
_WORD = ("part", "occurrence")
_PLACE = (*_WORD, "heads")
METHOD_OPTIONS: dict[str, tuple[str, ...]] = {
    "relative": (*MAP_OPTIONS, "floor"),
    "rollout": (*_PLACE, "start_layer", "residual", "without_first"),
    "flow": (*_PLACE, "cells"),
    "gradient": (*_PLACE, "layers", "target"),
    "relevancy": (*_PLACE, "target", "normalised"),
    "tam": (*_WORD, "over_tokens", "prompt", "causal", "joint", "window"),
    "logit_lens": (*_WORD, "layers", "over_layers", "over_tokens"),
    "integrated_gradients": (*_WORD, "of", "target", "baseline", "n_steps", "values", "progress"),
    "occlusion": (*_WORD, "target", "baseline", "cells", "batch", "values", "most_passes", "progress"),
}
"""Options of a method of maps; of those not named here, :data:`MAP_OPTIONS`."""
RESERVED = (
    "attention_mask",
    "image_sizes",
    "input_ids",
    "inputs",
    "inputs_embeds",
    "past_key_values",
    "pixel_values",
    "pixel_values_videos",
    "position_ids",
    "return_dict_in_generate",
)
"""Arguments of ``generate`` that are set here and by nobody else."""


def still(pictures: Sequence[Visual], image: int) -> Picture:
    """The picture of a number. Raises SpecError where there is none, or a video in its place."""
    if image not in range(len(pictures)):
        raise SpecError(f"picture {image} does not exist; there are {len(pictures)}")
    seen = pictures[image]
    if isinstance(seen, Video):
        raise SpecError("this looks at pictures, not at videos: give single frames as pictures")
    return seen


def map_options(trace: Trace, what: Any, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a map, checked; negative heads are counted from the end.

    Raises:
        SpecError: an unknown method or option, or a value of the wrong kind.
    """
    if method not in METHODS:
        raise SpecError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    options = {name: value for name, value in options.items() if value is not None}
    _check_names(method, options)
    _check_place(what, options)
    if method != "logit_lens":  # counts states, of which there is one more
        _check_layers(trace, options.get("layers"))
    _check_floor(options.get("floor", "auto"))
    return dict(options) | {"heads": head_numbers(trace, options.get("heads"))}


def _check_names(method: str, options: Mapping[str, Any]) -> None:
    known = METHOD_OPTIONS.get(method, MAP_OPTIONS)
    for name in options:
        theirs = [other for other in METHODS if name in METHOD_OPTIONS.get(other, MAP_OPTIONS)]
        if name not in known and theirs:
            raise SpecError(f"{name} goes with method={' or '.join(map(repr, theirs))} only, got method={method!r}")
        if name not in known:
            raise SpecError(f"a map has no option {name!r}; there are {', '.join(known)}")


def _check_place(what: Any, options: Mapping[str, Any]) -> None:
    part, number, convention = (options.get(name) for name in ("part", "occurrence", "convention"))
    if part not in (None, "question", "answer"):
        raise SpecError(f"part must be question or answer, got {part!r}")
    if part == "question" and _is_whole(what):
        raise SpecError(f"a token number counts the tokens of the answer: leave out part={part!r}")
    if convention not in (None, "predicting", "query"):
        raise SpecError(f"convention must be predicting or query, got {convention!r}")
    if number is None:
        return
    if not _is_whole(number) or number < 1:
        raise SpecError(f"occurrence must be a whole number, at least 1, got {number!r}")
    if not isinstance(what, str):
        raise SpecError("occurrence says which of several equal words is meant: name the word")


def _check_layers(trace: Trace, layers: Any) -> None:
    if layers is None or isinstance(layers, str):
        return
    depth = trace.depth or max(trace.layers) + 1
    for number in whole_numbers(layers, "layers", also="or the name of a preset"):
        if number < -depth:
            raise SpecError(f"layer {number} does not exist: counted from the end, layers are -1 to -{depth}")


def part_named(name: Any) -> Part:
    """``question`` or ``answer``; raises SpecError for anything else."""
    if name == "question":
        return "question"
    if name == "answer":
        return "answer"
    raise SpecError(f"part must be question or answer, got {name!r}")


def head_numbers(trace: Trace, heads: Any) -> list[int] | str | HeadPreset | None:
    """Head numbers with negative ones counted from the end; None for all, a preset and its name stay as they are.

    Raises:
        SpecError: not numbers, or before the first head.
    """
    if heads is None or isinstance(heads, (str, HeadPreset)):
        return heads
    if _is_whole(heads):
        raise SpecError(f"heads must be a list of numbers, got {heads!r}: write [{heads}]")
    numbers = whole_numbers(heads, "heads")
    count = max((h for kept in trace.heads for h in kept if isinstance(h, int)), default=-1) + 1
    for number in numbers:
        if number < -count:
            raise SpecError(f"head {number} does not exist: counted from the end, heads are -1 to -{count}")
    return [number + count if number < 0 else number for number in numbers]


def whole_numbers(value: Any, name: str, *, also: str = "") -> list[int]:
    """One whole number or several, as a list.

    Raises:
        SpecError: anything else.
    """
    several = [value] if _is_whole(value) else value
    listed = isinstance(several, (Sequence, set, np.ndarray)) and not isinstance(several, (str, bytes))
    if not listed or not all(_is_whole(one) for one in several):
        raise SpecError(f"{name} must be whole numbers{f' {also}' if also else ''}, got {value!r}")
    return [int(one) for one in several]


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, (bool, np.bool_))


def _check_floor(floor: Any) -> None:
    if floor != "auto" and not (isinstance(floor, Real) and np.isfinite(float(floor)) and float(floor) >= 0):
        raise SpecError(f"floor must be 'auto' or a number >= 0, got {floor!r}")


def check_generate(options: Mapping[str, Any], items: int) -> None:
    """Refuse arguments of ``generate`` that are set here, beams that do not exist, and endings that cannot be told.

    Args:
        options: for ``generate``. items: how many questions are asked at once.

    Raises:
        SpecError: says which.
    """
    taken = [name for name in options if name in RESERVED]
    if taken:
        raise SpecError(f"{', '.join(taken)} cannot be given: the picture and the question decide it")
    for name in ("num_beams", "num_return_sequences"):
        count = options.get(name)
        if count is not None and not (_is_whole(count) and count >= 1):
            raise SpecError(f"{name} must be a whole number, at least 1, got {count!r}")
    config = options.get("generation_config")
    several = options.get("num_return_sequences") or getattr(config, "num_return_sequences", None) or 1
    if several != 1:
        raise SpecError(
            f"num_return_sequences={several} would give several answers to one question, and a run holds one: ask "
            "several times (do_sample=True with another seed=), or give ask_many the item several times"
        )
    if options.get("stopping_criteria") and items > 1:
        raise SpecError(
            "stopping_criteria may end each answer of a batch at another place, which is not told afterwards: ask one "
            "question at a time, or use stop_strings="
        )


@contextmanager
def named_options(options: Mapping[str, Any]) -> Iterator[None]:
    """Whatever transformers itself says of generation options becomes a SpecError that names them.

    Errors of steering, of a user's own processors and of the machine pass as they are.
    """
    try:
        yield
    except (TypeError, ValueError, AttributeError, KeyError, NotImplementedError) as error:
        if not options or isinstance(error, SpecError) or not _raised_by_transformers(error.__traceback__):
            raise
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())[:200]
        reason = " ".join(str(error).split())[:400]
        raise SpecError(f"the generation options {given} cannot be used: {reason}") from error


def _raised_by_transformers(trace: TracebackType | None) -> bool:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    return module.partition(".")[0] in ("transformers", "torch")


def check_finite(trace: Trace) -> None:
    """Refuse attention that is no number: every share and map made of it would be none either.

    Raises:
        CaptureError: names the first layer.
    """
    kept = (masses[: len(heads)] for masses, heads in zip(trace.mass_lhqs, trace.heads, strict=True))
    broken = np.array([not np.isfinite(masses).all() for masses in kept])
    if broken.any():
        layer = trace.layers[int(np.argmax(broken))]
        raise CaptureError(
            f"the attention of layer {layer} is NaN or infinite: the model's weights are damaged, or its numbers do "
            "not fit its type; download the checkpoint again, or load with dtype='float32'"
        )
