"""Maps that are read off states of a decoder: token activation maps and the logit lens."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import BudgetExceeded, MapError, SpecError, WordNotFound
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.core.words import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmattn.adapters import Encoded
    from vlmattn.api.run import Run
    from vlmattn.capture.readout import StreamPass
    from vlmattn.grid import PatchMap

OVER_TOKENS = ("mean", "max", "first", "last")
PROMPTS = ("question", "all", "none")


def tam_map(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """See :mod:`vlmattn.maps.tam`; of a word of several tokens, their maps made one by ``over_tokens``."""
    check_sinks("tam", sinks)
    prompt = one_of(options.get("prompt", "question"), "prompt", PROMPTS)
    over = one_of(options.get("over_tokens", "mean"), "over_tokens", OVER_TOKENS)
    joint, causal = (_switch(options, name) for name in ("joint", "causal"))
    size = options.get("window", 3)
    _check_window(size)
    span = span_of(run, what, options)
    tokens = _of_tokens(span.tokens, over)
    layout = run.trace.layout
    _check_after(layout, span, tokens, image)
    passed = states_of(run, ())
    grids = [_activation_map(passed, layout, t, image, prompt, joint, causal) for t in tokens]
    values = np.max(grids, axis=0) if over == "max" else np.mean(grids, axis=0)
    told = f"token activation of {span.label!r}: {over} over {len(tokens)} tokens"
    told += f", earlier tokens taken away (prompt: {prompt})" if causal else ", nothing taken away"
    found = picture_map(run, values, span, image, told + (", scaled with the text" if joint else ""))
    return _smoothed(found, size)


def _activation_map(
    passed: StreamPass, layout: TokenLayout, token: int, image: int, prompt: str, joint: bool, causal: bool
) -> NDArray[np.float64]:
    """(K,) activations in one picture for the token at a position, as the model had read up to the one before it."""
    from vlmattn.maps.tam import activations, interference, joint_minmax, without_interference

    at = image_at(layout, image)
    own = int(layout.input_ids[token])
    before = _earlier(layout, token, prompt)
    ids = [int(layout.input_ids[k]) for k in before]
    columns = list(dict.fromkeys([own, *ids]))
    z = passed.readout.columns(passed.final[[*at, *before]], columns).cpu().numpy()
    a = activations(z)
    mine, text, count = a[: len(at), 0], a[len(at) :, 0], len(at)
    if causal:
        other = [n for n, k in enumerate(before) if not _same_text(layout, k, token)]
        maps = np.stack([a[:count, columns.index(ids[n])] for n in other]) if other else np.zeros((0, count))
        mine = without_interference(mine, interference(text[other], maps))
    return joint_minmax(mine, text)[0] if joint else mine


def _earlier(layout: TokenLayout, token: int, prompt: str) -> list[int]:
    """Positions of the text tokens before ``token`` that may interfere."""
    kinds = {"question": [TokenKind.QUESTION], "none": []}.get(
        prompt, [TokenKind.QUESTION, TokenKind.SYSTEM, TokenKind.BOS]
    )
    known = np.isin(layout.kinds, [*kinds, TokenKind.ANSWER]) & (layout.input_ids >= 0)
    return [int(p) for p in np.flatnonzero(known) if layout.memory <= p < token]


def _same_text(layout: TokenLayout, one: int, other: int) -> bool:
    if layout.input_ids[one] == layout.input_ids[other]:
        return True
    a, b = (layout.text[max(low, 0) : max(high, 0)].strip() for low, high in layout.char_span[[one, other]])
    return bool(a) and a == b


def _of_tokens(tokens: Sequence[int], over: str) -> list[int]:
    return {"first": list(tokens[:1]), "last": list(tokens[-1:])}.get(over, list(tokens))


def _check_after(layout: TokenLayout, span: Span, tokens: Sequence[int], image: int) -> None:
    if min(tokens) <= image_at(layout, image)[-1]:
        raise MapError(f"{span.text!r} stands before picture {image}, which was not read by then: ask for a later word")


def _check_window(size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1 or not size % 2:
        raise SpecError(f"window must be an odd whole number of cells (1 leaves the map as it is), got {size!r}")


def _smoothed(found: PatchMap, size: int) -> PatchMap:
    from vlmattn.maps.tam import rank_gaussian

    if size == 1:
        return found
    told = found.provenance.then(f"rank Gaussian filter {size} x {size}")
    return replace(found, values=tuple(rank_gaussian(v, int(size)) for v in found.values), provenance=told)


def _switch(options: dict[str, Any], name: str) -> bool:
    value = options.get(name, True)
    if not isinstance(value, bool):
        raise SpecError(f"{name} must be True or False, got {value!r}")
    return value


# -- the logit lens ----------------------------------------------------------------------------------------------------


def lens_map(run: Run, what: Any, image: int, options: dict[str, Any], sinks: str) -> PatchMap:
    """Probability of a word's token at every patch, over the whole vocabulary, from the states of layers."""
    over = one_of(options.get("over_layers", "max"), "over_layers", ("max", "mean"))
    tokens = one_of(options.get("over_tokens", "first"), "over_tokens", ("first", "mean"))
    span, ids = word_ids(run, what, options)
    chosen = ids[:1] if tokens == "first" else ids
    shares, layers = lens_shares(run, chosen, image, options.get("layers"))
    values = (shares.max(axis=0) if over == "max" else shares.mean(axis=0)).astype(np.float64)
    said = ", ".join(repr(run.vlm.adapter.tokenizer.decode([i])) for i in chosen)
    told = f"logit lens: probability of {tokens} of {len(ids)} tokens ({said})"
    layers_said = f"states of layers {ranges_said(layers)} of 0-{depth_of(run)} (0: what enters the first)"
    made = picture_map(run, values, span, image, told, layers=layers_said, reduction=f"{over} over layers")
    return made if sinks == "keep" else _sinks_apart(run, made, image, sinks)


