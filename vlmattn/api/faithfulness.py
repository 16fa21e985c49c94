"""Tests of a run's maps: what happens to the answer without what a map shows, and to the map without the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.changed import AnswerScore
from vlmattn.api.checks import still
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.videos import Video
from vlmattn.display import Told

if TYPE_CHECKING:
    from vlmattn.api.look import Look
    from vlmattn.api.run import Run
    from vlmattn.faithfulness import Baseline, Cells, Evidence
    from vlmattn.trace import Span

METRICS = (
    "deletion",
    "insertion",
    "comprehensiveness",
    "sufficiency",
    "average_drop",
    "increase",
    "road",
    "correlation",
    "occlusion",
)
"""What :meth:`Run.faithfulness` can measure; ``occlusion``: rank correlation with the occlusion of each patch."""


@dataclass(frozen=True)
class FaithfulnessReport(Told):
    """What removal says of one map of one word.

    Attributes:
        word, method: of the map. scores: by metric; NaN where one is not defined (see each function of
            :mod:`vlmattn.faithfulness`). baseline: what parts were replaced with; None for each metric's own, which
            ``average_drop``, ``increase`` and ``road`` always have.
        passes: pictures that the model looked at for it. seed: of what is drawn at random.
    """

    word: str
    method: str
    scores: dict[str, float]
    baseline: str | None
    passes: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what is not known."""
        scores = {name: None if np.isnan(value) else value for name, value in self.scores.items()}
        told = {"word": self.word, "method": self.method, "scores": scores, "baseline": self.baseline}
        return told | {"passes": self.passes, "seed": self.seed}

    def __str__(self) -> str:
        lines = [f"{self.method} map of {self.word!r} ({self.passes} pictures looked at)"]
        lines += [f"  {name:18} {value:8.4f}" for name, value in self.scores.items()]
        return "\n".join(lines)


def faithfulness(
    run: Run,
    what: Any = None,
    *,
    metrics: Sequence[str] = ("deletion", "insertion", "comprehensiveness", "sufficiency"),
    method: str = "raw",
    image: int = 0,
    baseline: Baseline | None = None,
    seed: int = 0,
    batch: int = 8,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> FaithfulnessReport:
    """See :meth:`Run.faithfulness`."""
    from vlmattn.faithfulness import BASELINES, cells_of

    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not len(metrics):
        raise SpecError(f"metrics must be some of {', '.join(METRICS)}; got {list(metrics)}")
    if baseline is not None and baseline not in BASELINES:
        raise SpecError(f"baseline must be one of {', '.join(BASELINES)}; got {baseline!r}")
    picture = still(run.pictures, image).image
    span = _answered(run, what, options)
    score = AnswerScore(run, span, image, batch=batch, progress=progress)
    look = _look(run, what, method, image, options)
    cells = cells_of(look.patch_map)
    if cells.is_flat:
        raise MapError(
            f"the map of {look.label!r} is flat: it puts nothing first, so nothing can be taken out in its order"
        )
    rng = np.random.default_rng(seed)
    found: dict[str, float] = {}
    for name in metrics:
        if name not in found:
            found |= _MEASURES[name](picture, cells, score, baseline, rng)
    scores = {name: found[name] for name in metrics}
    return FaithfulnessReport(look.label, method, scores, baseline, score.passes, seed)


def _own(baseline: Baseline | None) -> dict[str, Any]:
    return {} if baseline is None else {"baseline": baseline}


def _deletion(image: Any, cells: Cells, score: AnswerScore, baseline: Baseline | None, _: Any) -> dict[str, float]:
    from vlmattn.faithfulness import deletion

    return {"deletion": deletion(image, cells, score, **_own(baseline)).area}


def _insertion(image: Any, cells: Cells, score: AnswerScore, baseline: Baseline | None, _: Any) -> dict[str, float]:
    from vlmattn.faithfulness import insertion

    return {"insertion": insertion(image, cells, score, **_own(baseline)).area}


def _erasure(image: Any, cells: Cells, score: AnswerScore, baseline: Baseline | None, _: Any) -> dict[str, float]:
    from vlmattn.faithfulness import erasure

    found = erasure(image, cells, score, **_own(baseline))
    return {"comprehensiveness": found.comprehensiveness, "sufficiency": found.sufficiency}


def _drop(image: Any, cells: Cells, score: AnswerScore, _: Baseline | None, __: Any) -> dict[str, float]:
    from vlmattn.faithfulness import drop_and_rise

    try:
        lost, rose = drop_and_rise(image, cells, score)
    except MapError:  # a probability of 0: flat maps were refused before
        return {"average_drop": float("nan"), "increase": float("nan")}
    return {"average_drop": lost, "increase": float(rose)}


def _road(image: Any, cells: Cells, score: AnswerScore, _: Baseline | None, rng: Any) -> dict[str, float]:
    from vlmattn.faithfulness import road

    return {"road": road(image, cells, score, rng=rng)}


def _correlation(image: Any, cells: Cells, score: AnswerScore, baseline: Baseline | None, rng: Any) -> dict[str, float]:
    from vlmattn.faithfulness import faithfulness_correlation

    return {"correlation": faithfulness_correlation(image, cells, score, rng=rng, **_own(baseline))}


def _occlusion(image: Any, cells: Cells, score: AnswerScore, baseline: Baseline | None, _: Any) -> dict[str, float]:
    from vlmattn.faithfulness import occlusion, rank_correlation

    return {"occlusion": rank_correlation(cells.values, occlusion(image, cells, score, **_own(baseline)))}


_MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "deletion": _deletion,
    "insertion": _insertion,
    "comprehensiveness": _erasure,
    "sufficiency": _erasure,
    "average_drop": _drop,
    "increase": _drop,
    "road": _road,
    "correlation": _correlation,
    "occlusion": _occlusion,
}


