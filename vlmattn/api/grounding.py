"""How one word of an answer is grounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


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
    """

    word: str
    image_share: float
    shares: dict[str, float]
    peak_xy: tuple[float, float] | None
    log_probability: float
    image_shares: tuple[float, ...] = ()
    peaks_xy: tuple[tuple[float, float] | None, ...] = ()
    frame_shares: tuple[tuple[float, ...], ...] = ()

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
        }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _listed(xy: tuple[float, float] | None) -> list[float] | None:
    return None if xy is None else list(xy)
