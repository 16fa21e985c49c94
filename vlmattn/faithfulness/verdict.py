"""Whether an answer rests on what it looks at: a small deletion test, and a verdict with a known error.

A square round the peak of a word's map is painted over, and so are squares of the same size elsewhere. If the word's
log-probability falls with the first and not with the others, the word rests on that place. That says nothing of whether
it is true; on the models in the box it goes with it, which is what the verdict is fitted on and measured by.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.core.files import as_path, write_json
from vlmattn.core.logistic import logistic

Verdict = Literal["supported", "unsupported", "unclear"]
REGION = 0.14
"""Share of the picture that the square takes."""
CONTROLS = 4
"""Squares elsewhere."""
_MOST = 10.0
_FEATURES = ("excess", "log_probability")


@dataclass(frozen=True)
class Evidence:
    """What a deletion test of one word found.

    Attributes:
        drop: log-probability lost without the square round the peak, in nats; below 0 if it rose. controls: the same
            for squares elsewhere. log_probability: of the word on the whole picture. box_xyxy: the square, in pixels.
    """

    drop: float
    controls: tuple[float, ...]
    log_probability: float
    box_xyxy: tuple[int, int, int, int]

    @property
    def excess(self) -> float:
        """How much more is lost with the peak than elsewhere, on average; from -10 to 10, beyond which it is cut."""
        others = float(np.mean(self.controls)) if self.controls else 0.0
        return float(np.clip(self.drop - others, -_MOST, _MOST))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None for what is not a finite number."""
        return {
            "drop": _known(self.drop),
            "controls": [_known(one) for one in self.controls],
            "log_probability": _known(self.log_probability),
            "box_xyxy": list(self.box_xyxy),
            "excess": _known(self.excess),
        }


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class VerdictRule:
    """From evidence to the chance that an answer is supported, and to a verdict.

    ``chance = 1 / (1 + exp(-(bias + excess · Evidence.excess + log_probability · …)))``; ``supported`` from ``upper``
    on, ``unsupported`` up to ``lower``, else ``unclear``.

    Attributes:
        source: what it was fitted on; told with every verdict.

    Raises:
        SpecError: numbers that are not finite, or bounds that are not 0 < lower <= upper < 1.
    """

    bias: float
    excess: float
    log_probability: float
    source: str
    upper: float = 0.6
    lower: float = 0.4

    def __post_init__(self) -> None:
        if not all(np.isfinite(v) for v in (self.bias, self.excess, self.log_probability)):
            raise SpecError("the weights of a verdict must be finite numbers")
        if not 0 < self.lower <= self.upper < 1:
            raise SpecError(f"bounds must be 0 < lower <= upper < 1, got {self.lower} and {self.upper}")

    def chance(self, evidence: Evidence) -> float:
        """That an answer with this evidence is supported, 0 to 1; NaN where its log-probability is not known."""
        score = self.bias + sum(getattr(self, name) * getattr(evidence, name) for name in _FEATURES)
        return float(1 / (1 + np.exp(-np.clip(score, -50, 50)))) if np.isfinite(score) else float("nan")

    def verdict(self, evidence: Evidence) -> Verdict:
        """``supported``, ``unsupported`` or ``unclear``."""
        chance = self.chance(evidence)
        return "supported" if chance >= self.upper else "unsupported" if chance <= self.lower else "unclear"

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        target = as_path(path)
        write_json(target, asdict(self))
        return target

    @classmethod
    def load(cls, path: str | Path) -> VerdictRule:
        """A rule that :meth:`save` wrote.

        Raises:
            FileError: not such a file.
        """
        try:
            held = json.loads(as_path(path).read_text(encoding="utf-8"))
            source = str(held.pop("source"))
            return cls(source=source, **{name: float(value) for name, value in held.items()})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{path} holds no verdict rule ({error}): write one with fit_verdict(…).save") from error


