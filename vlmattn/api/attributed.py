"""Integrated gradients and occlusion of a run: what the likelihood of an answer's words rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.api.states import answered, check_sinks, image_at, one_of, picture_map, span_of
from vlmattn.core.errors import BudgetExceeded, MapError, SpecError
from vlmattn.core.images import Picture
from vlmattn.core.optional import require
from vlmattn.core.videos import Video
from vlmattn.core.words import Span

if TYPE_CHECKING:
    import torch

    from vlmattn.adapters import Encoded
    from vlmattn.api.run import Run
    from vlmattn.capture.scoring import Target
    from vlmattn.grid import PatchMap
    from vlmattn.maps.attribution import Blocks

Baseline = Literal["mean", "black", "blur"]
BASELINES = ("mean", "black", "blur")
MOST_PASSES = 4096
_STEPS, _BATCH = 50, 8


@dataclass(frozen=True)
class _Asked:
    """Tokens of the answer whose likelihood is explained; positions count as in the layout."""

    span: Span
    rows: tuple[int, ...]
    ids: tuple[int, ...]
    of: Target
    image: int
    picture: Picture
    baseline: Baseline
    positive: bool
    progress: Callable[[int, int], None] | None

    @property
    def told(self) -> str:
        said = "logit" if self.of == "logit" else "log-probability"
        count = len(self.ids)
        kept = "positive values only" if self.positive else "signed"
        return f"{said} of {self.span.label!r}" + (f", sum over {count} tokens" if count > 1 else "") + f"; {kept}"


def passes(run: Run, method: str, *, image: int = 0, options: dict[str, Any]) -> int:
    """See :meth:`vlmattn.Run.passes`."""
    if method == "occlusion":
        return 1 + len(_blocks(run, image, options).boxes)
    if method == "integrated_gradients":
        return _whole(options.get("n_steps", _STEPS), "n_steps") + 2
    raise SpecError(f"passes are counted for 'occlusion' and 'integrated_gradients', got {method!r}")


def occlusion_map(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """See :func:`vlmattn.maps.attribution.occlusion`; blocks of the original picture are covered, and the covered
    picture is prepared as any other: it is covered in every view."""
    from vlmattn.maps.attribution import occlusion

    asked = _asked(run, what, image, options, "occlusion", sinks)
    blocks, batch = _blocks(run, image, options), _whole(options.get("batch", _BATCH), "batch")
    _check_passes(1 + len(blocks.boxes), _whole(options.get("most_passes", MOST_PASSES), "most_passes"))
    require("captum.attr", extra="attribution")
    scorer = _Covered(run, asked, blocks)
    with run.vlm.alone():
        falls = occlusion(scorer, len(blocks.boxes), batch=batch, progress=asked.progress)
    told = f"occlusion, {asked.told}: {len(blocks.boxes)} blocks of the original picture covered ({asked.baseline})"
    return _spread(run, _kept(falls, asked), blocks, asked, told)


def integrated_map(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """See :func:`vlmattn.maps.attribution.integrated_gradients`; summed over the pixels and colours of a patch, or over
    the coordinates of its embedding."""
    of = one_of(options.get("of", "pixels"), "of", ("pixels", "patches"))
    steps = _whole(options.get("n_steps", _STEPS), "n_steps")
    asked = _asked(run, what, image, options, "integrated_gradients", sinks)
    require("captum.attr", extra="attribution")
    with run.vlm.alone():
        plain = answered(run, "integrated gradients")
        other = _encoded(run, [_with(run, image, _baseline(asked.picture, asked.baseline))])
        values, told = (_of_pixels if of == "pixels" else _of_patches)(run, asked, plain, other, steps)
    said = f"integrated gradients of {of}, {asked.told}: baseline {asked.baseline}, {steps} steps; {told}"
    return picture_map(run, _kept(values, asked), asked.span, image, said)


# -- integrated gradients ----------------------------------------------------------------------------------------------


def _of_pixels(run: Run, asked: _Asked, plain: Encoded, other: Encoded, steps: int) -> tuple[Any, str]:
    from vlmattn.capture.scoring import answer_score
    from vlmattn.maps.attribution import integrated_gradients
    from vlmattn.maps.gradient import sums_over_views

    layout = plain.layouts[0]
    _check_views(plain, asked.image)
    rows = _model_rows(plain, asked)

    def score(pixels: torch.Tensor) -> torch.Tensor:
        inputs = {**plain.inputs, "pixel_values": pixels}
        return answer_score(run.vlm.model, inputs, rows, asked.ids, of=asked.of)[0]

    given, base = plain.inputs["pixel_values"], other.inputs["pixel_values"]
    found = integrated_gradients(score, given, base, n_steps=steps, progress=asked.progress)
    views = found.values.flatten(0, -4).sum(dim=1).cpu().numpy()
    return sums_over_views(views, layout, asked.image), found.told


def _check_views(plain: Encoded, image: int) -> None:
    from vlmattn.maps.gradient import pixel_views

    try:
        pixel_views(plain, image)
    except MapError as error:
        raise MapError(
            "this model's prepared pixels are not one view per tile, so they have no known place in the picture: take "
            "of='patches' or method='occlusion'"
        ) from error


def _of_patches(run: Run, asked: _Asked, plain: Encoded, other: Encoded, steps: int) -> tuple[Any, str]:
    import torch

    from vlmattn.capture.scoring import answer_score, decoder_embeddings
    from vlmattn.maps.attribution import integrated_gradients

    layout, pad = plain.layouts[0], plain.pad_left[0]
    at = torch.as_tensor([p - layout.memory + pad for p in image_at(layout, asked.image)])
    given, base = (decoder_embeddings(run.vlm.model, one)[0, at] for one in (plain, other))
    rows = _model_rows(plain, asked)

    def score(patches: torch.Tensor) -> torch.Tensor:
        def put(states: torch.Tensor) -> torch.Tensor:
            return states.detach().index_copy(1, at.to(states.device), patches[None].to(states))

        return answer_score(run.vlm.model, plain.inputs, rows, asked.ids, of=asked.of, embeds=put)[0]

    found = integrated_gradients(score, given, base, n_steps=steps, progress=asked.progress)
    return found.values.sum(dim=-1).cpu().numpy(), found.told


# -- occlusion ---------------------------------------------------------------------------------------------------------


class _Covered:
    """Scores of the run's answer on pictures of which blocks are covered."""

    def __init__(self, run: Run, asked: _Asked, blocks: Blocks) -> None:
        self.run, self.asked, self.blocks = run, asked, blocks
        self.whole = np.asarray(asked.picture.image)
        self.cover = np.asarray(_baseline(asked.picture, asked.baseline).image)

    def __call__(self, kept: NDArray[np.bool_]) -> torch.Tensor:
        import torch

        from vlmattn.adapters.videos import may_run_together

        groups = [_with(self.run, self.asked.image, self._picture(one)) for one in kept]
        together = may_run_together(self.run.vlm.adapter.spec, groups)
        parts = [groups] if together else [[group] for group in groups]
        return torch.cat([self._score(part) for part in parts])

    def _picture(self, kept: NDArray[np.bool_]) -> Picture:
        from PIL import Image

        pixels = self.whole.copy()
        for number in np.flatnonzero(~kept):
            x0, y0, x1, y1 = self.blocks.boxes[number]
            pixels[y0:y1, x0:x1] = self.cover[y0:y1, x0:x1]
        return replace(self.asked.picture, image=Image.fromarray(pixels))

    def _score(self, groups: Sequence[Sequence[Any]]) -> torch.Tensor:
        import torch

        from vlmattn.capture.scoring import answer_score

        encoded = _encoded(self.run, groups)
        rows = _model_rows(encoded, self.asked)
        with torch.no_grad():
            return answer_score(self.run.vlm.model, encoded.inputs, rows, self.asked.ids, of=self.asked.of).cpu()


