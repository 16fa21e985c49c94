"""OPERA: beam search that penalises tokens which lean on one earlier token of the answer, and goes back where it did.

Huang et al., "OPERA: Alleviating Hallucination in Multi-Modal Large Language Models via Over-Trust Penalty and
Retrospection-Allocation", CVPR 2024, arXiv 2311.17911. Of the last layer, a_ij is the attention of the answer's token i
to its token j <= i: the largest of all heads, each row divided by its sum. Each of the k likeliest next tokens of a
beam is tried; with n tokens of the answer, that one included:

    s_j = 1e-7 prod_{i>=j} sigma a_ij,   penalty = max_j s_j,   c = argmax_j s_j                  n > 10
    penalty = - (share of the row that goes to the picture)                                        n <= 10
    score   = log softmax over the k of (logit - weight * penalty)

If in every beam the commonest c since it was first noted has come more than ``threshold`` times, the search goes back
to the token after c, and takes others there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture.branch import Branch
from vlmattn.capture.choices import is_whole
from vlmattn.capture.rows import attention_rows
from vlmattn.capture.watching import chosen_sites, watching
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout
from vlmattn.steering.method import Method, Slot, check_pictures

_EARLY = 10
_SMALL = 1e-7


@dataclass(frozen=True)
class Beam:
    """One beam: its tokens, its score, the local rows of each of them, and the locations c that were noted."""

    tokens: tuple[int, ...] = ()
    score: float = 0.0
    rows: tuple[NDArray[np.float64], ...] = field(default=(), repr=False)
    places: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class OPERA(Method):
    """Over-trust penalty and retrospection.

    Attributes:
        beams: width of the search. candidates: k. scale: sigma. weight: of the penalty; 0 leaves decoding to
            ``generate``, bit for bit. threshold: how often one place may come up; None never goes back.

    What it costs: every step reads ``beams * candidates`` tokens (25 by default) in one pass, with a key-value cache
    for each of them, so memory of the cache is that many times the plain one's; and every step back reads the prompt
    and the answer so far anew, token by token. Against greedy decoding expect far more than twice the time. One prompt
    is searched at a time. What is kept of attention is then read off the finished answer in one more pass.

    A hypothesis's score is the sum of its log-probabilities over its length; the search ends when ``beams`` of them
    have ended. It does not go together with other steering or with options of ``generate``.

    Raises:
        SpecError: values out of range; on asking, no image tokens, other steering, or other ways of decoding.

    Example:
        >>> OPERA.preset("cheap").threshold
        25
    """

    slot: ClassVar[Slot] = "logits"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "released": {"beams": 5, "candidates": 5, "scale": 50.0, "weight": 1.0, "threshold": 15},
        "cheap": {"candidates": 1, "threshold": 25},
    }

    beams: int = 5
    candidates: int = 5
    scale: float = 50.0
    weight: float = 1.0
    threshold: int | None = 15

    def __post_init__(self) -> None:
        for name, least in (("beams", 2), ("candidates", 1), ("threshold", 1)):
            value = getattr(self, name)
            if not (is_whole(value) and value >= least) and not (name == "threshold" and value is None):
                raise SpecError(f"{name} of OPERA must be a whole number, at least {least}; got {value!r}")
        self._check_number("scale", 0)
        self._check_number("weight", 0)

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.weight == 0

    def searches(self) -> bool:
        """See :meth:`Steering.searches`."""
        return not self.neutral

    def acts_without_writing(self) -> bool:
        """Its answers are read anew to see where the model looked."""
        return not self.neutral

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures("OPERA", layouts)
        if any(layout.memory for layout in layouts):
            raise SpecError("OPERA reads attention to the decoder's own tokens; this model has keys beside them")

    def search(self, model: Any, encoded: Any, *, most: int, ends: Sequence[int]) -> tuple[int, ...]:
        """See :meth:`Steering.search`."""
        self.check(None, encoded.layouts)
        return _Search(self, model, encoded, frozenset(int(one) for one in ends)).run(most)

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("beams", "candidates", "scale", "weight", "threshold")


class _Search:
    """One search."""

    def __init__(self, opera: OPERA, model: Any, encoded: Any, ends: frozenset[int]) -> None:
        self.opera, self.ends = opera, ends
        self.prompt = encoded.inputs["input_ids"]
        self.branch = Branch(model, encoded.inputs, int(self.prompt.shape[1]))
        self.sites = chosen_sites(model, [-1], own=True)
        self.picture = encoded.layouts[0].image_positions + encoded.pad_left[0]
        self.rows: torch.Tensor = torch.empty(0)

    def run(self, most: int) -> tuple[int, ...]:
        live, ended = [Beam()], list[Beam]()
        before: list[list[Beam]] = []
        banned: dict[int, set[int]] = {}
        back: Counter[int] = Counter()
        logits = self._read([()])
        while len(live[0].tokens) < most and len(ended) < self.opera.beams:
            at = len(live[0].tokens)
            before = [*before[:at], live]
            tried = [t for b, line in zip(live, logits, strict=True) for t in self._tried(b, line, banned.get(at))]
            following = self._read([one.tokens for one, _ in tried])
            scored = self._scored(tried)
            chosen: list[int] = []
            for number in sorted(range(len(scored)), key=lambda n: -scored[n].score):
                if scored[number].tokens[-1] in self.ends:
                    ended.append(scored[number])
                elif len(chosen) < self.opera.beams:
                    chosen.append(number)
            if not chosen:
                break
            live, logits = [scored[n] for n in chosen], following[chosen]
            place = self._goes_back_to(live, back)
            if place is not None:
                back[place] += 1
                banned.setdefault(place, set()).update(one.tokens[place] for one in live)
                live, ended = before[place], [one for one in ended if len(one.tokens) <= place]
                logits = self._read([one.tokens for one in live])
        return max((*ended, *live), key=lambda one: one.score / max(len(one.tokens), 1)).tokens

    def _read(self, lines: Sequence[tuple[int, ...]]) -> torch.Tensor:
        # (R, V) logits behind each line; keeps the last layer's row of each.
        tokens = torch.as_tensor(lines, dtype=torch.long, device=self.prompt.device).reshape(len(lines), -1)
        ids = torch.cat([self.prompt.expand(len(lines), -1), tokens], dim=1)
        with watching(self.sites, self._look):
            return self.branch.logits(ids)

    def _look(self, _site: Any, call: Any, _output: torch.Tensor) -> None:
        last = call.query.shape[2] - 1
        self.rows = attention_rows(call, slice(last, last + 1))[:, :, 0].amax(dim=1).double().cpu()

    def _tried(self, beam: Beam, line: torch.Tensor, banned: set[int] | None) -> list[tuple[Beam, float]]:
        # The likeliest next tokens of a beam, each with its logit.
        line = line.clone()
        line[list(banned or ())] = -torch.inf
        best = line.topk(self.opera.candidates)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(replace(beam, tokens=(*beam.tokens, token)), logit) for token, logit in pairs]

    def _scored(self, tried: Sequence[tuple[Beam, float]]) -> list[Beam]:
        found = []
        for number, (beam, logit) in enumerate(tried):
            count = len(beam.tokens)
            row = self.rows[number].numpy()
            penalty, local, place = self._penalty(beam, row, count)
            places = beam.places if place is None else (*beam.places, place)
            found.append((logit - self.opera.weight * penalty, replace(beam, rows=(*beam.rows, local), places=places)))
        out, size = [], self.opera.candidates
        for first in range(0, len(found), size):
            kin = found[first : first + size]
            total = _log_sum([value for value, _ in kin])
            out += [replace(one, score=one.score + value - total) for value, one in kin]
        return out

    def _penalty(
        self, beam: Beam, row: NDArray[np.float64], count: int
    ) -> tuple[float, NDArray[np.float64], int | None]:
        own = row[-count:]
        local = np.pad(own, (count - len(own), 0))  # a window may have moved past the first ones
        local = local / max(local.sum(), 1e-300)
        if count <= _EARLY:
            inside = self.picture - (self.branch.prompt + count - len(row))
            return -float(row[inside[inside >= 0]].sum() / max(row.sum(), 1e-300)), local, None
        block = [*beam.rows, local]
        with np.errstate(divide="ignore"):
            logs = np.full(count, math.log(_SMALL))
            for i, line in enumerate(block):
                logs[: i + 1] += np.log(self.opera.scale * line)
        place = int(logs.argmax())
        return math.exp(min(logs[place], 700.0)), local, place

    def _goes_back_to(self, live: Sequence[Beam], back: Counter[int]) -> int | None:
        if self.opera.threshold is None:
            return None
        common = [Counter(one.places).most_common(1) for one in live]
        if not all(found and found[0][1] > self.opera.threshold for found in common):
            return None
        place = min(found[0][0] for found in common) + 1
        fits = _EARLY < place < len(live[0].tokens) and back[place] < self.opera.candidates
        return place if fits else None


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))
