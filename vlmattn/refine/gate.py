"""Whether a second look is worth its price: a gate over what the first look already shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.core.files import as_path, write_json
from vlmattn.core.logistic import logistic
from vlmattn.refine.complexity import attention_entropy
from vlmattn.refine.recipes import check_number
from vlmattn.trace import Trace

_NAMES = ("margin", "entropy", "image_share")


@dataclass(frozen=True)
class Signs:
    """What a first look shows.

    Attributes:
        margin: the smallest difference, over the answer's tokens, of the log-probabilities of the two likeliest tokens;
            nats, 0 or more. NaN where candidates were not kept.
        entropy: attention entropy of the row that predicts the first answer token over its maximum ln N, 0 to 1; NaN
            where the picture gets no attention.
        image_share: attention of that row on all pictures, mean over layers and heads, 0 to 1.
    """

    margin: float
    entropy: float
    image_share: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain values; None where a sign is not known."""
        return {name: None if np.isnan(value) else float(value) for name, value in asdict(self).items()}


def signs_of(trace: Trace, *, image: int = 0) -> Signs:
    """The signs of an answer.

    Raises:
        MapError: the answer has no token, or the row that predicts its first one was not kept.
    """
    if not trace.answer_tokens:
        raise MapError("the answer has no token, so nothing says how certain it is")
    row = trace.rows_of(trace.answer_tokens[:1], "predicting")
    slots = trace.layer_slots(trace.seeing)
    masses = trace.over_heads(trace.mass_lhqs[slots][:, :, row], trace.seeing)
    mine = [n for n, name in enumerate(trace.segments) if name.startswith("image")]
    try:
        spread = attention_entropy(trace, image=image, step=0) / np.log(max(len(trace.image_columns(image)), 2))
    except MapError:
        spread = float("nan")
    return Signs(_margin(trace), float(spread), float(masses[..., mine].sum(axis=-1).mean()))


def _margin(trace: Trace) -> float:
    scores = trace.scores
    if scores is None or scores.top_logp_tk.shape[1] < 2 or not len(scores.top_logp_tk):
        return float("nan")
    count = len(trace.answer_tokens)
    return float((scores.top_logp_tk[:count, 0] - scores.top_logp_tk[:count, 1]).min())


@dataclass(frozen=True)
class Gate:
    """Looks again where ``bias + margin * Signs.margin + entropy * Signs.entropy + image_share * …`` is above 0.

    The default is our choice: a margin under 2 nats (the likeliest token less than seven times as likely as the next).
    :func:`fit_gate` makes one for a model. Signs with weight 0 are not looked at; one that is not known and has a
    weight looks again.

    Raises:
        SpecError: a weight that is no finite number.
    """

    bias: float = 2.0
    margin: float = -1.0
    entropy: float = 0.0
    image_share: float = 0.0
    name: str = "default"

    def __post_init__(self) -> None:
        for name in ("bias", *_NAMES):
            check_number(f"the gate's {name}", getattr(self, name), -np.inf, None)

    def score(self, signs: Signs) -> float:
        """Above 0: look again. NaN where a sign with a weight is not known."""
        pairs = ((getattr(self, name), getattr(signs, name)) for name in _NAMES)
        return float(self.bias + sum(weight * value for weight, value in pairs if weight))

    def looks_again(self, signs: Signs) -> bool:
        """The decision."""
        score = self.score(signs)
        return bool(np.isnan(score) or score > 0)

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        target = as_path(path)
        write_json(target, asdict(self))
        return target

    @classmethod
    def load(cls, path: str | Path) -> Gate:
        """A gate that :meth:`save` wrote.

        Raises:
            FileError: not such a file.
        """
        try:
            held = json.loads(as_path(path).read_text(encoding="utf-8"))
            name = str(held.pop("name"))
            weights: dict[str, Any] = {field: float(value) for field, value in held.items()}
            return cls(**weights, name=name)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{path} holds no gate ({error}): write one with fit_gate(…).gate.save") from error


@dataclass(frozen=True)
class FittedGate:
    """A gate and what it did on the data it was fitted on.

    Attributes:
        gate: the gate. looked: share of questions looked at again. first, always, gated: accuracy of the first answers,
            of all second ones, and with the gate.
    """

    gate: Gate
    looked: float
    first: float
    always: float
    gated: float

    @property
    def saved(self) -> float:
        """Share of second looks that were not needed, 0 to 1."""
        return 1.0 - self.looked

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"saved": self.saved}


def fit_gate(
    signs: Sequence[Signs], first: Sequence[bool], second: Sequence[bool], *, keep: float = 1.0, name: str = "fitted"
) -> FittedGate:
    """The gate that looks again least often and keeps a share of what always looking again would gain.

    Logistic regression (ridge 1, standardised signs) of "the first answer is wrong and the second right" gives the
    weights; the threshold is the one with the fewest second looks among those that keep the gain.

    Args:
        signs: of the first looks. first, second: whether each answer is right. keep: of the gain; at most what the
            best threshold reaches is asked for.

    Raises:
        SpecError: lengths that differ, no data, or ``keep`` outside 0 to 1. MapError: a sign that is not known.
    """
    if not len(signs) == len(first) == len(second) or not len(signs):
        raise SpecError(f"give signs and answers of the same questions, got {len(signs)}, {len(first)}, {len(second)}")
    check_number("keep", keep, 0.0, 1.0)
    table = np.array([[getattr(one, n) for n in _NAMES] for one in signs], dtype=np.float64)
    if not np.isfinite(table).all():
        raise MapError("a sign of some question is not known: keep candidates (top_k=2 or more) and the answer's rows")
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    bias, weights = logistic(table, (two > one).astype(np.float64))
    cut, looked, gated = _threshold(bias + table @ weights, one, two, keep)
    margin, entropy, share = (float(weight) for weight in weights)
    gate = Gate(bias - cut, margin, entropy, share, name)
    return FittedGate(gate, looked, float(one.mean()), float(two.mean()), gated)


def _threshold(
    scores: NDArray[np.float64], one: NDArray[np.float64], two: NDArray[np.float64], keep: float
) -> tuple[float, float, float]:
    """The cut, the share looked at above it, and the accuracy there."""
    order = np.argsort(-scores, kind="stable")
    gains = np.concatenate([[0.0], np.cumsum((two - one)[order])])
    ends = [0, *(n for n in range(1, len(order)) if scores[order[n]] < scores[order[n - 1]]), len(order)]
    wanted = min(keep * float((two - one).sum()), float(max(gains[n] for n in ends)))
    count = next(n for n in ends if gains[n] >= wanted - 1e-9)
    above = scores[order[count - 1]] if count else scores.max() + 2.0
    below = scores[order[count]] if count < len(order) else scores.min() - 2.0
    return float((above + below) / 2), count / len(order), float((one.sum() + gains[count]) / len(order))
