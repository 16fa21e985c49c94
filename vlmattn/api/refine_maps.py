"""The map that a recipe looks at: from a run, its general pass, or a gradient pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmattn.api.checks import head_numbers, map_options
from vlmattn.api.own_heads import own_heads
from vlmattn.core.errors import SpecError
from vlmattn.core.head_preset import HeadPreset
from vlmattn.maps.choices import choose_layers
from vlmattn.refine import Recipe, contrast
from vlmattn.trace import Span, Trace

if TYPE_CHECKING:
    from vlmattn.adapters import Encoded
    from vlmattn.api.request import Prompt
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
    _check_read(run, recipe, what, image)
    return _SIGNALS[recipe.signal](run, recipe, what, image)


def _check_read(run: Run, recipe: Recipe, what: str | int | Span | None, image: int) -> None:
    """Raises for words, rows, layers and heads that cannot be had, before anything runs."""
    from vlmattn.maps import raw_attention

    map_options(run.trace, None, "raw", {"layers": recipe.layers, "heads": own_heads(run.vlm, recipe.heads)})
    if recipe.signal == "gradient":
        if isinstance(recipe.heads, (str, HeadPreset)):
            raise SpecError("gradient maps take heads by number, or all")
        choose_layers(run.trace, recipe.layers)
    elif recipe.signal != "pure_gradient":
        # Whatever is read later, of this run or of the same question with a suffix, is read from here first. A contrast
        # takes answer tokens by number, whether or not they have a text.
        by_number = recipe.signal == "contrast"
        raw_attention(run.trace, 0 if by_number else _first(recipe, what), image=image, **_read(run, recipe))
        if by_number and recipe.steps != "first":
            run.trace.rows_of(run.trace.answer_tokens, "predicting")


def _first(recipe: Recipe, what: str | int | Span | None) -> str | int | Span | None:
    """What a map of attention starts from: the word, or the answer tokens that the recipe says."""
    return what if what is not None else _TOKEN[recipe.steps]


def asked_with(run: Run, recipe: Recipe) -> Prompt:
    """The prompt of a run with the recipe's suffix."""
    return with_suffix(run.request.items[0][1], run.question, recipe.suffix)


def with_suffix(prompt: Prompt, question: str, suffix: str) -> Prompt:
    """A prompt with an instruction behind the user's last words, unless it ends with it."""
    if not suffix or question.rstrip().endswith(suffix):
        return prompt
    if isinstance(prompt, str):
        return f"{prompt.rstrip()} {suffix}"
    *before, last = prompt
    content = last["content"]
    longer = f"{content.rstrip()} {suffix}" if isinstance(content, str) else _with_text(content, suffix)
    return [*before, {**last, "content": longer}]


def _with_text(parts: Sequence[Any], suffix: str) -> list[Any]:
    return [*parts, {"type": "text", "text": suffix}]


def _task(run: Run, recipe: Recipe) -> Run:
    """The run itself, or the question with the recipe's suffix."""
    prompt = run.request.items[0][1]
    longer = asked_with(run, recipe)
    if longer is prompt:
        return run
    return run.vlm.run(run.request.only(run.pictures, longer))[0]


def _general_prompt(recipe: Recipe) -> str:
    from vlmattn.maps import GENERIC_PROMPT

    return f"{GENERIC_PROMPT} {recipe.suffix}".strip()


def _general(run: Run, recipe: Recipe, steps: int) -> Trace:
    return run.vlm.general.trace(run.vlm, run.request, run.pictures, _general_prompt(recipe), steps=steps)


def _read(run: Run, recipe: Recipe) -> dict[str, Any]:
    return {"layers": recipe.layers, "heads": head_numbers(run.trace, own_heads(run.vlm, recipe.heads))}


def _raw(run: Run, recipe: Recipe, what: Any, image: int) -> PatchMap:
    from vlmattn.maps import raw_attention

    found = raw_attention(_task(run, recipe).trace, _first(recipe, what), image=image, **_read(run, recipe))
    return replace(found, provenance=replace(found.provenance, method="raw"))


def _relative(run: Run, recipe: Recipe, what: Any, image: int) -> PatchMap:
    from vlmattn.maps import raw_attention, relative

    task = _raw(run, recipe, what, image)
    trace = _general(run, recipe, 1)
    generic = raw_attention(trace, image=image, rows="vicrop", **_read(run, recipe))
    floor = recipe.floor * (float(generic.visible_values().mean()) if recipe.floor_of == "mean" else 1.0)
    found = relative(task, replace(generic, label=_general_prompt(recipe)), floor=floor)
    return replace(found, provenance=replace(found.provenance, method="relative"))


def _contrast(run: Run, recipe: Recipe, _what: Any, image: int) -> PatchMap:
    task = _task(run, recipe).trace
    count = 1 if recipe.steps == "first" else len(task.answer_tokens)
    return contrast(
        task,
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

    layers, _ = choose_layers(run.trace, recipe.layers)
    encoded, found = _encoded(run, asked_with(run, recipe)), head_numbers(run.trace, own_heads(run.vlm, recipe.heads))
    heads = None if isinstance(found, (str, HeadPreset)) else found
    with run.vlm.alone():
        made = gradient_attention(run.vlm.model, encoded, layers=layers, image=image, heads=heads)
    return _told(run, made)


def _pure_gradient(run: Run, recipe: Recipe, _what: Any, image: int) -> PatchMap:
    from vlmattn.maps.gradient import pixel_gradient_over

    task, vlm = _encoded(run, asked_with(run, recipe)), run.vlm
    below = vlm.general.slopes(vlm, run.request, run.pictures, _general_prompt(recipe), image=image)
    with vlm.alone():
        found = pixel_gradient_over(vlm.model, task, below, image=image, floor=recipe.floor, floor_of=recipe.floor_of)
    return _told(run, found)


def _encoded(run: Run, prompt: Prompt) -> Encoded:
    if run.request.steering:
        raise SpecError("gradient maps are of the model as it is: ask without steering, or take 'raw' or 'contrast'")
    return run.vlm.encode([run.pictures], [prompt], system=run.request.system)


def _told(run: Run, found: PatchMap) -> PatchMap:
    made = replace(run.trace.provenance, method=found.provenance.method, prompt=found.provenance.prompt)
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
