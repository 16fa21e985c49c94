"""What scores and detectors of :mod:`vlmattn.detection` read, made of a run: rows, states, and further passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.api.states import answered, image_at, layers_of, states_of
from vlmattn.core.errors import CaptureError, MapError, SpecError, UnsupportedModel
from vlmattn.detection import (
    SCORES,
    Calibration,
    Detector,
    ModelKey,
    ScoreSpec,
    Seen,
    TokenStates,
    lookback_ratio,
    shipped_detector,
    shipped_detectors,
    visual_attention_ratio,
)

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm
    from vlmattn.capture.readout import StreamPass
    from vlmattn.sinks import Sinks
    from vlmattn.trace import Span, Trace

Judge = Detector | Calibration
HEADS, STATES = "heads", "states:"
"""Kinds of features: of all heads, and states of one layer (``states:3``, ``states:-1``)."""


def model_key(vlm: Vlm) -> ModelKey:
    """What a detector knows a model by."""
    from vlmattn.capture import model_sites

    sites = model_sites(vlm.model)
    heads = tuple(site.heads for site in sites.attention)
    return ModelKey(vlm.name, vlm.family, sites.depth, heads, int(sites.width or 0))


def usable(vlm: Vlm, found: Judge | str | Path) -> Judge:
    """What risks can go by for a model, or the file of a detector.

    Raises:
        SpecError: a detector of another model, a calibration of a score that does not exist, or something else.
        FileError: a file that holds no detector.
    """
    made = Detector.load(found) if isinstance(found, str | Path) else found
    if isinstance(made, Detector):
        made.check(model_key(vlm))
    elif not isinstance(made, Calibration):
        raise SpecError(f"risks are by a Detector or a Calibration, got {found!r}")
    elif made.score not in SCORES:
        raise SpecError(f"this calibration is of {made.score!r}, which is none of the scores {', '.join(SCORES)}")
    return made


def shipped_for(vlm: Vlm, kind: str) -> Detector | None:
    """The detector of a kind that is shipped for a model; None if there is none, or another model has its name."""
    if (vlm.name, kind) not in shipped_detectors():
        return None
    found = shipped_detector(vlm.name, kind)
    return found if found.model == model_key(vlm) else None


def seen(run: Run, tokens: Sequence[int], layers: Any = None, *, calibrate: bool = False) -> Seen:
    """What scores of some answer tokens are made of; passes run when a score needs them, and at most once.

    Args:
        layers: of states. calibrate: look for the model's sinks where they are not known yet, which takes some passes.

    Raises:
        MapError: the answer's rows were not kept.
    """
    trace, chosen = run.trace, tuple(tokens)
    trace.rows_of(chosen, "predicting")
    passes = {
        "states": lambda: token_states(run, chosen, layers),
        "first_layer": lambda: first_rows(run, chosen),
        "sinks": lambda: _sinks(run, calibrate),
        "text_only": lambda: divergences(run, chosen),
    }
    return Seen(trace, chosen, _vocabulary(run), passes)


def token_states(run: Run, tokens: Sequence[int], layers: Any = None) -> TokenStates:
    """States of answer tokens, of the patches of all pictures and of the prompt's end, and what the lens reads there.

    Args:
        layers: of states, as in :meth:`Run.patch_words`; default all.

    Raises:
        MapError: patches are none of the decoder's tokens. SpecError: no such layer, or the run was steered.
        UnsupportedModel: no final norm or unembedding is found. BudgetExceeded: too much would be kept.
    """
    layout, chosen = run.trace.layout, layers_of(run, layers)
    patches = [p for image in range(len(layout.images)) for p in image_at(layout, image)]
    at = [*patches, *tokens, *(t - 1 for t in tokens), layout.answer_start - 1]
    passed = states_of(run, chosen, at)
    kept = np.stack([passed.states[n].float().numpy() for n in chosen])
    k, t = len(patches), len(tokens)
    ids = layout.input_ids[list(tokens)]
    final = passed.final[[p - 1 - layout.memory for p in tokens]].cpu()
    own, likeliest, apart = _read_rows(passed, chosen, slice(k + t, k + 2 * t), final, ids)
    lens = [passed.readout.words(passed.states[n][:k], top=1, ids=ids.tolist()).asked.numpy().T for n in chosen]
    shares = np.stack(lens)
    if not (np.isfinite(shares).all() and np.isfinite(own).all()):
        raise MapError("the logit lens gives NaN: the model's numbers do not fit its type; load with dtype='float32'")
    parts = (kept[:, :k], kept[:, k : k + t], kept[:, k + t : k + 2 * t], kept[:, -1])
    return TokenStates(passed.depth, tuple(chosen), *parts, shares, own, likeliest, apart, ids)


def _read_rows(
    passed: StreamPass, layers: Sequence[int], rows: slice, final: Any, ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """(L, T) probability of each written token, the likeliest token, and the divergence from the last distribution."""
    import torch

    last = torch.log_softmax(passed.readout.logits(final, normed=True).double(), -1)
    written = torch.as_tensor(ids)[:, None]
    own, likeliest, apart = [], [], []
    for layer in layers:
        read = torch.log_softmax(passed.readout.logits(passed.states[layer][rows]).double(), -1)
        middle = torch.logaddexp(read, last) - np.log(2)
        far = (read.exp() * (read - middle) + last.exp() * (last - middle)).nan_to_num(0.0).sum(-1) / 2
        own.append(read.gather(1, written)[:, 0].exp().numpy())
        likeliest.append(read.argmax(-1).numpy())
        apart.append(far.clamp(min=0).numpy())
    return np.stack(own).astype(np.float32), np.stack(likeliest), np.stack(apart).astype(np.float32)


def first_rows(run: Run, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(H, T, K) attention of the tokens' own rows in the first layer with attention; K counts as the trace does, and
    what that layer cannot see at all is 0.

    Raises:
        SpecError: the run was steered. UnsupportedAttention: that layer's attention cannot be seen.
    """
    from vlmattn.capture import model_sites
    from vlmattn.capture.whole import WholePass

    layout, vlm = run.trace.layout, run.vlm
    encoded = answered(run, "scores of the first layer")
    layer = model_sites(vlm.model).attention[0].layer_idx
    with vlm.alone():
        held = WholePass(vlm.model, [layer]).run(encoded.inputs).layers[layer]
        rows = [held.attention(slice(t - layout.memory, t - layout.memory + 1)) for t in tokens]
    found = np.concatenate([r.double().cpu().numpy() for r in rows], axis=1)
    full = np.zeros((*found.shape[:2], len(layout)))
    full[:, :, len(layout) - found.shape[2] :] = found
    return full


