"""The sinks of one prompt: which tokens, in which layers, by which rule, and what they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError
from vlmattn.core.layout import Box, TokenKind, TokenLayout
from vlmattn.core.provenance import Provenance, ranges
from vlmattn.display import Tabular, Told
from vlmattn.grid import PatchMap
from vlmattn.sinks.coordinates import SinkCoordinates

Rule = Literal["massive", "received"]
_VISUAL = (TokenKind.IMAGE, TokenKind.LATENT)


@dataclass(frozen=True)
class SinkToken:
    """A token that is a sink in some layer.

    Attributes:
        position: in the sequence. kind: ``visual`` or ``text``. first: whether it is the first token of the decoder.
        text: what it says; empty for patches and tokens without text. layers: where it is a sink.
        score: the largest of the rule's score there (phi, or received attention).
        share: attention it takes from the kept rows in these layers, mean over rows, heads and those of the layers
            that have it among their keys; NaN if its column was not kept.
        image, tile, row, col, box_xyxy: of a patch, in original pixels; None for others.
    """

    position: int
    kind: Literal["visual", "text"]
    first: bool
    text: str
    layers: tuple[int, ...]
    score: float
    share: float
    image: int | None = None
    tile: int | None = None
    row: int | None = None
    col: int | None = None
    box_xyxy: Box | None = None


@dataclass(frozen=True, eq=False)
class Sinks(Told, Tabular):
    """Sinks among the N prompt tokens, at L layers.

    Attributes:
        layout: the prompt. layers: layer numbers. rule: ``massive`` or ``received``.
        is_sink_ln: (L, N). score_ln: (L, N) phi, or received attention; NaN where a token has none. cut_l: (L,) the
            score that a sink exceeds.
        attention_ln: (L, N) attention that each token gets from the kept rows that see it, mean over rows and heads;
            NaN where it was not kept.
        visual_share_lq, text_share_lq: (L, Q) share of each kept row that visual and text sinks take, mean over heads;
            NaN where their columns were not kept. image_share_lq: that of all pictures.
        positions: (Q,) of these rows.
        coordinates: of the ``massive`` rule. notes: what else is to be known. provenance: how the rows were made.
    """

    layout: TokenLayout
    layers: tuple[int, ...]
    rule: Rule
    is_sink_ln: NDArray[np.bool_]
    score_ln: NDArray[np.float32]
    cut_l: NDArray[np.float32]
    attention_ln: NDArray[np.float32]
    visual_share_lq: NDArray[np.float32]
    text_share_lq: NDArray[np.float32]
    image_share_lq: NDArray[np.float32]
    positions: NDArray[np.int64]
    coordinates: SinkCoordinates | None = None
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        shape = (len(self.layers), self.is_sink_ln.shape[-1])
        for name in ("is_sink_ln", "score_ln", "attention_ln"):
            if getattr(self, name).shape != shape:
                raise MapError(f"{name} must have shape (L, N) = {shape}, got {getattr(self, name).shape}")
        if self.cut_l.shape != shape[:1]:
            raise MapError(f"cut_l must have shape (L,) = {shape[:1]}, got {self.cut_l.shape}")

    @property
    def found(self) -> bool:
        """Whether there is any sink."""
        return bool(self.is_sink_ln.any())

    @cached_property
    def tokens(self) -> tuple[SinkToken, ...]:
        """All tokens that are sinks in any layer, in sequence order."""
        return tuple(self._token(int(p)) for p in np.flatnonzero(self.is_sink_ln.any(axis=0)))

    @property
    def visual(self) -> tuple[SinkToken, ...]:
        """Those among the image tokens."""
        return tuple(t for t in self.tokens if t.kind == "visual")

    @property
    def text(self) -> tuple[SinkToken, ...]:
        """All others, the first token among them."""
        return tuple(t for t in self.tokens if t.kind == "text")

    def mask(self, layer: int, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the tokens at ``positions`` are sinks in ``layer``; False for layers that were not looked at, and for
        tokens of the answer."""
        out = np.zeros(len(positions), dtype=np.bool_)
        if layer in self.layers:
            line = self.is_sink_ln[self.layers.index(layer)]
            inside = positions < len(line)
            out[inside] = line[positions[inside]]
        return out

    def patch_map(self, image: int = 0) -> PatchMap:
        """The score of every patch of a picture, its largest over the layers: what the picture of sinks shows."""
        at = self.layout.image_positions
        inside = at < self.score_ln.shape[1]
        score = np.zeros(len(at))
        score[inside] = np.nan_to_num(self.score_ln[:, at[inside]]).max(axis=0)
        label = "phi of sinks" if self.rule == "massive" else "received attention"
        provenance = self.provenance.then(
            self.said(), layers=f"layers {ranges(self.layers)}", method=f"sink_{self.rule}"
        )
        return PatchMap.from_vector(score, self.layout, picture=image, provenance=provenance, label=label)

    def said(self) -> str:
        """The rule in one phrase, for provenance."""
        if self.rule == "received":
            return f"sinks: received attention above {self.cut_l.min():.3g} (ACT rule, alpha / N)"
        where = self.coordinates.said() if self.coordinates is not None else ""
        return f"sinks: phi above {float(self.cut_l.min()):.3g} on {where}" if self.found or not _none(self) else (
            f"no sinks: {where}"
        )  # fmt: skip

    def _token(self, position: int) -> SinkToken:
        lines = np.flatnonzero(self.is_sink_ln[:, position])
        layout, visual = self.layout, self.layout.kinds[position] in _VISUAL
        place = {n: int(getattr(layout, n)[position]) for n in ("image", "tile", "row", "col")} if visual else {}
        if visual and place["tile"] >= 0:
            tile = layout.images[place["image"]].tiles[place["tile"]]
            box: Box | None = tile.cell_box(place["row"], place["col"])
        else:
            place, box = {k: v for k, v in place.items() if k == "image"}, None
        return SinkToken(
            position=position,
            kind="visual" if visual else "text",
            first=position == layout.memory,
            text=_text(layout, position),
            layers=tuple(self.layers[i] for i in lines),
            score=float(self.score_ln[lines, position].max()),
            share=_known_mean(self.attention_ln[lines, position]),
            box_xyxy=box,
            **place,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "rule": self.rule,
            "said": self.said(),
            "coordinates": None if self.coordinates is None else self.coordinates.to_dict(),
            "cut": {str(layer): float(cut) for layer, cut in zip(self.layers, self.cut_l, strict=True)},
            "tokens": self.to_dicts(),
            "shares": [
                {"layer": layer, "visual_sinks": _mean(visual), "text_sinks": _mean(text), "pictures": _mean(image)}
                for layer, visual, text, image in zip(
                    self.layers, self.visual_share_lq, self.text_share_lq, self.image_share_lq, strict=True
                )
            ],
            "notes": list(self.notes),
            "provenance": self.provenance.to_dict(),
        }

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict per token that is a sink."""
        return [{k: _plain(v) for k, v in vars(t).items()} for t in self.tokens]

    def _repr_html_(self) -> str:
        from vlmattn.sinks.shown import sinks_html

        return sinks_html(self)

    def __str__(self) -> str:
        lines = [self.said(), *(_line(t) for t in self.tokens)] if self.found else [self.said(), "no sinks found"]
        if self.found:
            taken = [
                f"layer {layer}: visual sinks take {_percent(visual)} of a row, text sinks {_percent(text)}, all "
                f"patches {_percent(image)}"
                for layer, visual, text, image in zip(
                    self.layers, self.visual_share_lq, self.text_share_lq, self.image_share_lq, strict=True
                )
            ]
            lines += taken
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return f"<Sinks {len(self.visual)} visual, {len(self.text)} text, rule {self.rule!r}>"


def _none(sinks: Sinks) -> bool:
    return sinks.coordinates is not None and not sinks.coordinates.found


def _text(layout: TokenLayout, position: int) -> str:
    start, end = (int(c) for c in layout.char_span[position])
    return layout.text[start:end] if start >= 0 else ""


def _line(token: SinkToken) -> str:
    if token.kind == "visual":
        where = "" if token.row is None else f" tile {token.tile} row {token.row} column {token.col}"
        what = f"patch{where} of picture {token.image}"
    else:
        what = f"token {token.text!r}" + (" (the first)" if token.first else "")
    share = "" if np.isnan(token.share) else f", takes {token.share:.1%} of a row"
    return f"  {what}, position {token.position}: layers {ranges(token.layers)}, score {token.score:.3g}{share}"


def _known_mean(values: NDArray[np.float32]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _mean(values: NDArray[np.float32]) -> float | None:
    return float(values.mean()) if len(values) and np.isfinite(values).all() else None


def _percent(values: NDArray[np.float32]) -> str:
    mean = _mean(values)
    return "an unknown share" if mean is None else f"{mean:.1%}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
