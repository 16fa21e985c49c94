"""Small detectors that are fitted on words whose truth is known; saved with what they were fitted on.

A detector belongs to one model and one kind of features, and refuses others. Its risk is calibrated on words that it
was not fitted on: folds of pictures, never of words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import atomic_write_bytes
from vlmattn.core.logistic import logistic
from vlmattn.detection.calibration import Calibration, check_both, fit_calibration
from vlmattn.detection.table import MentionTable, ModelKey, read_safetensors
from vlmattn.detection.threshold import RECALL, Threshold, threshold_for_recall

Rule = Literal["logistic", "direction", "neighbours"]
RULES: dict[str, str] = {
    "logistic": "logistic regression with a ridge (Lookback Lens and SVAR's detector are of this kind)",
    "direction": "difference of the mean states of made up and other words (Marks and Tegmark, 2023, arXiv 2310.06824; "
    "of entities: Ferrando et al., ICLR 2025, arXiv 2411.14257, who find such directions with sparse autoencoders)",
    "neighbours": "labels spread over a graph of nearest neighbours by cosine (Zhou et al., NeurIPS 2003)",
}
"""Kinds of detectors."""
_KIND, _FORMAT = "vlmattn detector", "1"
_NEIGHBOURS, _SPREAD = 15, 0.5


@dataclass(frozen=True, eq=False)
class Detector:
    """What tells words that are made up from others, for one model.

    Attributes:
        rule: one of :data:`RULES`. features: what it reads: ``scores:NAME,NAME…`` or a kind of features such as
            ``heads`` or ``states:3``. model: whose. arrays: what was fitted. calibration: from its score to a risk.
        manifest: what it was fitted on: ``images`` (their names), ``words``, ``hallucinated``, settings, and under
            ``thresholds`` those chosen on the folds (:data:`~vlmattn.detection.RECALL`).
    """

    rule: Rule
    features: str
    model: ModelKey
    arrays: dict[str, NDArray[np.float64]]
    calibration: Calibration
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Rule and features."""
        return f"{self.rule} on {self.features}"

    @property
    def told(self) -> str:
        """What its risk goes by, in words."""
        return self.calibration.told

    def scores(self, table: MentionTable) -> NDArray[np.float64]:
        """(n,) higher for words more likely made up; NaN where a score that it reads is not defined.

        Raises:
            SpecError: words of another model, or without the features that it reads.
        """
        self.check(table.model)
        return self._of(table_features(table, self.features))

    def risk(self, table: MentionTable) -> NDArray[np.float64]:
        """(n,) calibrated chance that each word is made up."""
        return self.calibration.risk(self.scores(table))

    def threshold(self, name: str) -> Threshold:
        """A threshold by its name, such as ``recall``: chosen on folds of pictures so that no true word was lost.

        Raises:
            SpecError: it has none of that name; lists those it has.
        """
        held = self.manifest.get("thresholds", {})
        if name not in held:
            raise SpecError(
                f"{self.name} has no threshold {name!r}; it has {', '.join(held) or 'none: fit it again, or give one'}"
            )
        return Threshold.from_dict(held[name])

    def check(self, model: ModelKey) -> None:
        """Raises SpecError for another model than the one it was fitted on."""
        if model != self.model:
            raise SpecError(
                f"this detector ({self.name}) was fitted on {self.model}, and these words are of {model}: its numbers "
                "mean nothing there; fit one for this model"
            )

    def check_apart(self, table: MentionTable) -> None:
        """Raises SpecError where a table holds pictures that the detector was fitted on."""
        shared = sorted(set(table.images) & set(self.manifest.get("images", ())))
        if shared:
            raise SpecError(
                f"{len(shared)} pictures, such as {shared[0]!r}, were there when this detector was fitted: measure it "
                "on others"
            )

    def _of(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        width = len(self.arrays["centre"])
        if x.shape[1] != width:
            raise SpecError(f"this detector reads {width} features of {self.features!r}, got {x.shape[1]}")
        return _READ[self.rule]((x - self.arrays["centre"]) / self.arrays["spread"], self.arrays)

    def save(self, path: str | Path) -> Path:
        """Write it as one safetensors file, its manifest as JSON in the header."""
        from safetensors.numpy import save

        told = {
            "rule": self.rule,
            "features": self.features,
            "model": asdict(self.model),
            "calibration": asdict(self.calibration),
            "manifest": self.manifest,
        }
        arrays = {name: np.ascontiguousarray(values) for name, values in self.arrays.items()}
        return atomic_write_bytes(path, save(arrays, {"kind": _KIND, "format": _FORMAT, "told": json.dumps(told)}))

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """A detector that :meth:`save` wrote.

        Raises:
            FileError: missing, half written, or of another kind.
        """
        told, arrays = read_safetensors(path, _KIND, _FORMAT)
        try:
            if told["rule"] not in RULES or not {"centre", "spread"} <= set(arrays):
                raise ValueError(f"rule {told['rule']!r}, arrays {sorted(arrays)}")
            return cls(
                told["rule"],
                str(told["features"]),
                ModelKey.from_dict(told["model"]),
                arrays,
                Calibration(**told["calibration"]),
                dict(told["manifest"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"the detector in {str(path)!r} is not whole: {error}") from error

    def __repr__(self) -> str:
        return f"<Detector {self.name} of {self.model.name!r}, {self.manifest.get('words', '?')} words>"


def table_features(table: MentionTable, features: str) -> NDArray[np.float64]:
    """(n, F) of a table, as a detector names them.

    Raises:
        SpecError: the table has none of that name; lists those it has.
    """
    if features.startswith("scores:"):
        names = features.removeprefix("scores:").split(",")
        missing = [n for n in names if n not in table.scores]
        if missing:
            raise SpecError(f"scores {missing} were not made of these words; made are {', '.join(table.scores)}")
        return np.column_stack([table.scores[n] for n in names])
    if features not in table.features:
        held = ", ".join(table.features) or "none"
        raise SpecError(
            f"features {features!r} were not kept of these words (kept: {held}): detectors read what they were fitted "
            "on; make words with run.mentions(features=…)"
        )
    return table.features[features].astype(np.float64)


def fit_detector(
    table: MentionTable,
    *,
    rule: Rule = "logistic",
    features: str = "heads",
    ridge: float = 10.0,
    folds: int = 5,
    seed: int = 0,
    source: str = "",
) -> Detector:
    """A detector fitted on words whose truth is known, its risk calibrated on folds of pictures that it had not seen.

    Thresholds that keep recall are chosen on the same folds: see :meth:`Detector.threshold`.

    Args:
        rule: of :data:`RULES`. features: of the table, or ``scores:NAME,NAME…``. ridge: of ``logistic``.
        folds: into which pictures are drawn with ``seed``. source: what the words are, told with every risk.

    Raises:
        SpecError: no such rule or features, features that are not finite, fewer pictures than folds, or one outcome.
    """
    held_out = held_out_scores(table, rule=rule, features=features, ridge=ridge, folds=folds, seed=seed)
    x, y, images = _known(table, features)
    done = np.isfinite(held_out)
    told = f"fitted on {len(y)} words of {len(set(images))} pictures{f' ({source})' if source else ''}"
    calibration = fit_calibration(
        f"{rule} on {features}",
        held_out[done],
        table.hallucinated_n[done].tolist(),
        source=f"{told}, {folds} folds of pictures",
    )
    manifest = {"images": sorted(set(images)), "words": len(y), "hallucinated": int(y.sum()), "source": source}
    risk, truth = calibration.risk(held_out[done]), table.hallucinated_n[done].tolist()
    chosen = {name: asdict(threshold_for_recall(risk, truth, lost=lost)) for name, lost in RECALL.items()}
    manifest |= {"ridge": ridge, "folds": folds, "seed": seed, "thresholds": chosen}
    return Detector(rule, features, table.model, _fitted(rule, x, y, ridge), calibration, manifest)


def held_out_scores(
    table: MentionTable,
    *,
    rule: Rule = "logistic",
    features: str = "heads",
    ridge: float = 10.0,
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """(n,) scores of each word by a detector fitted on the other folds of pictures; NaN where features are not defined,
    or the other folds have one outcome. See :func:`fit_detector`."""
    if rule not in RULES:
        raise SpecError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
    x, y, images = _known(table, features)
    check_both(y)
    of_image = image_folds(images, folds, seed)
    found = np.full(len(y), np.nan)
    for fold in range(folds):
        inside = of_image == fold
        if inside.any() and y[~inside].min() < y[~inside].max():
            found[inside] = _read(rule, x[inside], _fitted(rule, x[~inside], y[~inside], ridge))
    every = np.full(len(table), np.nan)
    every[np.isfinite(table_features(table, features)).all(axis=1)] = found
    return every


def _known(table: MentionTable, features: str) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Features, outcomes and pictures of the words whose features are defined."""
    x, y = table_features(table, features), table.hallucinated_n.astype(np.float64)
    known: NDArray[np.bool_] = np.asarray(np.isfinite(x).all(axis=1))
    if not known.any():
        raise SpecError(f"features {features!r} are not defined for any of these words")
    return x[known], y[known], [n for n, k in zip(table.images, known, strict=True) if k]


def image_folds(images: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) fold of each word, the same for all words of a picture.

    Raises:
        SpecError: fewer than two folds, or fewer pictures than folds.
    """
    names = sorted(set(images))
    if not 2 <= folds <= len(names):
        raise SpecError(f"folds must be from 2 to the {len(names)} pictures there are, got {folds}")
    order = np.random.default_rng(seed).permutation(len(names))
    number = {names[at]: rank % folds for rank, at in enumerate(order)}
    return np.array([number[one] for one in images], dtype=np.int64)


# -- the rules ---------------------------------------------------------------------------------------------------------

Arrays = dict[str, NDArray[np.float64]]


def _fitted(rule: str, x: NDArray[np.float64], y: NDArray[np.float64], ridge: float) -> Arrays:
    spread = x.std(axis=0)
    arrays = {"centre": x.mean(axis=0), "spread": np.where(spread > 1e-12, spread, 1.0)}
    z = (x - arrays["centre"]) / arrays["spread"]
    if rule == "logistic":
        bias, weights = logistic(z, y, ridge=ridge)
        return arrays | {"weights": weights, "bias": np.array([bias])}
    if rule == "direction":
        return arrays | {"weights": z[y > 0].mean(axis=0) - z[y == 0].mean(axis=0), "bias": np.zeros(1)}
    return arrays | {"states": z, "labels": _spread_labels(z, y)}


def _read(rule: str, x: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
    return _READ[rule]((x - arrays["centre"]) / arrays["spread"], arrays)


def _linear(z: NDArray[np.float64], arrays: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(z @ arrays["weights"] + arrays["bias"][0])


def _spread_labels(z: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    # One step of spreading: half of each label, and half of what its neighbours say.
    near = _similar(z, z)
    np.fill_diagonal(near, -np.inf)
    return (1 - _SPREAD) * y + _SPREAD * _voted(near, y)


def _neighbours(z: NDArray[np.float64], arrays: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return _voted(_similar(z, arrays["states"]), arrays["labels"])


def _voted(near: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    count = min(_NEIGHBOURS, len(labels) - (1 if np.isneginf(near).any() else 0))
    best = np.argsort(-near, axis=1, kind="stable")[:, : max(count, 1)]
    weights = np.exp(np.take_along_axis(near, best, axis=1))
    return np.asarray((weights * labels[best]).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300))


def _similar(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None]
    return np.divide(a @ b.T, norms, out=np.zeros((len(a), len(b))), where=norms > 0)


_READ: dict[str, Callable[[NDArray[np.float64], Mapping[str, NDArray[np.float64]]], NDArray[np.float64]]] = {
    "logistic": _linear,
    "direction": _linear,
    "neighbours": _neighbours,
}