def _sinks_apart(run: Run, made: PatchMap, image: int, how: str) -> PatchMap:
    """The map with visual sinks, or all but them, marked as not seen: no share is moved, probabilities stay."""
    layout = run.trace.layout
    is_sink = np.isin(layout.image_positions, [token.position for token in run.sinks().visual])
    shown = is_sink if how == "only" else ~is_sink
    whole = type(made).from_vector(np.zeros(len(shown)), layout, picture=image, visible=shown)
    count = int((is_sink & (layout.image[layout.image_positions] == image)).sum())
    told = made.provenance.then(f"{count} visual sinks: {how}")
    return replace(made, visible=whole.visible, provenance=told)


def lens_shares(run: Run, ids: Sequence[int], image: int, layers: Any) -> tuple[NDArray[np.float32], list[int]]:
    """(L, K) probabilities, mean over ``ids``, at the patches of a picture, and the layers."""
    chosen = layers_of(run, layers)
    at = image_at(run.trace.layout, image)
    passed = states_of(run, chosen, at)
    found = [passed.readout.words(passed.states[n], top=1, ids=ids).asked.mean(dim=1).numpy() for n in chosen]
    shares = np.stack(found)
    if not np.isfinite(shares).all():
        raise MapError("the logit lens gives NaN: the model's numbers do not fit its type; load with dtype='float32'")
    return shares, chosen


def internal_confidence(run: Run, what: Any, *, image: int, layers: Any, options: dict[str, Any]) -> float:
    """See :meth:`vlmattn.Run.internal_confidence`."""
    _, ids = word_ids(run, what, options)
    return float(lens_shares(run, ids[:1], image, layers)[0].max())


def word_ids(run: Run, what: Any, options: dict[str, Any]) -> tuple[Span, list[int]]:
    """The token ids of a word, as it stands in the answer or question, else as it would stand after a space."""
    try:
        span = span_of(run, what, options)
    except WordNotFound:
        if options.get("part") or options.get("occurrence"):
            raise
        ids = run.vlm.adapter.tokenizer(f" {what.strip()}", add_special_tokens=False)["input_ids"]
        texts = [run.vlm.adapter.tokenizer.decode([i]) for i in ids]
        written = [i for i, text in zip(ids, texts, strict=True) if text.strip()] or list(ids)
        return Span(what.strip(), "answer", (-1, -1), ()), [int(i) for i in written]
    layout = run.trace.layout
    pairs = [(int(layout.input_ids[t]), layout.text[slice(*layout.char_span[t])]) for t in span.tokens]
    return span, [i for i, text in pairs if text.strip()] or [i for i, _ in pairs]


def layers_of(run: Run, layers: Any) -> list[int]:
    """Numbers of states, 0 to n; negative ones from the end (-1: behind the last layer). None for all."""
    return check_layers(run.vlm.model, layers)


