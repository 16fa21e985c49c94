"""How one word of an answer is grounded."""

from __future__ import annotations

from dataclasses import dataclass


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
