"""The map that a recipe looks at: from a run, its general pass, or a gradient pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.checks import head_numbers, map_options
from vlmattn.core.errors import SpecError
from vlmattn.refine import Recipe, contrast
from vlmattn.trace import Span, Trace

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.grid import PatchMap

_TOKEN = {"first": 0, "last": -1, "every": None}


def map_for(run: Run, recipe: Recipe, what: str | int | Span | None, image: int) -> PatchMap:
    """The map of a recipe on one picture of a run.

    Raises:
        SpecError: a word with a signal that has none, or options that do not exist. MapError: it cannot be made.
    """
    if what is not None and recipe.signal not in ("raw", "relative"):
        raise SpecError(
            f"signal {recipe.signal!r} is of answer tokens: leave out the word, or take 'raw' or 'relative'"
        )
    task = _task(run, recipe)
    map_options(task.trace, None, "raw", {"layers": recipe.layers, "heads": recipe.heads})
    return _SIGNALS[recipe.signal](task, recipe, what, image)


def _task(run: Run, recipe: Recipe) -> Run:
    """The run itself, or the question with the recipe's suffix."""
    from vlmattn.api.refinement import with_suffix

    prompt = run.request.items[0][1]
    longer = with_suffix(prompt, run.question, recipe.suffix)
    if longer is prompt:
        return run
    return run.vlm.run(replace(run.request, items=((list(run.pictures), longer),)))[0]


def _general_prompt(recipe: Recipe) -> str:
    from vlmattn.maps import GENERIC_PROMPT

    return f"{GENERIC_PROMPT} {recipe.suffix}".strip()


def _general(run: Run, recipe: Recipe, steps: int) -> Trace:
    return run.vlm.general.trace(run.vlm, run.request, run.pictures, _general_prompt(recipe), steps=steps)


def _read(run: Run, recipe: Recipe) -> dict[str, Any]:
    return {"layers": recipe.layers, "heads": head_numbers(run.trace, recipe.heads)}


def _raw(run: Run, recipe: Recipe, what: Any, image: int) -> PatchMap:
    from vlmattn.maps import raw_attention

    found = raw_attention(
        run.trace, what if what is not None else _TOKEN[recipe.steps], image=image, **_read(run, recipe)
    )
    return replace(found, provenance=replace(found.provenance, method="raw"))


def _relative(run: Run, recipe: Recipe, what: Any, image: int) -> PatchMap:
    from vlmattn.maps import raw_attention, relative

    trace = _general(run, recipe, 1)
    generic = raw_attention(trace, image=image, rows="vicrop", **_read(run, recipe))
    floor = recipe.floor * (float(generic.visible_values().mean()) if recipe.floor_of == "mean" else 1.0)
    found = relative(_raw(run, recipe, what, image), replace(generic, label=_general_prompt(recipe)), floor=floor)
    return replace(found, provenance=replace(found.provenance, method="relative"))


def _contrast(run: Run, recipe: Recipe, _what: Any, image: int) -> PatchMap:
    count = 1 if recipe.steps == "first" else len(run.trace.answer_tokens)
    return contrast(
        run.trace,
        _general(run, recipe, count),
        image=image,
        steps=recipe.steps,
        weights=recipe.weights,
        floor=recipe.floor,
        floor_of=recipe.floor_of,
        clip=recipe.clip,
        **_read(run, recipe),
    )


def _gradient(run: Run, recipe: Recipe, _what: Any, image: int) -> PatchMap:
    from vlmattn.maps import gradient_attention
    from vlmattn.maps.choices import choose_layers

    if isinstance(recipe.heads, str):
        raise SpecError("gradient maps take heads by number, or all")
    layers, _ = choose_layers(run.trace, recipe.layers)
    encoded = _encoded(run, run.request.items[0][1])
    heads = None if recipe.heads is None else list(recipe.heads)
    with run.vlm.alone():
        return _told(run, gradient_attention(run.vlm.model, encoded, layers=layers, image=image, heads=heads))


def _pure_gradient(run: Run, recipe: Recipe, _what: Any, image: int) -> PatchMap:
    from vlmattn.maps import pixel_gradient, relative

    with run.vlm.alone():
        task, general = (
            pixel_gradient(run.vlm.model, _encoded(run, prompt), image=image)
            for prompt in (run.request.items[0][1], _general_prompt(recipe))
        )
    # Busy pixels are the same in both, and patches without any stay 0.
    least = 1e-6 * float(np.mean(general.visible_values()))
    found = relative(task, general, floor=least)
    return _told(run, replace(found, provenance=replace(found.provenance, method="pure_gradient")))


def _encoded(run: Run, prompt: Any) -> Any:
    if run.request.steering:
        raise SpecError("gradient maps are of the model as it is: ask without steering, or take 'raw' or 'contrast'")
    return run.vlm.encode([run.pictures], [prompt], system=run.request.system)


def _told(run: Run, found: PatchMap) -> PatchMap:
    made = replace(run.trace.provenance, method=found.provenance.method)
    for step in found.provenance.steps:
        made = made.then(step)
    return replace(found, provenance=made)


_SIGNALS = {
    "raw": _raw,
    "relative": _relative,
    "contrast": _contrast,
    "gradient": _gradient,
    "pure_gradient": _pure_gradient,
}