def divergences(run: Run, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(T,) T-VHD of answer tokens.

    Raises:
        UnsupportedModel: the model cannot run without its picture. SpecError: the run was steered.
    """
    from vlmattn.api import head_passes as passes
    from vlmattn.api.head_scores import token_divergences
    from vlmattn.heads.divergence import token_divergence

    layout = run.trace.layout
    passes.check_text_only(run.vlm, layout)
    outputs = passes.passed(run.vlm, answered(run, "scores without the picture"), slopes=False).outputs
    values = [token_divergence(one) for one in token_divergences(run.vlm, layout, outputs)]
    by_token = dict(zip((passes.answer_rows(layout) + 1 + layout.memory).tolist(), values, strict=True))
    return np.array([by_token.get(t, np.nan) for t in tokens])


def _sinks(run: Run, calibrate: bool) -> Sinks:
    if not calibrate and run.known_sinks is None and run.vlm.sink_coordinates is None:
        raise MapError("this model's sinks are not known yet: call vlm.known_sinks() or vlm.calibrate_sinks() before")
    return run.sinks()


def _vocabulary(run: Run) -> int:
    from vlmattn.capture.readout import head_of

    try:
        size = getattr(head_of(run.vlm.model), "out_features", None)
    except UnsupportedModel:
        size = None
    return int(size or len(run.vlm.adapter.tokenizer))


# -- scores and features of stretches ----------------------------------------------------------------------------------


def scored(
    made: Seen, spans: Sequence[Span], specs: Sequence[ScoreSpec], over: str, *, asked: bool
) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """(n,) per stretch by name, and why scores are missing.

    Args:
        over: how tokens of a stretch are made one. asked: whether the scores were asked for by name; then what is
            missing is an error.
    """
    found: dict[str, NDArray[np.float64]] = {}
    missing: dict[str, str] = {}
    for spec in specs:
        try:
            by_token = dict(zip(made.tokens, spec.of(made).tolist(), strict=True))
        except (MapError, SpecError, UnsupportedModel, CaptureError) as error:
            if asked:
                raise
            missing[spec.name] = str(error)
            continue
        found[spec.name] = np.array([_one([by_token[t] for t in span.tokens], over) for span in spans])
    return found, missing


OVER_TOKENS = ("mean", "max", "first", "last")


def _one(values: Sequence[float], over: str) -> float:
    known = [v for v in values if np.isfinite(v)]
    if over in ("first", "last"):
        return values[0 if over == "first" else -1]
    return float("nan") if not known else float(np.mean(known) if over == "mean" else np.max(known))


def features_of(made: Seen, spans: Sequence[Span], kind: str) -> NDArray[np.float32]:
    """(n, F) features of stretches, mean over their tokens.

    Raises:
        SpecError: no such kind, or states of a layer that was not kept. MapError: heads or rows were not kept.
    """
    if kind == HEADS:
        by_token = _head_features(made.trace, made.tokens)
    elif kind.startswith(STATES):
        by_token = _state_features(made, kind)
    else:
        raise SpecError(f"features must be {HEADS!r} or {STATES}LAYER, got {kind!r}")
    at = {t: n for n, t in enumerate(made.tokens)}
    return np.stack([by_token[[at[t] for t in span.tokens]].mean(axis=0) for span in spans]).astype(np.float32)


def _head_features(trace: Trace, tokens: Sequence[int]) -> NDArray[np.float64]:
    """(T, 2 F): visual attention ratio and lookback ratio of every head that is there; 1 where nothing is written."""
    seen_ratio = visual_attention_ratio(trace, tokens)
    written = any(t > trace.layout.answer_start for t in tokens)
    back = lookback_ratio(trace, tokens) if written else np.full_like(seen_ratio, np.nan)
    there = np.isfinite(seen_ratio).all(axis=2)
    return np.concatenate([seen_ratio[there], np.where(np.isfinite(back), back, 1.0)[there]]).T


def _state_features(made: Seen, kind: str) -> NDArray[np.float64]:
    try:
        layer = int(kind.removeprefix(STATES))
    except ValueError as error:
        raise SpecError(f"features of states are {STATES}LAYER with a number, got {kind!r}") from error
    held = made.states
    at = held.slot(layer)
    return np.concatenate([held.before_ltd[at], held.token_ltd[at]], axis=1).astype(np.float64)
