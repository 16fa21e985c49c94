"""How the words of an answer are grounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.whole import one_pass
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.videos import Video
from vlmattn.display import Rows

if TYPE_CHECKING:
    from vlmattn.api.detected import Judge
    from vlmattn.api.run import Run
    from vlmattn.faithfulness import Evidence, Verdict, VerdictRule
    from vlmattn.grid import PatchMap
    from vlmattn.trace import Span


@dataclass(frozen=True)
class WordGrounding:
    """What one word of the answer rests on.

    Attributes:
        word: the word. image_share: attention on the picture, mean over layers and heads, 0 to 1.
        shares: the same for every segment. peak_xy: the highest point of its map, original pixels; None if flat or
            unknown. Of several pictures, that of the one with the largest share.
        log_probability: of its tokens together, natural log; NaN where it is not known.
        image_shares, peaks_xy: share and peak of each picture or video.
        frame_shares: of each video, the share of every frame, as :attr:`vlmattn.grid.FrameMass.mass_t`; empty for
            pictures.
        entropy: of the map whose peak is told, over the most that its patches allow: 0 for one patch, 1 for all alike;
            NaN where there is no such map.
        sink_share: attention of the word's rows on the model's known sinks, 0 to 1; None where none are known.
        risk: calibrated chance that the word is made up, 0 to 1, by a detector of :mod:`vlmattn.detection`; None unless
            asked for, or where it is not defined. calibration: what it goes by, and what that was fitted on.
        evidence, chance, verdict: of a deletion test, the chance that the word is supported by what it looks at, and
            in a word; None if it was not tested or nothing could be tested. threshold: what the verdict goes by, and
            where that was fitted.
    """

    word: str
    image_share: float
    shares: dict[str, float]
    peak_xy: tuple[float, float] | None
    log_probability: float
    image_shares: tuple[float, ...] = ()
    peaks_xy: tuple[tuple[float, float] | None, ...] = ()
    frame_shares: tuple[tuple[float, ...], ...] = ()
    entropy: float = math.nan
    sink_share: float | None = None
    evidence: Evidence | None = None
    chance: float | None = None
    verdict: Verdict | None = None
    threshold: str = ""
    risk: float | None = None
    calibration: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; None for what is not known."""
        parts = zip(self.image_shares, self.peaks_xy, self.frame_shares, strict=True)
        return {
            "word": self.word,
            "image_share": _known(self.image_share),
            "shares": {name: _known(share) for name, share in self.shares.items()},
            "peak_xy": _listed(self.peak_xy),
            "pictures": [
                {"share": _known(share), "peak_xy": _listed(xy), **({"frame_shares": list(frames)} if frames else {})}
                for share, xy, frames in parts
            ],
            "log_probability": _known(self.log_probability),
            "entropy": _known(self.entropy),
            "sink_share": self.sink_share,
            **({"risk": self.risk, "calibration": self.calibration} if self.calibration else {}),
            **self._tested(),
        }

    def _tested(self) -> dict[str, Any]:
        if not self.threshold:
            return {}
        told = None if self.evidence is None else self.evidence.to_dict()
        return {"evidence": told, "chance": self.chance, "verdict": self.verdict, "threshold": self.threshold}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _listed(xy: tuple[float, float] | None) -> list[float] | None:
    return None if xy is None else list(xy)


def grounding(
    run: Run,
    *,
    method: str = "raw",
    layers: Any = None,
    heads: Any = None,
    test: bool = False,
    rule: VerdictRule | None = None,
    seed: int = 0,
    risk: Judge | bool = False,
    words: Sequence[Span] | None = None,
) -> Rows[WordGrounding]:
    """See :meth:`Run.grounding`. Words of the question have no log-probability, risk or verdict."""
    from vlmattn.api.checks import map_options
    from vlmattn.api.own_heads import own_heads
    from vlmattn.api.shown import grounding_row

    heads = own_heads(run.vlm, heads)
    if rule is not None and not test:
        raise SpecError("a rule makes verdicts of a deletion test: say test=True")
    options = {"method": method, "layers": layers, "heads": heads}
    map_options(run.trace, None, method, {"layers": layers, "heads": heads})
    judge = _judge(run, risk)
    spans = [word for word in run.words() if any(c.isalnum() for c in word.text)] if words is None else list(words)
    with one_pass(run):
        found = [_ground(run, span, options) for span in spans]
    if judge is not None:
        found = _judged(run, spans, found, judge)
    found = _tested(run, spans, found, options, rule, seed) if test else found
    told = next((part for one in found for part in (one.threshold, one.calibration) if part), "")
    return Rows(found, grounding_row, title=f"{run.question} {run.answer}", note=told)


def _judged(run: Run, spans: list[Span], found: list[WordGrounding], judge: Judge) -> list[WordGrounding]:
    from vlmattn.api.detection import risks_of

    answered = [span for span in spans if span.part == "answer"]
    risks = dict(zip(map(id, answered), risks_of(run, answered, judge), strict=True))
    pairs = zip(spans, found, strict=True)
    return [replace(one, risk=risks.get(id(span)), calibration=judge.told) for span, one in pairs]


def _judge(run: Run, risk: Judge | bool) -> Judge | None:
    """What risks go by; None where none are asked for."""
    from vlmattn.api.detection import judge_of

    if risk is False:
        return None
    judge = judge_of(run, None if risk is True else risk)
    if judge is None:
        raise SpecError(
            "a risk needs a detector or a calibration of this model: give risk=Detector, or vlm.use_detector(…) "
            "before; test=True needs none"
        )
    return judge


