"""Head pursuit: the few words of the vocabulary that explain what a head writes.

"Head Pursuit: Probing Attention Specialization in Multimodal Transformers", NeurIPS 2025, arXiv 2510.21518:
simultaneous orthogonal matching pursuit of H (n, d), the head's contributions to the residual stream (its slice of
A V W_O) at the last token of n samples, over a dictionary D of unembedding rows:

    p = argmax_j || R D_j ||_1,   S = S + {p},   W = argmin || H - W D_S ||_F,   R = H - W D_S

repeated k times from R = H, S = {}. Its score is the explained share of the norm, 1 - ||R||_F^2 / ||H||_F^2. With one
sample, one step and rows as they are, it is the logit lens by magnitude: argmax_j |h D_j|.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.whole import is_whole
from vlmattn.display import Told

_CHUNK = 4096


@dataclass(frozen=True)
class Pursued:
    """What a pursuit found in one matrix.

    Attributes:
        atoms: (k',) rows of the dictionary, in the order found; fewer than asked for once nothing is left.
        shares: (k',) explained share of the squared norm after each step, 0 to 1, never falling.
        weights_ns: (n, k') of the last step: how much of each atom (as it is in the dictionary) each sample has.
    """

    atoms: NDArray[np.int64]
    shares: NDArray[np.float64]
    weights_ns: NDArray[np.float64]

    @property
    def share(self) -> float:
        """Explained share at the end; 0 where nothing was found."""
        return float(self.shares[-1]) if len(self.shares) else 0.0


def matching_pursuit(
    written_nd: NDArray[Any],
    dictionary_vd: NDArray[Any],
    steps: int = 5,
    *,
    normalise: bool = True,
    centre: bool = False,
) -> Pursued:
    """Rows of a dictionary that together explain most of what was written.

    Args:
        written_nd: (n, d) contributions. dictionary_vd: (V, d). steps: k, how many atoms at most.
        normalise: compare with rows of length one, so that long ones have no advantage. centre: take the mean over
            samples off first (n of 2 or more).

    A matrix of zeros has no atoms and a share of 0.

    Raises:
        SpecError: shapes that do not fit, values that are not finite, steps below 1, or one sample to centre.

    Example:
        >>> import numpy as np
        >>> found = matching_pursuit(np.array([[0.0, 3.0, 0.1]]), np.eye(3), steps=1)
        >>> found.atoms.tolist(), round(found.share, 3)
        ([1], 0.999)
    """
    written, words = _checked(written_nd, dictionary_vd, steps)
    if centre:
        if len(written) < 2:
            raise SpecError("centring one sample leaves nothing of it: give two or more, or centre=False")
        written = written - written.mean(axis=0)
    total = float(np.square(written).sum())
    lengths = np.linalg.norm(words, axis=1)
    scale = (
        np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0) if normalise else np.ones_like(lengths)
    )
    atoms: list[int] = []
    shares: list[float] = []
    weights: NDArray[Any] = np.zeros((len(written), 0))
    rest = written
    while len(atoms) < min(steps, len(words)) and float(np.square(rest).sum()) > 1e-12 * total:
        fits = _fit(rest, words) * scale
        fits[atoms] = -1.0
        best = int(fits.argmax())
        if fits[best] <= 1e-9 * total**0.5:
            break
        atoms.append(best)
        weights = np.asarray(np.linalg.lstsq(words[atoms].T, written.T, rcond=None)[0].T, dtype=np.float64)
        rest = written - weights @ words[atoms]
        shares.append(1 - float(np.square(rest).sum()) / total)
    return Pursued(np.array(atoms, dtype=np.int64), np.array(shares), weights)


def _checked(written: Any, words: Any, steps: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(written, dtype=np.float64), np.asarray(words, dtype=np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or not one.size or not other.size:
        raise SpecError(f"expected contributions (n, d) and a dictionary (V, d), got {one.shape} and {other.shape}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise SpecError("contributions and dictionary must be finite")
    if not is_whole(steps) or steps < 1:
        raise SpecError(f"steps must be a whole number, at least 1, got {steps!r}")
    return one, other


def _fit(rest: NDArray[np.float64], words: NDArray[np.float64]) -> NDArray[np.float64]:
    # (V,) sums over samples of |r D_j|, some thousand words at a time.
    parts = [np.abs(rest @ words[at : at + _CHUNK].T).sum(axis=0) for at in range(0, len(words), _CHUNK)]
    return np.concatenate(parts)


@dataclass(frozen=True)
class PursuedHead:
    """One head: its layer and number, the words found, in order, and the explained share after each."""

    layer: int
    head: int
    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    shares: tuple[float, ...]

    @property
    def share(self) -> float:
        """Explained share of the norm, 0 to 1."""
        return self.shares[-1] if self.shares else 0.0


@dataclass(frozen=True)
class HeadPursuit(Told):
    """The words of every head that was looked at.

    Attributes:
        heads: by layer and number. samples: how many. restricted: the concept words; None for the whole vocabulary.
        normalise, centre: as in :func:`matching_pursuit`.
    """

    heads: tuple[PursuedHead, ...]
    samples: int
    restricted: tuple[str, ...] | None = None
    normalise: bool = True
    centre: bool = False

    def best(self, count: int = 8) -> tuple[PursuedHead, ...]:
        """The heads of which the words explain most, best first; equal ones by layer and number.

        Raises:
            SpecError: a count below 1 or over the number of heads.
        """
        if not is_whole(count) or not 1 <= count <= len(self.heads):
            raise SpecError(f"count must be 1 to {len(self.heads)}, the number of heads, got {count!r}")
        return tuple(sorted(self.heads, key=lambda one: (-one.share, one.layer, one.head))[:count])

    def pairs(self, count: int = 8) -> tuple[tuple[int, int], ...]:
        """(layer, head) of :meth:`best`, as :class:`vlmattn.steering.ScaleHeads` takes them."""
        return tuple((one.layer, one.head) for one in self.best(count))

    def table(self, count: int = 10) -> str:
        """A line per head, best first."""
        best = self.best(min(count, len(self.heads)))
        said = [" ".join(word.strip() or repr(word) for word in one.words) for one in best]
        lines = [f"{h.layer:5d} {h.head:5d} {h.share:10.3f}  {text}" for h, text in zip(best, said, strict=True)]
        return "\n".join(["layer  head  explained  words", *lines])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "samples": self.samples,
            "restricted": None if self.restricted is None else list(self.restricted),
            "normalise": self.normalise,
            "centre": self.centre,
            "heads": [
                {"layer": h.layer, "head": h.head, "words": list(h.words), "token_ids": list(h.token_ids),
                 "shares": list(h.shares)}
                for h in self.heads
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        return self.table()


def one_token_ids(words: Sequence[str | int], tokenise: Any, known: int) -> tuple[int, ...]:
    """The token of each concept word: with a space before it or, failing that, without.

    Args:
        words: words, or token ids as they are. tokenise: text to a list of ids. known: how many ids there are.

    Raises:
        SpecError: no words, a word of several tokens, an id that does not exist, or one token twice.
    """
    if isinstance(words, str) or not len(words):
        raise SpecError(f"concept words must be a list of words or token ids, got {words!r}")
    ids = tuple(_one_token(word, tokenise, known) for word in words)
    twice = [word for word, token in zip(words, ids, strict=True) if ids.count(token) > 1]
    if twice:
        raise SpecError(f"concept words {twice} are one and the same token: leave all but one out")
    return ids


def _one_token(word: Any, tokenise: Any, known: int) -> int:
    if is_whole(word):
        if not 0 <= word < known:
            raise SpecError(f"token id {word} does not exist; there are {known}")
        return int(word)
    if not isinstance(word, str) or not word.strip():
        raise SpecError(f"a concept word must be a word or a token id, got {word!r}")
    tried = [list(tokenise(f" {word.strip()}")), list(tokenise(word.strip()))]
    for ids in tried:
        if len(ids) == 1:
            return int(ids[0])
    raise SpecError(
        f"{word!r} is {len(tried[0])} tokens of this vocabulary, and a dictionary holds single ones: give the token id "
        "of the piece that stands for it, or another word"
    )
