"""How attention moves over a long answer: distances, influence on what follows, and looks back at the picture.

Rows are query rows of the T answer tokens (the row at t itself), A[t, s] is attention of token t to s <= t, both
counted in tokens of the whole sequence.

After "Attention Illuminates LLM Reasoning: The Preplan-and-Anchor Rhythm", 2025, arXiv 2510.13554:

    WAAD_t = sum_s A[t, s] min(t - s, W)             windowed average attention distance, mean over local heads
    FAI_s  = mean over t in (s + near .. s + far, at most T - 1) of A[t, s]      future attention influence of an answer
                                                     token s, mean over global heads; NaN where no such t is

A head's span is the mean over t of sum_s A[t, s] (t - s), without the window; local heads are the share of heads with
the shortest span, global ones those with the longest. After "Lookback Lens", EMNLP 2024, arXiv 2407.07071:

    ratio_t = mean_context A[t, .] / (mean_context A[t, .] + mean_new A[t, .])

with means over tokens, of the picture (or the prompt without its first token) and of the answer up to t, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.core.whole import is_whole
from vlmattn.display import Told

HeadClass = Literal["all", "local", "global"]


@dataclass(frozen=True)
class Trend(Told):
    """A line through values over positions: slope per token with a confidence interval, and value at the first token.

    The interval is Student's t of least squares, which takes residuals for independent; those of neighbouring tokens
    seldom are, so it is rather too narrow.
    """

    slope: float
    low: float
    high: float
    start: float

    def __str__(self) -> str:
        return f"{self.slope:+.3g} per token ({self.low:+.3g} to {self.high:+.3g})"


def trend(values_t: Sequence[float] | NDArray[Any], *, level: float = 0.95) -> Trend:
    """The line through finite values, at least three of them.

    Raises:
        SpecError: a level that is no share. MapError: fewer than three finite values.

    Example:
        >>> trend([0.0, 1.0, 2.0, 3.0]).slope
        1.0
    """
    from scipy import stats

    if not 0 < level < 1:
        raise SpecError(f"level must be a share between 0 and 1, got {level!r}")
    values = np.asarray(values_t, dtype=np.float64)
    at = np.flatnonzero(np.isfinite(values))
    if len(at) < 3:
        raise MapError(f"a trend takes three tokens or more, the answer has {len(at)}")
    line = stats.linregress(at.astype(np.float64), values[at])
    wide = float(stats.t.ppf((1 + level) / 2, len(at) - 2)) * float(line.stderr)
    return Trend(float(line.slope), float(line.slope) - wide, float(line.slope) + wide, float(line.intercept))


@dataclass(frozen=True)
class Reasoning(Told):
    """What attention did over an answer. Axes: l layers, h heads, t answer tokens, s segments, n prompt tokens.

    Attributes:
        layout: prompt and answer. layers: their numbers. window: W. near, far: of FAI.
        distance_lht: (L, H, T) windowed distance, tokens. span_lh: (L, H) mean distance, tokens.
        influence_lht: (L, H, T) attention each answer token gets from those ``near`` to ``far`` later; NaN for the last
            ``near``. segments, mass_lhts: (L, H, T, S) attention on each segment; NaN in lines without a head.
        received_lhn: (L, H, N) attention each prompt token gets, mean over answer tokens.
    """

    layout: TokenLayout
    layers: tuple[int, ...]
    window: int
    near: int
    far: int
    distance_lht: NDArray[np.float64]
    span_lh: NDArray[np.float64]
    influence_lht: NDArray[np.float64]
    segments: tuple[str, ...]
    mass_lhts: NDArray[np.float64]
    received_lhn: NDArray[np.float64]

    @property
    def tokens(self) -> int:
        """T, tokens of the answer."""
        return len(self.layout) - self.layout.answer_start

    def head_class(self, which: HeadClass, share: float = 0.3) -> NDArray[np.bool_]:
        """(L, H) which heads are ``local`` (shortest spans) or ``global`` (longest), at least one; ``all`` of them.

        Raises:
            SpecError: no such class, or a share outside 0 to 1.
        """
        real = np.isfinite(self.span_lh)
        if which not in ("all", "local", "global") or not 0 < share <= 1:
            raise SpecError(f"heads are 'all', 'local' or 'global' with a share up to 1; got {which!r}, {share!r}")
        if which == "all":
            return np.asarray(real)
        spans = np.where(real, self.span_lh if which == "local" else -self.span_lh, np.inf).reshape(-1)
        chosen = np.argsort(spans, kind="stable")[: max(1, round(share * int(real.sum())))]
        out = np.zeros(spans.shape, dtype=np.bool_)
        out[chosen] = True
        return out.reshape(real.shape)

    def waad(self, heads: HeadClass = "local", share: float = 0.3) -> NDArray[np.float64]:
        """(T,) windowed average attention distance, 0 to W tokens."""
        return np.asarray(self.distance_lht[self.head_class(heads, share)].mean(axis=0))

    def fai(self, heads: HeadClass = "global", share: float = 0.3) -> NDArray[np.float64]:
        """(T,) future attention influence, 0 to 1; NaN for tokens with no later ones in the window."""
        return np.asarray(self.influence_lht[self.head_class(heads, share)].mean(axis=0))

    def image_share(self, heads: HeadClass = "all", share: float = 0.3) -> NDArray[np.float64]:
        """(T,) attention on all pictures, 0 to 1, per answer token.

        Raises:
            MapError: no picture among the tokens that these layers look at.
        """
        self._check_picture()
        slots = [i for i, name in enumerate(self.segments) if name.startswith("image:")]
        return np.asarray(self.mass_lhts[..., slots].sum(-1)[self.head_class(heads, share)].mean(axis=0))

    def image_trend(self, heads: HeadClass = "all", *, level: float = 0.95) -> Trend:
        """How the share of the picture changes over the answer.

        Raises:
            MapError: no picture, or fewer than three answer tokens.
        """
        return trend(self.image_share(heads), level=level)

    def lookback(self, context: Literal["image", "prompt"] = "image") -> NDArray[np.float64]:
        """(L, H, T) lookback ratio, 0 (only the answer) to 1 (only the context).

        Args:
            context: the pictures' tokens, or the prompt without its first token (``bos``).

        Raises:
            SpecError: no such context. MapError: no picture.
        """
        if context not in ("image", "prompt"):
            raise SpecError(f"context must be 'image' or 'prompt', got {context!r}")
        prompt = self._own_prompt()
        ids, names = self.layout.segment_ids(), self.segments
        if context == "image":
            self._check_picture()
            chosen = [i for i, name in enumerate(names) if name.startswith("image:")]
        else:
            chosen = [i for i, name in enumerate(names) if name not in ("bos", "answer")]
        count = int(np.isin(ids[prompt], chosen).sum())
        if not count:
            raise MapError("the prompt has no token of this context")
        old = self.mass_lhts[..., chosen].sum(-1) / count
        new = self.mass_lhts[..., names.index("answer")] / np.arange(1, self.tokens + 1)
        total = old + new
        return np.divide(old, total, out=np.full_like(total, np.nan), where=total > 0)

    def position_profile(
        self, along: Literal["images", "rows", "cols", "segments"] = "images", heads: HeadClass = "all"
    ) -> dict[str, float]:
        """Attention that an answer token gives, on average, to one token of each place ("attention basin"): of each
        picture of a list, each row or column of the patch grids (tiles with one number of rows or columns are taken
        together by place; others by their number), or each segment.

        Raises:
            SpecError: no such direction. MapError: no picture.
        """
        per_token = self.received_lhn[self.head_class(heads)].mean(axis=0)
        layout, prompt = self.layout, self._own_prompt()
        kinds = layout.kinds[prompt]
        if along == "segments":
            ids = layout.segment_ids()[prompt]
            return _means(per_token, ids, {i: name for i, name in enumerate(self.segments) if name != "answer"})
        axes = {"images": layout.image, "rows": layout.row, "cols": layout.col}
        if along not in axes:
            raise SpecError(f"a profile is along images, rows, cols or segments; got {along!r}")
        self._check_picture()
        where = np.where(kinds == TokenKind.IMAGE, axes[along][prompt], -1)
        if not (where >= 0).any():
            raise MapError("the image tokens have no place on a grid, so there is no profile of places")
        return _means(per_token, where, {int(n): str(n) for n in np.unique(where[where >= 0])})

    def _own_prompt(self) -> slice:
        return slice(self.layout.memory, self.layout.answer_start)

    def _check_picture(self) -> None:
        kinds = self.layout.kinds[self._own_prompt()]
        if not np.isin(kinds, (TokenKind.IMAGE, TokenKind.LATENT)).any():
            beside = "pictures are keys beside the tokens, and" if self.layout.memory else "the prompt has no picture:"
            raise MapError(f"{beside} no row of these layers looks at one")

    def to_dict(self) -> dict[str, Any]:
        """Curves over the answer with their tokens' text, and the head classes, as plain values."""
        curves = {"waad": self.waad(), "fai": self.fai()}
        told: dict[str, Any] = {
            "tokens": [
                self.layout.text[a:b] if a >= 0 else "" for a, b in self.layout.char_span[self.layout.answer_start :]
            ],
            "window": self.window,
            "near": self.near,
            "far": self.far,
            "layers": list(self.layers),
            "span_lh": _plain(self.span_lh),
        }
        try:
            curves["image_share"] = self.image_share()
        except MapError:
            told["image_share"] = None
        return told | {name: _plain(values) for name, values in curves.items()}

    def table(self) -> str:
        """A line per answer token."""
        told = self.to_dict()
        share = told["image_share"] or [None] * self.tokens
        lines = ["token            WAAD    FAI  picture"]
        for text, d, f, p in zip(told["tokens"], told["waad"], told["fai"], share, strict=True):
            cells = ["      -" if v is None else f"{v:7.3f}" for v in (d, f, p)]
            lines.append(f"{text.strip()[:12]!r:14}" + "".join(cells))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def _means(values: NDArray[Any], ids: NDArray[Any], names: dict[int, str]) -> dict[str, float]:
    return {name: float(np.nanmean(values[ids == i])) for i, name in names.items() if (ids == i).any()}


def _plain(values: NDArray[Any]) -> Any:
    return [_plain(v) if np.ndim(v) else (float(v) if np.isfinite(v) else None) for v in values]


def check_windows(window: Any, near: Any, far: Any, tokens: int) -> None:
    """Refuse windows that say nothing.

    Raises:
        SpecError: a window below 1, ``near`` below 1, ``far`` before ``near``. MapError: an answer of one token, or no
            longer than ``near``.
    """
    if not all(is_whole(v) and v >= 1 for v in (window, near, far)) or far < near:
        raise SpecError(f"window and near must be whole numbers from 1, far at least near; got {window}, {near}, {far}")
    if tokens < 2:
        raise MapError(f"an answer of {tokens} token has no course: distances and influence take two or more")
    if tokens <= near:
        raise MapError(
            f"no token of an answer of {tokens} has one {near} or more after it: choose near= below {tokens}, such as 1"
        )