def _answered(run: Run, what: Any, options: dict[str, Any]) -> Span:
    span = run.trace.find(what, part=options.get("part"), occurrence=options.get("occurrence"))
    if span.part != "answer":
        raise MapError(f"{span.text!r} is of the question, and only words of the answer can become less likely")
    return span


def _look(run: Run, what: Any, method: str, image: int, options: dict[str, Any]) -> Look:
    from vlmattn.api.video_look import VideoLook

    look = run.map(what, method=method, image=image, **options)
    if isinstance(look, VideoLook):
        raise SpecError("this looks at pictures, not at videos: give single frames as pictures")
    return look


# -- between methods ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement(Told):
    """How alike the maps of one word are.

    Attributes:
        word: of the maps. methods: M of them. spearman, top: (M, M) rank correlation, and share of the highest tenth in
            common. caution: to be shown with it.
    """

    word: str
    methods: tuple[str, ...]
    spearman: tuple[tuple[float, ...], ...]
    top: tuple[tuple[float, ...], ...]
    caution: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what is not known."""
        tables = {
            name: [[None if np.isnan(v) else v for v in row] for row in getattr(self, name)]
            for name in ("spearman", "top")
        }
        return {"word": self.word, "methods": list(self.methods), **tables, "caution": self.caution}

    def __str__(self) -> str:
        width = max(len(name) for name in self.methods)
        head = " " * width + "".join(f" {name:>10.10}" for name in self.methods)
        pairs = zip(self.methods, self.spearman, strict=True)
        lines = [f"{name:{width}}" + "".join(f" {v:10.2f}" for v in row) for name, row in pairs]
        return "\n".join([f"rank correlation of maps of {self.word!r}", head, *lines, self.caution])


def agreement(run: Run, what: Any = None, *, methods: Sequence[str], image: int = 0, **options: Any) -> Agreement:
    """See :meth:`Run.agreement`."""
    from vlmattn.faithfulness import CAUTION, cells_of, rank_correlation, top_overlap

    if len(methods) < 2:
        raise SpecError(f"agreement needs at least two methods, got {list(methods)}")
    looks = [_look(run, what, method, image, dict(options)) for method in methods]
    values = [cells_of(look.patch_map).values for look in looks]
    spearman = tuple(tuple(rank_correlation(a, b) for b in values) for a in values)
    top = tuple(tuple(top_overlap(a, b) for b in values) for a in values)
    return Agreement(looks[0].label, tuple(methods), spearman, top, CAUTION)


@dataclass(frozen=True)
class Randomised:
    """How alike a map is to that of the same model with random layers.

    Attributes:
        word, method: of the map. stages: what was random: each one and those before it. spearman: rank correlation with
            the map of the whole model; near 0 is what a map of the model must come to; NaN where a map is flat.
    """

    word: str
    method: str
    stages: tuple[str, ...]
    spearman: tuple[float, ...]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what is not known."""
        told = [None if np.isnan(v) else v for v in self.spearman]
        head = {"word": self.word, "method": self.method, "stages": list(self.stages)}
        return head | {"spearman": told, "seed": self.seed}


def randomisation(
    run: Run, what: Any = None, *, method: str = "raw", image: int = 0, seed: int = 0, **options: Any
) -> Randomised:
    """See :meth:`Run.randomisation`."""
    from vlmattn.faithfulness import cascade, cells_of, rank_correlation

    span = _answered(run, what, options)
    options = {k: v for k, v in options.items() if k not in ("part", "occurrence")}
    whole = cells_of(_look(run, span, method, image, options).patch_map).values
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    found = []
    try:
        with run.vlm.alone(), cascade(run.vlm.model, seed=seed) as random:
            for stage in random.stages:
                random.randomise(stage)
                again = run.vlm.run(replace(run.request, answers=(ids,)))[0]
                values = cells_of(_look(again, span, method, image, options).patch_map).values
                found.append(rank_correlation(whole, values))
    finally:
        run.vlm.general.clear()  # passes of a random model
    return Randomised(span.label, method, random.stages, tuple(found), seed)


# -- the small deletion test of grounding ------------------------------------------------------------------------------


def evidence(
    run: Run,
    span: Span,
    *,
    method: str = "raw",
    image: int = 0,
    share: float | None = None,
    controls: int | None = None,
    baseline: Baseline = "inpaint",
    seed: int = 0,
    **options: Any,
) -> Evidence | None:
    """What is lost without a square round the peak of a word's map, and without squares elsewhere; None where nothing
    can be tested: a flat map, or a word whose rows see no picture.

    Args:
        span: of the answer. share, controls: size and number of squares; default: those the verdict is fitted for.
    """
    from vlmattn.faithfulness import CONTROLS, REGION, Evidence, boxes_as_masks, squares, without

    if isinstance(run.pictures[image], Video):
        return None
    picture = still(run.pictures, image).image
    try:
        peak = _look(run, span, method, image, options).peak_xy
    except MapError:
        return None
    rng = np.random.default_rng(seed)
    places = squares(
        picture.size, peak, share=share or REGION, controls=CONTROLS if controls is None else controls, rng=rng
    )
    changed = [without(picture, mask, baseline) for mask in boxes_as_masks(picture.size, places)]
    scores = AnswerScore(run, span, image, probabilities=False)([picture, *changed])
    with np.errstate(invalid="ignore"):  # a word that cannot be said at all has nothing to lose
        lost = scores[0] - scores[1:]
    return Evidence(float(lost[0]), tuple(float(v) for v in lost[1:]), float(scores[0]), places[0])