def fit_verdict(evidence: Sequence[Evidence], supported: Sequence[bool], *, source: str) -> VerdictRule:
    """The rule that best tells supported answers from others (logistic regression, ridge 1).

    Args:
        evidence: of answers of your model. supported: whether each rests on what is there. source: told with verdicts.

    Raises:
        SpecError: lengths that differ, no data, or only one outcome. MapError: a log-probability that is not known.
    """
    if len(evidence) != len(supported) or not len(evidence):
        raise SpecError(f"give evidence and outcomes of the same answers, got {len(evidence)} and {len(supported)}")
    table = np.array([[getattr(one, name) for name in _FEATURES] for one in evidence], dtype=np.float64)
    outcome = np.asarray(supported, dtype=np.float64)
    if not np.isfinite(table).all():
        raise MapError("the log-probability of some answer is not known: keep candidates (top_k=1 or more)")
    if outcome.min() == outcome.max():
        raise SpecError("all answers have one outcome, so nothing can be told apart: give some of both kinds")
    bias, weights = logistic(table, outcome)
    return VerdictRule(bias, float(weights[0]), float(weights[1]), source)


@dataclass(frozen=True)
class Reliability:
    """How often what was called so likely came true.

    Attributes:
        told, true: (bins,) mean chance told and share that came true in each bin that is not empty. counts: of each.
        error: expected calibration error, mean |told - true| weighted by counts; 0 is best.
    """

    told: tuple[float, ...]
    true: tuple[float, ...]
    counts: tuple[int, ...]
    error: float


def reliability(chances: ArrayLike, outcomes: ArrayLike, *, bins: int = 10) -> Reliability:
    """The reliability curve in equal steps of chance (Guo et al., "On Calibration of Modern Neural Networks", ICML
    2017).

    Example:
        >>> reliability([0.25, 0.25, 0.75, 0.75], [0, 1, 1, 1], bins=2).error
        0.25
    """
    told, came = np.asarray(chances, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if told.shape != came.shape or told.ndim != 1 or not len(told) or bins < 1:
        raise SpecError(f"give one chance per outcome, and at least one bin; got {told.shape}, {came.shape}, {bins}")
    if not ((told >= 0) & (told <= 1)).all():
        raise SpecError("chances must lie between 0 and 1")
    at = np.minimum((told * bins).astype(int), bins - 1)
    used = np.unique(at)
    means = [(float(told[at == b].mean()), float(came[at == b].mean()), int((at == b).sum())) for b in used]
    error = sum(abs(t - c) * n for t, c, n in means) / len(told)
    return Reliability(
        tuple(t for t, _, _ in means), tuple(c for _, c, _ in means), tuple(n for _, _, n in means), float(error)
    )


def squares(
    image_wh: tuple[int, int],
    peak_xy: tuple[float, float],
    *,
    share: float = REGION,
    controls: int = CONTROLS,
    rng: np.random.Generator,
) -> list[tuple[int, int, int, int]]:
    """The square round a peak, moved into the picture, and squares of its size elsewhere, at most a tenth on it.

    Fewer squares where the picture has no room for them.

    Raises:
        SpecError: a share outside 0 to 1.
    """
    if not 0 < share < 1:
        raise SpecError(f"the square's share must be above 0 and below 1, got {share}")
    width, height = image_wh
    area = share * width * height
    w, h = max(1, min(width, round(area**0.5))), max(1, min(height, round(area**0.5)))
    w, h = min(width, max(w, round(area / h))), min(height, max(h, round(area / w)))
    left = int(np.clip(round(peak_xy[0] - w / 2), 0, width - w))
    top = int(np.clip(round(peak_xy[1] - h / 2), 0, height - h))
    found = [(left, top, left + w, top + h)]
    for _ in range(200):
        if len(found) > controls:
            break
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        shared = max(0, min(x, left) + w - max(x, left)) * max(0, min(y, top) + h - max(y, top))
        if shared <= 0.1 * w * h:
            found.append((x, y, x + w, y + h))
    return found


def boxes_as_masks(image_wh: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]]) -> list[NDArray[np.bool_]]:
    """(H, W) of each box."""
    masks = []
    for x0, y0, x1, y1 in boxes:
        mask = np.zeros((image_wh[1], image_wh[0]), dtype=np.bool_)
        mask[y0:y1, x0:x1] = True
        masks.append(mask)
    return masks


DEFAULT_RULE = VerdictRule(
    1.366,
    0.698,
    17.793,
    source="fitted on 730 claims of presence of the models in the box, right in .93 of 734 others (always the more "
    "frequent: .85); for another model fit one of its own: vlmattn.faithfulness.fit_verdict",
)
"""The rule that comes with the library; see ``docs/grounding.md``."""
