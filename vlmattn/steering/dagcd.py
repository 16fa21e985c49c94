"""DAGCD: words of the prompt that attention says are being used become likelier where the model is unsure.

Huang et al., "Dynamic Attention-Guided Context Decoding for Mitigating Context Faithfulness Hallucinations in Large
Language Models", Findings of ACL 2025, arXiv 2501.01059. At each step, of K chosen heads, with a_kj the last row's
attention to token j of the question, columns of equal token ids averaged:

    r_kj = a_kj / sum_i a_ki
    used = sigmoid(b + sum_k w_k r_kj) > 1/2  and  rank of j in p <= top_rank
    u_j  ~ sum_k w_k r_kj over used tokens, summing to 1
    p'   = p + alpha (H(p) / ln |vocabulary|) u

and the step is left alone where the best token of p' ends the answer. The paper's context is a text; here it is the
question, so that it makes answers keep to the words they were asked about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture import Where, model_sites
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.core.logistic import logistic
from vlmattn.steering.contrast import LogitsMethod, Processor
from vlmattn.steering.method import Heads, check_heads, check_pairs


@dataclass(frozen=True, eq=False, kw_only=True)
class DAGCD(LogitsMethod):
    """Dynamic attention-guided context decoding.

    Attributes:
        heads: (layer, head) pairs. weights: w of each. bias: b. alpha: 0 changes nothing, bit for bit; the paper's 2
            for base models, 4 for chat models. top_rank: least rank in p. ends: token ids that end an answer.

    Heads and weights come from :func:`fit_dagcd`. It reads attention and edits none; one pass. Logits stay as they are
    in steps that are left alone, but for normalisation.

    Raises:
        SpecError: values out of range, other numbers of weights than heads; on asking, heads that do not exist.

    Example:
        >>> DAGCD(heads=((1, 0),), weights=(2.0,), bias=-0.5).alpha
        2.0
    """

    rows: ClassVar[EditRows] = "last"  # type: ignore[misc]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    heads: Heads
    weights: tuple[float, ...]
    bias: float = 0.0
    alpha: float = 2.0
    top_rank: int = 10
    ends: tuple[int, ...] = ()
    _seen: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", check_pairs("DAGCD", self.heads))
        object.__setattr__(self, "weights", tuple(float(one) for one in self.weights))
        if len(self.weights) != len(self.heads) or not all(math.isfinite(one) for one in self.weights):
            raise SpecError(f"DAGCD needs one finite weight per head: {len(self.heads)} heads, {self.weights}")
        self._check_number("bias")
        self._check_number("alpha", 0)
        self._check_number("top_rank", 1)
        if self.layers is not None:
            raise SpecError("the heads of DAGCD say which layers it reads: leave layers out")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """The layers of the heads."""
        super().layers_among(present)
        return self.layers_of_heads(present, self.heads)

    def for_model(self, vlm: Any) -> Self:
        """A copy for one run, if the model has the heads.

        Raises:
            SpecError: a head that does not exist.
        """
        sites = model_sites(getattr(vlm, "model", vlm))
        check_heads(self.heads, {s.layer_idx: s.heads for s in sites.attention})
        return replace(self)

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        for layout in layouts:
            if not (layout.kinds == TokenKind.QUESTION).any() or layout.memory:
                raise SpecError("DAGCD reads attention to the question's own tokens, and a prompt has none")

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """Notes what the heads give the question; changes nothing."""
        if not self.neutral:
            for layer, head in self.heads:
                if layer == where.layer_idx:
                    self._seen[layer, head] = _by_position(probs_bhrk[:, head, -1], where)
        return None

    @contextmanager
    def writing(self, model: Any, encoded: Any, settings: Mapping[str, Any] | None = None) -> Iterator[Any | None]:
        """See :meth:`Steering.writing`; the session must steer with this very object."""
        self._seen.clear()
        with super().writing(model, encoded, settings) as processor:
            yield processor

    def processor(self, model: Any, encoded: Any) -> Processor:
        """See :class:`LogitsMethod`."""
        asked = [np.flatnonzero(layout.kinds == TokenKind.QUESTION) for layout in encoded.layouts]
        words = [layout.input_ids[at] for layout, at in zip(encoded.layouts, asked, strict=True)]

        def change(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if len(self._seen) < len(self.heads):
                raise CaptureError("DAGCD saw no attention: give the same object to the session that runs the model")
            copies = len(scores) // len(words)
            lines = [self._one(line, n, asked[n // copies], words[n // copies]) for n, line in enumerate(scores)]
            return torch.stack(lines)

        return change

    def _one(self, line: torch.Tensor, number: int, at: NDArray[Any], words: NDArray[Any]) -> torch.Tensor:
        log_p = torch.log_softmax(line.float(), dim=-1)
        p = log_p.exp()
        given = np.stack([self._seen[one][number, at].double().cpu().numpy() for one in self.heads])  # (K, J)
        ids, ratios = ratios_of(given, words)
        marks = np.array(self.weights) @ ratios
        rank = (p[None, :] > p[ids][:, None]).sum(dim=-1).cpu().numpy() + 1
        used = (marks + self.bias > 0) & (rank <= self.top_rank) & (marks > 0)
        if not used.any():
            return log_p
        entropy = float(-(p * log_p.nan_to_num(neginf=0.0)).sum()) / math.log(len(p))
        pull = torch.zeros_like(p)
        pull[torch.as_tensor(ids[used], device=p.device)] = torch.as_tensor(
            marks[used] / marks[used].sum(), dtype=p.dtype, device=p.device
        )
        new = p + self.alpha * entropy * pull
        if int(new.argmax()) in self.ends:
            return log_p
        return torch.log(new / new.sum())

    def describe(self) -> str:
        """One phrase for provenance."""
        return f"DAGCD: {len(self.heads)} heads, alpha={self.alpha}, top_rank={self.top_rank}"


def _by_position(row_bk: torch.Tensor, where: Where) -> torch.Tensor:
    # (B, N) attention by position of the layout, 0 where the window does not reach.
    out = row_bk.new_zeros((row_bk.shape[0], where.first_column + row_bk.shape[1]))
    out[:, where.first_column :] = row_bk
    longest = max(len(layout) for layout in where.layouts)
    lines = [
        torch.nn.functional.pad(line[pad : pad + len(layout)], (0, longest - min(len(layout), len(line) - pad)))
        for line, pad, layout in zip(out, where.pad_left, where.layouts, strict=True)
    ]
    return torch.stack(lines)


def ratios_of(given_kj: NDArray[Any], words: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Different ids (U,), and (K, U) each head's share of its attention, mean over the places of each id.

    Args:
        given_kj: (K, J) attention of K heads to J tokens. words: (J,) their ids.

    Example:
        >>> ids, shares = ratios_of(np.array([[0.1, 0.3, 0.1]]), np.array([7, 5, 7]))
        >>> ids.tolist(), shares.round(2).tolist()
        ([5, 7], [[0.6, 0.2]])
    """
    ids, place = np.unique(words, return_inverse=True)
    share = given_kj / np.maximum(given_kj.sum(axis=1, keepdims=True), 1e-300)
    total = np.stack([np.bincount(place, line, minlength=len(ids)) for line in share])
    return ids.astype(np.int64), total / np.bincount(place)


