"""Which heads of a model carry vision: the atlas, and heads by ground-truth boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.api import head_passes as passes
from vlmattn.api.head_scores import ablation_scores, lined, output_scores, picture_rows, row_scores, touched, written
from vlmattn.api.head_store import Store, digest
from vlmattn.api.request import Request
from vlmattn.capture import CaptureSpec, model_sites
from vlmattn.core.errors import CaptureError, SpecError, UnsupportedModel
from vlmattn.core.provenance import Provenance
from vlmattn.heads import (
    FLOOR,
    SCORES,
    HeadAtlas,
    HeadPreset,
    HeadSample,
    Looked,
    best_offset,
    bootstrap_interval,
    choose_by_pointing,
    induction_score,
    kept_heads,
    offset_score,
    scene_samples,
    votes,
)
from vlmattn.heads.kinds import score_names
from vlmattn.heads.localization import BOTTOM_ROW, Variant, check_variant, first_layer, known_mean
from vlmattn.heads.pointing import pointing

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm

Progress = Callable[[int, int], None]
_SPEC = CaptureSpec(rows="answer", dtype="float32", top_k=0)
_TEXTS, _PERIOD, _MEANS = 8, 16, 16
_ROWS = ("visual", "mass", "entropy", "localization", "pointing", "copy")
_OUTPUTS, _ABLATIONS, _REPEATS = ("vhd", "gradient"), ("ablation", "ablation_mean"), ("previous", "induction", "offset")


def head_atlas(
    vlm: Vlm,
    samples: Sequence[HeadSample | tuple[Any, Any]] | None = None,
    *,
    scores: Sequence[str] | str | None = None,
    variant: Variant = "paper",
    max_new_tokens: int = 16,
    keep: str | Path | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> HeadAtlas:
    """Scores of every head on samples: one pass per sample, and those that a score needs.

    Args:
        samples: (picture, question) pairs, or :class:`~vlmattn.heads.HeadSample`, which may have an answer and boxes;
            default: forty questions about drawn scenes. Of several pictures the first one counts.
        scores: names of :data:`vlmattn.heads.SCORES`, or ``all``; default: all but the ablations, which take a pass per
            head, as far as the samples and the model have them. What is named must be had.
        variant: of localization heads: ``paper`` or ``code``; see :mod:`vlmattn.heads.localization`.
        max_new_tokens: how much the model may write where no answer is given.
        keep: a folder in which finished samples are kept; a stopped atlas goes on from there.
        progress: called with (done, total). seed: of bootstrap and of repeated texts. resamples: of the bootstrap.

    Steering of :meth:`Vlm.steer` does not act: an atlas is of the model as it is.

    Raises:
        SpecError: no sample, no such score or variant, or a score that these samples cannot give. FileError: ``keep``
            holds samples of something else. UnsupportedModel, CaptureError: a named score that the model cannot give.

    Example:
        >>> import vlmattn as va
        >>> vlm = va.load("scene")
        >>> atlas = vlm.head_atlas(va.heads.scene_samples(3), scores=["mass", "visual"])
        >>> atlas.scores["mass"].shape
        (4, 6)
    """
    check_variant(variant)
    chosen = _checked(samples)
    names = _possible(score_names(scores), chosen, named=scores is not None)
    plan = _Plan(names, variant, max_new_tokens, named=scores is not None, seed=seed)
    texts = _TEXTS if set(names) & set(_REPEATS) else 0
    told = {"model": vlm.name, "revision": vlm.revision, "scores": list(names), "variant": variant, "seed": seed}
    store = Store(keep, told | {"samples": digest(chosen), "max_new_tokens": max_new_tokens})
    tick = progress or _silent
    held = []
    for number, sample in enumerate(chosen):
        found = store.get(number)
        if found is None:
            found = _scored(vlm, sample, plan, chosen)
            store.put(number, found)
        held.append(found)
        tick(number + 1, len(chosen) + texts)
    tables = _stacked(held)
    if texts:
        tables |= _repeated(vlm, plan, lambda done: tick(len(chosen) + done, len(chosen) + texts))
    return _made(vlm, tables, plan, len(chosen), resamples)


def _silent(_done: int, _total: int) -> None:
    pass


@dataclass
class _Plan:
    """What is computed; scores that the model turns out not to have go, and a note says why."""

    names: tuple[str, ...]
    variant: Variant
    max_new_tokens: int
    named: bool
    seed: int
    notes: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    means: passes.Arrays | None = None

    def of(self, group: Sequence[str]) -> list[str]:
        """Those of a group that are wanted and can be had."""
        return [name for name in group if name in self.names and name not in self.gone]

    def drop(self, name: str, error: Exception) -> None:
        """Leave a score out. Raises the error if it was asked for by name."""
        if self.named:
            raise error
        self.gone.add(name)
        self.notes.append(f"{name} left out: {error}")


def _checked(samples: Any) -> tuple[HeadSample, ...]:
    if samples is None:
        return scene_samples()
    if isinstance(samples, (str, bytes)) or not isinstance(samples, Sequence):
        raise SpecError(f"samples must be a list of (picture, question) pairs or HeadSample, got {samples!r}")
    if not samples:
        raise SpecError("no sample was given: an atlas needs at least one picture and question")
    found = []
    for number, one in enumerate(samples):
        if not isinstance(one, HeadSample):
            if not isinstance(one, (tuple, list)) or len(one) != 2:
                raise SpecError(f"sample {number} must be a (picture, question) pair or a HeadSample, got {one!r:.80}")
            one = HeadSample(*one)
        found.append(one)
    return tuple(found)


def _possible(names: tuple[str, ...], samples: tuple[HeadSample, ...], *, named: bool) -> tuple[str, ...]:
    there = {what: any(getattr(one, what) for one in samples) for what in ("boxes", "words")}
    lacking = [name for name in names if not there.get(SCORES[name].needs, True)]
    if lacking and named:
        needs = SCORES[lacking[0]].needs
        raise SpecError(f"score {lacking[0]!r} needs samples with {needs}, and none has any")
    return tuple(name for name in names if name not in lacking)


# -- one sample --------------------------------------------------------------------------------------------------------


def _ask(vlm: Vlm, sample: HeadSample, max_new_tokens: int) -> Run:
    answers = None if sample.answer is None else (sample.answer,)
    item = (sample.image, sample.question)
    return vlm.run(Request((item,), answers=answers, capture=_SPEC, max_new_tokens=max_new_tokens))[0]


def _scored(vlm: Vlm, sample: HeadSample, plan: _Plan, samples: Sequence[HeadSample]) -> dict[str, NDArray[np.float64]]:
    run = _ask(vlm, sample, plan.max_new_tokens)
    found = row_scores(run, sample, plan.variant) if plan.of(_ROWS) else {}
    for name in plan.of(_OUTPUTS):
        if name in found:
            continue
        wanted = plan.of(_OUTPUTS)
        try:
            found |= output_scores(vlm, run, wanted)
        except (UnsupportedModel, CaptureError):
            found |= _one_by_one(vlm, run, wanted, plan)
    if plan.of(_ABLATIONS):
        if "ablation_mean" in plan.names and plan.means is None:
            plan.means = _means(vlm, samples[:_MEANS], plan)
        found |= ablation_scores(vlm, run, plan.of(_ABLATIONS), plan.means)
    return found


def _one_by_one(vlm: Vlm, run: Run, names: Sequence[str], plan: _Plan) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {}
    for name in names:
        try:
            found |= output_scores(vlm, run, [name])
        except (UnsupportedModel, CaptureError) as error:
            plan.drop(name, error)
    return found


def _means(vlm: Vlm, samples: Sequence[HeadSample], plan: _Plan) -> passes.Arrays:
    held = []
    for sample in samples:
        run = _ask(vlm, sample, plan.max_new_tokens)
        encoded = passes.answered(vlm, run.pictures, sample.question, written(run))
        held.append(passes.passed(vlm, encoded, slopes=False))
    plan.notes.append(f"means of head outputs: over all rows of the first {len(held)} samples")
    return passes.mean_outputs(held)


def _stacked(held: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    shape = next(iter(held[0].values())).shape if held[0] else (0, 0)
    known = {name for one in held for name in one}
    none = np.full(shape, np.nan)
    return {name: np.stack([one.get(name, none) for one in held]) for name in sorted(known)}


def _repeated(vlm: Vlm, plan: _Plan, tick: Callable[[int], None]) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(plan.seed)
    held: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _REPEATS}
    try:
        for number in range(_TEXTS):
            ids, start = passes.repeated_text(vlm, rng, _PERIOD)
            layers, attn = passes.text_attention(vlm, ids)
            values = {
                "previous": offset_score(attn, 1),
                "induction": induction_score(attn, _PERIOD, start=start),
                "offset": best_offset(attn)[0],
            }
            for name, value in values.items():
                held[name].append(lined(vlm, dict(zip(layers, value, strict=True))))
            tick(number + 1)
    except (UnsupportedModel, CaptureError) as error:
        for name in plan.of(_REPEATS):
            plan.drop(name, error)
        return {}
    return {name: np.stack(held[name]) for name in plan.of(_REPEATS)}


# -- all of them -------------------------------------------------------------------------------------------------------


def _made(vlm: Vlm, tables: dict[str, NDArray[np.float64]], plan: _Plan, count: int, resamples: int) -> HeadAtlas:
    depth = model_sites(vlm.model).depth
    layers = model_sites(vlm.model).layers
    if "localization" in plan.names:
        tables["localization"] = _votes(tables, layers, depth, plan)
    if "mass" in tables and not (known_mean(tables["mass"]) >= FLOOR).any():
        plan.notes.append(f"no head gives the picture a mean of {FLOOR} of its attention: none carries vision by these")
    names = [name for name in plan.names if name in tables]
    for name in plan.names:
        if name not in tables and name not in plan.gone:
            plan.notes.append(f"{name} left out: none of the samples has it")
    if not names:
        raise UnsupportedModel(f"{vlm.name!r} can give none of the scores: {'; '.join(plan.notes)}")
    rng = np.random.default_rng(plan.seed)
    ends = {name: bootstrap_interval(tables[name], rng, resamples=resamples) for name in names}
    return HeadAtlas(
        model=vlm.name,
        depth=depth,
        layers=layers,
        scores={name: known_mean(tables[name]) for name in names},
        low={name: ends[name][0] for name in names},
        high={name: ends[name][1] for name in names},
        items={name: int(np.isfinite(tables[name]).any(axis=(1, 2)).sum()) for name in names},
        provenance=_provenance(vlm, plan, count),
        notes=tuple(dict.fromkeys(plan.notes)),
    )


def _votes(
    tables: dict[str, NDArray[np.float64]], layers: Sequence[int], depth: int, plan: _Plan
) -> NDArray[np.float64]:
    start = sum(layer < first_layer(depth) for layer in layers)
    mean = known_mean(tables["mass"])
    start = start if np.isfinite(mean[start:]).any() else 0
    kept, tau = kept_heads(mean, variant=plan.variant, start=start)
    plan.notes.append(
        f"localization, variant {plan.variant}: {int(kept.sum())} heads from layer {layers[start]} on with a mean mass "
        f"of at least {tau:.3g}"
    )
    entropy = tables["entropy"]
    if plan.variant == "code":
        entropy = np.where(tables["bottom"] > BOTTOM_ROW, np.nan, entropy)
    voted = votes(entropy, kept).astype(np.float64)
    return np.where(np.isfinite(tables["mass"]), voted, np.nan)


def _provenance(vlm: Vlm, plan: _Plan, count: int) -> Provenance:
    return Provenance(
        model=vlm.name,
        revision=vlm.revision,
        family=vlm.family,
        dtype=str(vlm.dtype).removeprefix("torch."),
        attention=vlm._kernel(),
        rows="answer",
        convention="predicting",
        method="head_atlas",
        steps=(f"atlas of heads over {count} samples",),
        seed=plan.seed,
    )


# -- heads by ground-truth boxes ---------------------------------------------------------------------------------------


def looks(vlm: Vlm, samples: Sequence[HeadSample], progress: Progress | None = None) -> list[Looked]:
    """Attention of the first answer token's row and the patches that the boxes touch, of every sample with boxes.

    Raises:
        SpecError: no sample has boxes.
    """
    with_boxes = [one for one in _checked(samples) if one.boxes]
    if not with_boxes:
        raise SpecError("no sample has boxes: heads are chosen here by what lies in them")
    found = []
    for number, sample in enumerate(with_boxes, 1):
        trace = _ask(vlm, sample, 1).trace
        attn = picture_rows(trace, [trace.layout.answer_start])[:, :, 0]
        found.append(Looked(attn.astype(np.float32), touched(trace.layout, sample.boxes), sample.kind))
        if progress is not None:
            progress(number, len(with_boxes))
    return found


def pointing_heads(
    vlm: Vlm, samples: Sequence[HeadSample], *, most: int = 3, progress: Progress | None = None
) -> HeadPreset:
    """The set of at most ``most`` heads whose summed attention points best at the boxes of the samples.

    Args:
        samples: with boxes. Choose on one set of them, and measure on another.

    Raises:
        SpecError: no sample has boxes, or ``most`` below 1.

    Example:
        >>> import vlmattn as va
        >>> vlm = va.load("scene")
        >>> chosen = va.heads.scene_samples(8, kinds=("color", "shape"))
        >>> len(vlm.pointing_heads(chosen, most=1).pairs)
        1
    """
    found = looks(vlm, samples, progress)
    layers = model_sites(vlm.model).layers
    chosen = choose_by_pointing(found, most)
    shares = ", ".join(f"{kind or 'all'} {share:.3g}" for kind, share in pointing(found, chosen).items())
    pairs = tuple((layers[line], head) for line, head in chosen)
    source = f"chosen by boxes on {len(found)} samples of {vlm.name}"
    return HeadPreset("pointing", pairs, model_sites(vlm.model).depth, source, f"pointing there: {shares}")
