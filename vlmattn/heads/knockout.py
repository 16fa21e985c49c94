"""Attention knock-out as an experiment: which layers need to see what, for the answer to stay.

Geva et al., "Dissecting Recall of Factual Associations in Auto-Regressive Language Models", EMNLP 2023, arXiv
2304.14767; "What's in the Image? A Deep-Dive into the Vision of Vision Language Models", CVPR 2025, arXiv 2411.17491.
What is cut while the model runs is :class:`vlmattn.steering.KnockOut`; here are its blocks, the windows of layers, and
what comes out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.core.whole import is_whole
from vlmattn.display import Told

_KINDS = {
    "bos": TokenKind.BOS,
    "system": TokenKind.SYSTEM,
    "image": TokenKind.IMAGE,
    "separator": TokenKind.SEPARATOR,
    "question": TokenKind.QUESTION,
}
SOURCES = (*_KINDS, "image:N", "answer", "prompt")
"""What a block can hide: columns."""
TARGETS = (*_KINDS, "text", "last", "generated", "answer", "all")
"""What it can be hidden from: rows."""
DEFAULT_BLOCKS = ("image->question", "image->answer", "question->answer")


@dataclass(frozen=True)
class Block:
    """Columns that some rows cannot see.

    Attributes:
        source: columns: a segment of the prompt (``bos``, ``system``, ``image`` for all pictures, ``image:0`` for one,
            ``separator``, ``question``), ``answer`` (tokens written) or ``prompt`` (all of it). A picture is hidden
            with its tokens without a place, such as ends of rows and class tokens.
        target: rows: a segment by the same names; ``answer``: the rows that predict the answer, which are the last row
            of the prompt and those of the tokens written; ``generated``: the latter alone; ``last``: the former alone;
            ``text``: rows of the prompt after the last image token, without its last; ``all``.

    A row never loses sight of itself.
    """

    source: str
    target: str

    def __post_init__(self) -> None:
        if self.source not in SOURCES and not _picture_number(self.source):
            raise SpecError(f"source {self.source!r} of a block does not exist; there are {', '.join(SOURCES)}")
        if self.target not in TARGETS:
            raise SpecError(f"target {self.target!r} of a block does not exist; there are {', '.join(TARGETS)}")

    def check(self, layout: TokenLayout) -> None:
        """Raises SpecError for a prompt without what the block hides."""
        number = _picture_number(self.source)
        if number and int(number[1]) >= len(layout.images):
            raise SpecError(f"block {self} names picture {number[1]}; the prompt has {len(layout.images)}")
        if self.source.startswith("image") and not len(layout.image_positions):
            raise SpecError(f"block {self} hides a picture, and the prompt has none")

    def rows(self, layout: TokenLayout, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(R,) whether the block hides something from rows at these positions of a layout; -1 is no row."""
        real, last = positions >= 0, layout.answer_start - 1
        written = positions > last
        if self.target == "all":
            return real
        if self.target in ("last", "generated", "answer"):
            here = {"last": positions == last, "generated": written, "answer": written | (positions == last)}
            return here[self.target] & real
        if self.target == "text":
            return real & (positions >= layout.image_end) & (positions < last)
        kinds = layout.kinds[np.clip(positions, 0, len(layout) - 1)]
        pictures = (TokenKind.IMAGE, TokenKind.LATENT) if self.target == "image" else (_KINDS[self.target],)
        return real & ~written & np.isin(kinds, pictures)

    def columns(self, layout: TokenLayout, positions: NDArray[np.int64], kinds: NDArray[np.int8]) -> NDArray[np.bool_]:
        """(K,) whether the block hides columns at these positions (-1: none), of these kinds (-1: no token)."""
        if self.source == "answer":
            return kinds == TokenKind.ANSWER
        if self.source == "prompt":
            return (kinds >= 0) & (kinds != TokenKind.ANSWER)
        if not self.source.startswith("image"):
            return np.asarray(kinds == _KINDS[self.source])
        inside = (positions >= 0) & (positions < len(layout)) & (kinds >= 0)
        picture, number = layout.image[np.clip(positions, 0, len(layout) - 1)], _picture_number(self.source)
        return inside & (picture == int(number[1]) if number else picture >= 0)

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"


def _picture_number(source: str) -> re.Match[str] | None:
    return re.fullmatch(r"image:(\d+)", source)


def block_named(name: str | Block) -> Block:
    """The block ``source->target``.

    Raises:
        SpecError: another form, or segments that do not exist.

    Example:
        >>> block_named("image -> answer")
        Block(source='image', target='answer')
    """
    if isinstance(name, Block):
        return name
    parts = [part.strip() for part in name.split("->")] if isinstance(name, str) else []
    if len(parts) != 2:
        raise SpecError(f"a block is 'source->target', such as 'image->answer'; got {name!r}")
    return Block(*parts)


def layer_windows(layers: Sequence[int], width: int | None, step: int = 1) -> tuple[tuple[int, ...], ...]:
    """Windows of ``width`` layers with attention, every ``step`` of them; None for one window of all.

    Layers without attention are passed over: a window has ``width`` that have some.

    Raises:
        SpecError: a width or step below 1, or a window longer than there are layers.

    Example:
        >>> layer_windows((0, 1, 2, 3), width=2, step=2)
        ((0, 1), (2, 3))
    """
    if width is None:
        return (tuple(layers),)
    if not is_whole(width) or not is_whole(step) or width < 1 or step < 1:
        raise SpecError(f"width and step of a window must be whole numbers from 1, got {width!r} and {step!r}")
    if width > len(layers):
        raise SpecError(f"a window of {width} layers is longer than the {len(layers)} that have attention")
    return tuple(tuple(layers[at : at + width]) for at in range(0, len(layers) - width + 1, step))