def _spread(run: Run, falls: NDArray[np.float64], blocks: Blocks, asked: _Asked, told: str) -> PatchMap:
    """Cells of the view that blocks were made of have their block's value; those of others the mean over their area."""
    from vlmattn.grid import PatchMap, pool_pixels

    layout = run.trace.layout.images[asked.image]
    width, height = layout.image_wh
    pixels = np.zeros((height, width))
    for (x0, y0, x1, y1), fall in zip(blocks.boxes, falls, strict=True):
        pixels[y0:y1, x0:x1] = fall
    grids = list(pool_pixels(layout, pixels).values)
    grids[blocks.tile] = np.where(blocks.number >= 0, np.append(falls, 0.0)[blocks.number], 0.0)
    provenance = run.trace.provenance.then(told, convention="", rows="", heads="", layers="", reduction="")
    return PatchMap(tuple(grids), layout, provenance, asked.span.label)


def _blocks(run: Run, image: int, options: dict[str, Any]) -> Blocks:
    from vlmattn.maps.attribution import blocks_of

    return blocks_of(run.trace.layout.images[image], _whole(options.get("cells", 1), "cells"))


def _check_passes(count: int, most: int) -> None:
    if count > most:
        raise BudgetExceeded(
            f"occlusion would run {count} pictures, more than most_passes={most}: cover blocks of several cells "
            "(cells=2 or more), or raise most_passes="
        )