def _ground(run: Run, word: Span, options: dict[str, Any]) -> WordGrounding:
    count = len(run.pictures)
    maps = [_map(run, word, n, options) for n in range(count)]
    peaks = tuple(None if one is None else one[0] for one in maps)
    means = _masses(run, word, options["layers"], options["heads"])
    shares = {name: float(value) for name, value in zip(run.trace.segments, means, strict=True)}
    by_picture = tuple(shares.get(f"image:{n}", 0.0) for n in range(count))
    most = int(np.argmax(by_picture))
    shown = maps[most]
    return WordGrounding(
        word.label,
        sum(by_picture),
        shares,
        peaks[most],
        _log_probability(run, word),
        by_picture,
        peaks,
        tuple(_frame_shares(run, word, n, options) for n in range(count)),
        math.nan if shown is None else shown[1],
        _sink_share(run, word),
    )


def _map(run: Run, word: Span, image: int, options: dict[str, Any]) -> tuple[tuple[float, float] | None, float] | None:
    """Peak and entropy of a word's map; None where there is none."""
    try:
        look = run.map(word, image=image, **options)
    except MapError:
        return None
    spread = _entropy(look.patch_map)
    try:
        return look.peak_xy, spread
    except MapError:
        return None, spread


def _entropy(patch_map: PatchMap) -> float:
    values = np.maximum(patch_map.visible_values(), 0)
    if len(values) < 2 or values.sum() <= 0:
        return math.nan
    shares = values[values > 0] / values.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(len(values)))


def _frame_shares(run: Run, word: Span, image: int, options: dict[str, Any]) -> tuple[float, ...]:
    from vlmattn.api.video_look import VideoLook

    if not isinstance(run.pictures[image], Video):
        return ()
    try:
        look = run.map(word, image=image, **(options | {"method": "raw"}))
    except MapError:
        return ()
    return tuple(look.frame_mass.mass_t.tolist()) if isinstance(look, VideoLook) else ()


def _masses(run: Run, word: Span, layers: Any, heads: Any) -> np.ndarray:
    # (S,) attention on each segment, mean over the word's rows, heads and layers; NaN if the model never read it.
    from vlmattn.api.checks import head_numbers
    from vlmattn.maps.choices import choose_heads, choose_layers
    from vlmattn.maps.raw import heads_made_one

    trace = run.trace
    read = trace.read_tokens(word.tokens)
    if not read:
        return np.full(len(trace.segments), np.nan)
    chosen, _ = choose_layers(trace, layers, heads)
    found = choose_heads(trace, chosen, head_numbers(trace, heads))
    block = trace.mass_lhqs[trace.layer_slots(chosen)][:, :, trace.rows_of(read)]
    lines = [line[list(kept)] for line, kept in zip(block, found.slots, strict=True)]
    return np.asarray(heads_made_one(lines, found, "mean").mean(axis=(0, 1)))


def word_shares(run: Run, word: Span, *, layers: Any = None, heads: Any = None) -> tuple[float, float]:
    """Of a word or phrase of question or answer: attention of its rows on pictures, 0 to 1, and its log-probability.

    NaN where it is not known: log-probabilities are of what the model wrote or was given as its answer. ``layers`` and
    ``heads`` as in :func:`grounding`.
    """
    from vlmattn.api.own_heads import own_heads

    means = _masses(run, word, layers, own_heads(run.vlm, heads))
    shares = [float(v) for name, v in zip(run.trace.segments, means, strict=True) if name.startswith("image:")]
    return sum(shares), _log_probability(run, word) if word.part == "answer" else math.nan


def _log_probability(run: Run, word: Span) -> float:
    scores = run.trace.scores
    if scores is None or word.part != "answer":
        return float("nan")
    steps = [t - run.trace.layout.answer_start for t in word.tokens]
    return float(np.sum([scores.chosen_logp_t[s] if s < len(scores.chosen_logp_t) else np.nan for s in steps]))


def _sink_share(run: Run, word: Span) -> float | None:
    """Attention of the word's rows on sinks that were looked for before; nothing runs for it."""
    known = run.known_sinks
    if known is None:
        return None
    wanted = [int(run.trace.positions[slot]) for slot in run.trace.rows_of(run.trace.read_tokens(word.tokens))]
    lines = np.isin(known.positions, wanted)
    taken = (known.visual_share_lq + known.text_share_lq)[:, lines]
    return float(taken.mean()) if taken.size and np.isfinite(taken).all() else None


# -- the deletion test -------------------------------------------------------------------------------------------------


def _tested(
    run: Run,
    words: list[Span],
    found: list[WordGrounding],
    options: dict[str, Any],
    rule: VerdictRule | None,
    seed: int,
) -> list[WordGrounding]:
    from vlmattn.api.faithfulness import evidence
    from vlmattn.faithfulness import DEFAULT_RULE

    rule = DEFAULT_RULE if rule is None else rule
    told = f"supported from a chance of {rule.upper:.2f} on, unsupported up to {rule.lower:.2f}: {rule.source}"
    if run.vlm.sink_coordinates is not None and run.known_sinks is None:
        run.sinks()
    out = []
    for word, one in zip(words, found, strict=True):
        image = int(np.argmax(one.image_shares)) if one.image_shares else 0
        made = evidence(run, word, image=image, seed=seed, **options) if word.part == "answer" else None
        chance = None if made is None else rule.chance(made)
        known = chance is not None and not math.isnan(chance)
        out.append(
            replace(
                one,
                sink_share=_sink_share(run, word),
                evidence=made,
                chance=chance if known else None,
                verdict=rule.verdict(made) if made is not None and known else None,
                threshold=told,
            )
        )
    return out