def check_layers(model: Any, layers: Any) -> list[int]:
    """See :func:`layers_of`; raises SpecError for what a model does not have."""
    from vlmattn.api.checks import whole_numbers
    from vlmattn.capture.readout import stream_layers

    depth = stream_layers(model)
    if layers is None:
        return list(range(depth + 1))
    numbers = whole_numbers(layers, "layers")
    wrong = [n for n in numbers if not -depth - 1 <= n <= depth]
    if wrong or not numbers:
        raise SpecError(
            f"states of layers {wrong or '(none)'} do not exist: they are 0 (what enters the first layer) to {depth} "
            "(what leaves the last), or -1 for the last"
        )
    return sorted({n % (depth + 1) for n in numbers})


def depth_of(run: Run) -> int:
    """How many layers the residual stream goes through."""
    from vlmattn.capture.readout import stream_layers

    return stream_layers(run.vlm.model)


def ranges_said(layers: Sequence[int]) -> str:
    """Numbers in words."""
    from vlmattn.core.provenance import ranges

    return ranges(list(layers))


# -- shared ------------------------------------------------------------------------------------------------------------


def states_of(run: Run, layers: Sequence[int], positions: Sequence[int] = ()) -> StreamPass:
    """The run's question and answer once more, with states kept.

    Raises:
        SpecError: the run was steered. BudgetExceeded: states would take more than the capture's budget.
    """
    from vlmattn.capture.readout import stream_pass

    _check_size(run, len(layers), len(positions))
    with run.vlm.alone():
        return stream_pass(run.vlm.model, answered(run, "maps of states"), positions, layers=layers)


def answered(run: Run, what: str) -> Encoded:
    """The prompt with the run's answer behind it, as tokens.

    Raises:
        SpecError: the run was steered.
    """
    from vlmattn.api.follow import with_answers

    if run.request.steering:
        raise SpecError(f"{what} are of the model as it is: ask without steering, or take method='raw'")
    encoded = run.vlm.encode([run.pictures], [run.request.items[0][1]], system=run.request.system)
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    return with_answers(run.vlm.adapter, encoded, [ids])[0] if ids else encoded


def _check_size(run: Run, layers: int, patches: int) -> None:
    from vlmattn.capture import model_sites
    from vlmattn.capture.spec import bytes_said

    budget = run.request.capture.budget
    needed = layers * patches * (model_sites(run.vlm.model).width or 0) * 4
    if (isinstance(budget, Integral) or budget > 1) and needed > budget:
        raise BudgetExceeded(
            f"states of {patches} patches in {layers} layers take {bytes_said(needed)}, over the budget of "
            f"{bytes_said(int(budget))}: choose fewer layers="
        )


def span_of(run: Run, what: Any, options: dict[str, Any]) -> Span:
    """The span asked for, with its tokens that have a text."""
    span = run.trace.find(what, part=options.get("part"), occurrence=options.get("occurrence"))
    if not span.tokens:
        raise MapError(f"no token carries {span.text!r}: ask for a word")
    return span


def image_at(layout: TokenLayout, image: int) -> list[int]:
    """Positions of the patches of a picture among the decoder's own tokens.

    Raises:
        MapError: they are none of its tokens, so they have no states in it.
    """
    at = layout.image_positions
    found = [int(p) for p in at[layout.image[at] == image]]
    if layout.memory and any(p < layout.memory for p in found):
        raise MapError(
            "this family's decoder looks at patches by cross attention or through a resampler's queries: they are none "
            "of its tokens and have no states in it; take method='raw' or 'occlusion'"
        )
    if not found:
        raise MapError(f"no token stands for a patch of picture {image}")
    return found


def picture_map(run: Run, values: NDArray[np.floating], span: Span, image: int, told: str, **said: str) -> PatchMap:
    """A map from (K,) values at the patches of a picture."""
    from vlmattn.grid import PatchMap

    layout = run.trace.layout
    at = layout.image_positions
    full = np.zeros(len(at))
    full[layout.image[at] == image] = values
    cleared: dict[str, str] = {"convention": "", "rows": "", "heads": "", "layers": "", "reduction": ""}
    provenance = run.trace.provenance.then(told, **(cleared | said))
    return PatchMap.from_vector(full, layout, picture=image, provenance=provenance, label=span.label)


def check_sinks(method: str, sinks: str) -> None:
    """Raises SpecError where sinks are to be dropped from a map that reads no attention."""
    if sinks != "keep":
        raise SpecError(f"method={method!r} reads no attention, so no sinks can be dropped: leave out sinks={sinks!r}")


def one_of(value: Any, name: str, known: Sequence[str]) -> str:
    """``value``; raises SpecError unless it is one of ``known``."""
    if value not in known:
        raise SpecError(f"{name} must be one of {', '.join(known)}; got {value!r}")
    return str(value)


STATE_MAKERS = {"tam": tam_map, "logit_lens": lens_map}