# -- shared ------------------------------------------------------------------------------------------------------------


def _asked(run: Run, what: Any, image: int, options: dict[str, Any], method: str, sinks: str) -> _Asked:
    check_sinks(method, sinks)
    of = one_of(options.get("target", "log_probability"), "target", ("log_probability", "logit"))
    baseline: Baseline = options.get("baseline", "mean")
    one_of(baseline, "baseline", BASELINES)
    positive = one_of(options.get("values", "signed"), "values", ("signed", "positive")) == "positive"
    seen = run.pictures[image]
    if isinstance(seen, Video):
        raise SpecError(f"method={method!r} changes pictures, not videos: take method='raw' or 'tam' for a video")
    if run.request.steering:
        raise SpecError(f"method={method!r} is of the model as it is: ask without steering, or take method='raw'")
    span = span_of(run, what, options)
    if span.part == "question":
        raise SpecError(
            f"{method} explains what was written, and {span.text!r} is of the question: take a word of the answer, or "
            "method='raw' or 'tam'"
        )
    rows = tuple(t - 1 for t in span.tokens)
    ids = tuple(int(run.trace.layout.input_ids[t]) for t in span.tokens)
    target: Target = "logit" if of == "logit" else "log_probability"
    return _Asked(span, rows, ids, target, image, seen, baseline, positive, options.get("progress"))


def _model_rows(encoded: Encoded, asked: _Asked) -> list[int]:
    """Rows of the target in the model's own sequence; equal for all of a batch, which differ in pixels only."""
    shift = {pad - layout.memory for pad, layout in zip(encoded.pad_left, encoded.layouts, strict=True)}
    if len(shift) > 1:
        raise MapError("pictures of one size came out with different numbers of tokens: take method='raw'")
    return [row + min(shift) for row in asked.rows]


def _encoded(run: Run, groups: Sequence[Sequence[Any]]) -> Encoded:
    """The run's prompt and answer with other pictures."""
    from vlmattn.api.follow import with_answers

    layout, prompt = run.trace.layout, run.request.items[0][1]
    ids = layout.input_ids[layout.answer_start :].tolist()
    encoded = run.vlm.encode(groups, [prompt] * len(groups), system=run.request.system)
    return with_answers(run.vlm.adapter, encoded, [ids] * len(groups))[0]


def _with(run: Run, image: int, picture: Picture) -> list[Any]:
    return [picture if number == image else one for number, one in enumerate(run.pictures)]


def _baseline(picture: Picture, kind: Baseline) -> Picture:
    from vlmattn.refine.pictures import covered

    return replace(picture, image=covered(picture.image, kind))


def _kept(values: NDArray[np.float64], asked: _Asked) -> NDArray[np.float64]:
    return np.maximum(values, 0.0) if asked.positive else values


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise SpecError(f"{name} must be a whole number, at least 1, got {value!r}")
    return int(value)


ATTRIBUTION_MAKERS = {"integrated_gradients": integrated_map, "occlusion": occlusion_map}
