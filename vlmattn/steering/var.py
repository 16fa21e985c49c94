"""VAR: gives the attention that sinks draw back to the picture, in heads that look at the picture.

Kang, Kim, Kim & Hwang, "See What You Are Told: Visual Attention Sink in Large Multimodal Models", ICLR 2025. With A a
row after softmax, S all sink columns (text and visual, found once, in the prompt), V the image columns:

    selected   iff  sum_V A >= least_mass  and  (non-sink share of sum_V A) >= rho
    A'[j]      =    p A[j]                                                         j in S
    A'[j]      =    A[j] + (1 - p) (sum_S A) A[j] / (sum_{V \\ S} A)               j in V without S
    A'[j]      =    A[j]                                                           other columns

so that the sum of a row stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar, Literal

import torch

from vlmattn.capture import Seen, Steering, Where, model_sites
from vlmattn.capture.choices import are_whole, is_whole
from vlmattn.capture.steering import EditRows
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.sinks import TAU_RELATIVE, SinkCoordinates
from vlmattn.sinks.massive import EPSILON, threshold

_PAPERS_FIRST_LAYER = 2
_BESIDE = (
    "VAR needs image tokens with a residual stream of their own; this model sees pictures by keys beside its decoder's "
    "tokens"
)

PRESETS: dict[str, dict[str, Any]] = {
    "general": {"rho": 0.8},
    "hallucination": {"rho": 0.5},
    "vision_centric": {"rho": 0.9},
    "released": {"rho_code": 0.5, "epsilon": 1e-6, "except_last_layer": False},
}
"""Settings by task, as noted of the paper, and those of the released code, which lets its last layer be changed."""


@dataclass(frozen=True, eq=False)
class VAR(Steering):
    """Redistribution of visual attention, Kang et al., ICLR 2025.

    Attributes:
        p: share of their attention that sinks keep, 0 to 1; 1 changes nothing, bit for bit.
        rho: the paper's direction: least share of the picture's attention on patches that are no sinks.
        rho_code: the released code's: largest share of it on sinks; instead of ``rho``, which is 1 less it.
        least_mass: least attention on pictures.
        coordinates: sink coordinates of the model, or numbers; None for those that the model is known to have
            (:meth:`vlmattn.Vlm.known_sinks`).
        tau, tau_relative: threshold on phi, absolute or over the root of the width; None for that of ``coordinates``.
        except_last_layer: leave the model's last layer alone, as the paper says.
        first_layer: first layer to act in; None for that of ``coordinates``, the paper's 2 for plain numbers.
        heads: ``centric`` as above; ``all`` redistributes in every head with a visual sink, whatever ``least_mass``:
            a control.
        epsilon: added to every patch in the denominator of the sink share; the released code has 1e-6.
        layers: numbers to act in, of those that remain; None for all.

    In the prompt, rows after the last image token are changed; then every row. Sinks are those of the prompt alone.
    Layers without a visual sink, and so models that are known to have no sinks, are left alone, bit for bit.

    Raises:
        SpecError: values out of range; on asking, a model whose pictures are no tokens of its decoder, coordinates that
            it does not have, or a threshold that phi cannot reach.

    Example:
        >>> VAR(p=0.6, coordinates=(1415, 2533)).describe()[:22]
        'VAR: sinks keep p=0.6 '
    """

    slot: ClassVar[str] = "rows"
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    rows: ClassVar[EditRows] = "after_image"  # type: ignore[misc]

    p: float = 0.6
    rho: float | None = None
    rho_code: float | None = None
    least_mass: float = 0.2
    coordinates: SinkCoordinates | Sequence[int] | None = None
    tau: float | None = None
    tau_relative: float | None = None
    except_last_layer: bool = True
    first_layer: int | None = None
    heads: Literal["centric", "all"] = "centric"
    epsilon: float = 0.0
    layers: tuple[int, ...] | None = None
    _masks: dict[int, tuple[int, torch.Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("p", "rho", "rho_code", "least_mass"):
            value = getattr(self, name)
            if not _is_from(value, 0, 1) and not (value is None and name.startswith("rho")):
                raise SpecError(f"{name} of VAR must be a share, 0 to 1; got {value!r}")
        self._check_coordinates()
        if self.rho is not None and self.rho_code is not None:
            raise SpecError("give rho (least share of no sinks) or rho_code (largest share of sinks), not both")
        if self.tau is not None and self.tau_relative is not None:
            raise SpecError("give tau or tau_relative, not both")
        if self.heads not in ("centric", "all"):
            raise SpecError(f"heads of VAR must be 'centric' or 'all', got {self.heads!r}")
        if self.heads == "all" and not (self.rho is None and self.rho_code is None):
            raise SpecError("heads='all' selects no heads, so rho and rho_code mean nothing: leave them out")
        if not _is_from(self.epsilon, 0, math.inf):
            raise SpecError(f"epsilon of VAR must be at least 0, got {self.epsilon!r}")

    def _check_coordinates(self) -> None:
        given = self.coordinates
        if not isinstance(given, (SinkCoordinates, type(None))):
            if not are_whole(given) or not len(given):
                raise SpecError(
                    f"coordinates of VAR must be SinkCoordinates, whole numbers, or None for those that the model is "
                    f"known to have; got {given!r}"
                )
            object.__setattr__(self, "coordinates", tuple(int(c) for c in given))
        if self.first_layer is not None and not (is_whole(self.first_layer) and self.first_layer >= 0):
            raise SpecError(f"first_layer of VAR must be a layer number, from 0, or None; got {self.first_layer!r}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> VAR:
        """The settings of :data:`PRESETS`, with changes.

        Raises:
            SpecError: lists those there are.
        """
        if name not in PRESETS:
            raise SpecError(f"preset {name!r} of VAR does not exist; there are {', '.join(PRESETS)}")
        return cls(**(PRESETS[name] | changes))

    # -- before anything runs ------------------------------------------------------------------------------------------

    def for_model(self, vlm: Any) -> VAR:
        """With the sink coordinates that ``vlm`` is known to have, unless it has some.

        Raises:
            SpecError: a model whose pictures are no tokens of its decoder; nothing is calibrated for it.
        """
        if self.coordinates is not None:
            return self
        if any(site.sees_memory for site in model_sites(vlm.model).attention):
            raise SpecError(_BESIDE)
        return replace(self, coordinates=vlm.known_sinks())

    def fresh(self) -> VAR:
        """A copy that has seen no prompt."""
        return replace(self)

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        if self.coordinates is None:
            raise SpecError("VAR needs the model's sink coordinates: VAR(coordinates=vlm.calibrate_sinks())")
        if any(layout.beside for layout in layouts):
            raise SpecError(_BESIDE)
        where = self._where(width)
        if width is not None and where.width != width:
            raise SpecError(f"sink coordinates of a width of {where.width} do not fit this model's, {width}")
        threshold(where, self.tau, self.tau_relative)

    def layers_among(self, present: Sequence[int]) -> frozenset[int]:
        """Without layers before the first with sinks, and without the last one unless it is to be changed too."""
        chosen = super().layers_among(present)
        last = {max(present)} if self.except_last_layer else set()
        left = frozenset(layer for layer in chosen if layer >= self._first() and layer not in last)
        if not left:
            raise SpecError(
                f"VAR has no layer to act in: sinks begin at layer {self._first()}, the last of {sorted(present)} is "
                f"{'left alone' if last else 'included'}, layers={self.layers}"
            )
        return left

    def _first(self) -> int:
        if self.first_layer is not None:
            return self.first_layer
        return self.coordinates.first_layer if isinstance(self.coordinates, SinkCoordinates) else _PAPERS_FIRST_LAYER

    def _where(self, width: int | None) -> SinkCoordinates:
        if isinstance(self.coordinates, SinkCoordinates):
            return self.coordinates
        chosen = tuple(self.coordinates or ())
        return SinkCoordinates(chosen, width or max(chosen, default=0) + 1, first_layer=self._first())

    # -- while it runs -------------------------------------------------------------------------------------------------

    def see_hidden(self, hidden_bqd: torch.Tensor, seen: Seen) -> None:
        """Find the sinks of the prompt at the input of a layer.

        Raises:
            CaptureError: a cache holds the beginning of the prompt already, so that its sinks cannot be seen.
        """
        if self.p == 1:
            return
        first = min(pad + layout.memory for pad, layout in zip(seen.pad_left, seen.layouts, strict=True))
        if seen.layer_idx not in self._masks and seen.start > first:
            raise CaptureError(
                f"VAR did not see the first {seen.start - first} tokens of the prompt, which a cache holds already: "
                "run the whole prompt inside the session"
            )
        where = self._where(int(hidden_bqd.shape[-1]))
        states = hidden_bqd.float()
        if where.found:
            largest = states[..., list(where.coordinates)].abs().amax(dim=-1)
            phi = largest / (states.square().mean(dim=-1) + EPSILON).sqrt()
            mask = phi > threshold(where, self.tau, self.tau_relative)
        else:
            mask = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
        mask &= (seen.kinds >= 0) & (seen.kinds != int(TokenKind.ANSWER))
        start, before = self._masks.get(seen.layer_idx, (seen.start, mask[:, :0]))
        self._masks[seen.layer_idx] = (start, torch.cat([before, mask.to(before.device)], dim=1))

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor | None:
        """See the module."""
        if self.p == 1:
            return None
        sink = self._sink_columns(where, probs_bhrk)
        picture = where.columns(TokenKind.IMAGE)
        if not bool((sink & picture).any()):
            return None
        rows, rest = probs_bhrk.double(), picture & ~sink
        left = (rows * rest).sum(dim=-1, keepdim=True)
        chosen = self._selected(rows, picture, sink & picture) & (left > 0)
        freed = (1 - self.p) * (rows * sink).sum(dim=-1, keepdim=True)
        given = rest * freed / left.clamp_min(torch.finfo(torch.float64).tiny)
        edited = rows * torch.where(sink, self.p, 1.0 + given)
        return torch.where(chosen, edited, rows).to(probs_bhrk.dtype)

    def _selected(self, rows: torch.Tensor, picture: torch.Tensor, sink: torch.Tensor) -> torch.Tensor:
        # (B, H, R, 1): rows of heads that look at the picture, in a layer with a visual sink.
        there = sink.any(dim=-1, keepdim=True)
        if self.heads == "all":
            return there.expand(*rows.shape[:3], 1)
        mass = (rows * picture).sum(dim=-1, keepdim=True)
        of = mass + self.epsilon * picture.sum(dim=-1, keepdim=True)
        taken = (rows * sink).sum(dim=-1, keepdim=True) / of.clamp_min(torch.finfo(torch.float64).tiny)
        enough = taken <= self.rho_code if self.rho_code is not None else 1 - taken >= self._rho
        return there & (mass >= self.least_mass) & enough

    @property
    def _rho(self) -> float:
        return 0.5 if self.rho is None else self.rho

    def _sink_columns(self, where: Where, like: torch.Tensor) -> torch.Tensor:
        # (B, 1, 1, K)
        if where.layer_idx not in self._masks:
            raise CaptureError(
                f"VAR did not see the prompt at layer {where.layer_idx}: run the whole prompt inside the session"
            )
        start, mask = self._masks[where.layer_idx]
        out = torch.zeros((like.shape[0], like.shape[3]), dtype=torch.bool, device=like.device)
        first = max(where.first_column, start)
        last = min(where.first_column + like.shape[3], start + mask.shape[1])
        if last > first:
            known = mask[:, first - start : last - start].to(like.device)
            out[:, first - where.first_column : last - where.first_column] = known
        return (out & (where.column_kinds >= 0))[:, None, None, :]

    def describe(self) -> str:
        """One phrase for provenance."""
        where, told = None, "sinks not yet known"
        if isinstance(self.coordinates, SinkCoordinates):
            where, told = self.coordinates, self.coordinates.said()
        elif self.coordinates is not None:
            told = f"coordinates {', '.join(str(c) for c in self.coordinates)}"
        heads = "all heads" if self.heads == "all" else (
            f"heads with at least {self.least_mass} on pictures, at most {self.rho_code} of it on sinks"
            if self.rho_code is not None
            else f"heads with at least {self.least_mass} on pictures, at least {self._rho} of it on no sinks"
        )  # fmt: skip
        cut = f"phi > {self.tau}" if self.tau is not None else (
            f"phi > {self._relative(where):.3g} of the root of the width"
        )  # fmt: skip
        last = "without the last layer" if self.except_last_layer else "with the last layer"
        return f"VAR: sinks keep p={self.p} of their attention, {heads}, {cut}, on {told}, {last}"

    def _relative(self, where: SinkCoordinates | None) -> float:
        if self.tau_relative is not None:
            return self.tau_relative
        return TAU_RELATIVE if where is None else where.tau_relative


def _is_from(value: object, low: float, high: float) -> bool:
    return isinstance(value, Real) and low <= float(value) <= high