@dataclass(frozen=True)
class KnockoutCost(Told):
    """What a sweep will take, known before: ``passes`` forward passes over prompt and answer."""

    samples: int
    blocks: int
    windows: int

    @property
    def passes(self) -> int:
        """One without knock-out and one per block and window, for each sample."""
        return self.samples * (1 + self.blocks * self.windows)

    def __str__(self) -> str:
        return (
            f"{self.passes} passes: {self.samples} samples x (1 + {self.blocks} blocks x {self.windows} windows); rows "
            "of the layers cut are computed as eager attention does"
        )


@dataclass(frozen=True)
class KnockoutSweep(Told):
    """What the answer lost, by block and window.

    Attributes:
        blocks: their names. windows: layer numbers of each. questions, answers: of the n samples.
        whole_logp_n: (n,) log-probability of the answer without knock-out, nats, summed over its tokens.
        logp_nbw: (n, B, W) the same with it.
        changed_nbw: (n, B, W) bool: greedy decoding would have written another token somewhere in the answer.
        first_nbw: the first token it would have written, as text.
    """

    blocks: tuple[str, ...]
    windows: tuple[tuple[int, ...], ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    whole_logp_n: NDArray[np.float64]
    logp_nbw: NDArray[np.float64]
    changed_nbw: NDArray[np.bool_]
    first_nbw: NDArray[Any]

    def __post_init__(self) -> None:
        want = (len(self.questions), len(self.blocks), len(self.windows))
        for name in ("logp_nbw", "changed_nbw", "first_nbw"):
            if getattr(self, name).shape != want:
                raise SpecError(f"{name} must have shape (n, B, W) = {want}, got {getattr(self, name).shape}")

    @property
    def log_change_bw(self) -> NDArray[np.float64]:
        """(B, W) change of the answer's log-probability, nats, mean over samples; below 0 where it needs what was
        cut."""
        return np.asarray((self.logp_nbw - self.whole_logp_n[:, None, None]).mean(axis=0))

    @property
    def probability_change_bw(self) -> NDArray[np.float64]:
        """(B, W) relative change of the answer's probability, (p' - p) / p, mean over samples: -1 where nothing is
        left (Geva et al., sec. 5)."""
        return np.asarray(np.expm1(self.logp_nbw - self.whole_logp_n[:, None, None]).mean(axis=0))

    @property
    def changed_bw(self) -> NDArray[np.float64]:
        """(B, W) share of samples whose greedy answer changes, 0 to 1."""
        return np.asarray(self.changed_nbw.mean(axis=0))

    def interval_bw(self, rng: np.random.Generator, *, draws: int = 1000, level: float = 0.95) -> NDArray[np.float64]:
        """(2, B, W) bootstrap interval of :attr:`log_change_bw` over samples.

        Raises:
            SpecError: fewer than two samples, draws below 1, or a level that is no share.
        """
        count = len(self.questions)
        if count < 2 or draws < 1 or not 0 < level < 1:
            raise SpecError(f"an interval takes two samples or more, draws and a level in (0, 1); got {count} samples")
        change = self.logp_nbw - self.whole_logp_n[:, None, None]
        means = np.stack([change[rng.integers(count, size=count)].mean(axis=0) for _ in range(draws)])
        return np.asarray(np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0))

    def window_names(self) -> tuple[str, ...]:
        """``3-5``, or ``3`` for one layer."""
        return tuple(str(w[0]) if len(w) == 1 else f"{w[0]}-{w[-1]}" for w in self.windows)

    def table(self) -> str:
        """Per window and block: change of log-probability, and share of changed answers."""
        wide = max(len(name) for name in (*self.blocks, "-0.00 (100%)"))
        lines = ["layers  " + "  ".join(name.rjust(wide) for name in self.blocks)]
        for w, name in enumerate(self.window_names()):
            cells = [f"{self.log_change_bw[b, w]:.2f} ({self.changed_bw[b, w]:.0%})" for b in range(len(self.blocks))]
            lines.append(name.ljust(6) + "  " + "  ".join(cell.rjust(wide) for cell in cells))
        return "\n".join(
            [*lines, f"change of log-probability in nats (answers changed), mean of {len(self.questions)}"]
        )

    def curve_svg(self) -> str:
        """A picture of :attr:`log_change_bw` over windows, one line per block, as SVG text."""
        from vlmattn.heads.curve import curve_svg

        series = {name: self.log_change_bw[b].tolist() for b, name in enumerate(self.blocks)}
        return curve_svg(series, self.window_names(), x_title="layers cut", y_title="change of log-probability, nats")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "blocks": list(self.blocks),
            "windows": [list(w) for w in self.windows],
            "questions": list(self.questions),
            "answers": list(self.answers),
            "whole_logp_n": self.whole_logp_n.tolist(),
            "logp_nbw": self.logp_nbw.tolist(),
            "changed_nbw": self.changed_nbw.tolist(),
            "first_nbw": self.first_nbw.tolist(),
        }

    def __str__(self) -> str:
        return self.table()