def fit_dagcd(
    ratios_nlh: NDArray[Any], used_n: NDArray[Any], layers: Sequence[int], *, heads: int = 10, alpha: float = 2.0
) -> DAGCD:
    """A DAGCD whose heads and weights tell used words of the question from others, by logistic regression.

    Args:
        ratios_nlh: (n, L, H) shares of attention to one word, of n (step, word) pairs; see :func:`ratios_of`. used_n:
            whether the word is what was written. layers: (L,) numbers. heads: how many of highest weight are kept, and
            fitted again.

    Raises:
        SpecError: shapes that do not fit, words all of one sort, or fewer heads than asked for.
    """
    x, y = np.asarray(ratios_nlh, dtype=np.float64), np.asarray(used_n, dtype=np.float64)
    if x.ndim != 3 or len(x) != len(y) or x.shape[1] != len(layers) or not 1 <= heads <= x.shape[1] * x.shape[2]:
        raise SpecError(f"ratios must be (n, L, H) for n marks and L layers with {heads} heads; got {x.shape}")
    if y.min() == y.max():
        raise SpecError("a detector needs words that were used and words that were not")
    flat = x.reshape(len(x), -1)
    _, weights = logistic(flat, y)
    best = np.sort(np.argsort(-weights * flat.std(axis=0), kind="stable")[:heads])
    bias, kept = logistic(flat[:, best], y)
    pairs = tuple((int(layers[n // x.shape[2]]), int(n % x.shape[2])) for n in best)
    return DAGCD(heads=pairs, weights=tuple(float(w) for w in kept), bias=float(bias), alpha=alpha)
