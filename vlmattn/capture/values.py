"""Value norms of image tokens.

``value``: ||v_j||. ``projected``: ||W_O^h v_j||, the norm of what head *h* writes into the residual stream for token
*j* before weighting (Kobayashi et al., EMNLP 2020, f(x) = (x W_V + b_V) W_O). It is computed as v G vᵀ with the Gram
matrix G = W_O^hᵀ W_O^h, so no N × d product is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vlmattn.capture.cost import home_of
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.sites import AttentionSite
from vlmattn.capture.step import key_parts
from vlmattn.core.errors import CaptureError, UnsupportedAttention

if TYPE_CHECKING:
    from vlmattn.capture.step import KeptColumns, Step


class ValueNorms:
    """Collects (B, L, H, K) value norms.

    Args:
        kind: None, ``value`` or ``projected``. columns: which key columns. layers, batch: extents.
        offload: hold them on the CPU.
    """

    def __init__(
        self, kind: str | None, columns: KeptColumns, layers: int, batch: int, *, offload: bool = False
    ) -> None:
        self.kind, self.columns, self.layers, self.batch, self.offload = kind, columns, layers, batch, offload
        self._norms: torch.Tensor | None = None

    def add(self, slot: int, site: AttentionSite, call: AttentionCall, step: Step, first_column: int) -> None:
        """Add norms of the tokens that entered in this pass; in the first pass of a run also of those cached before.

        Raises:
            CaptureError: a run begins behind image tokens that the layer's window has dropped.
        """
        if step.begins and first_column - step.memory > self.columns.first:
            raise CaptureError(
                f"image tokens before position {first_column} are in the cache already, but layer {site.layer_idx} has "
                "dropped their values: run the prompt inside the capture, or leave value_norms out"
            )
        value = call.value.float()
        heads = call.query.shape[1]
        norms = self._plain(value, heads) if self.kind == "value" else self._projected(value, heads, site)
        parts = key_parts(norms[:, :, None, :], site, first_column, step.memory)
        picked = torch.stack([self.columns.pick(part, at)[:, :, 0] for part, at in parts]).sum(0)
        if self._norms is None:
            home = torch.device("cpu") if self.offload else picked.device
            self._norms = torch.zeros((self.batch, self.layers, heads, self.columns.width), device=home)
        held = self._norms[:, slot]
        entered = self.columns.between(0 if step.begins else step.start, step.start + step.count, held.device)
        self._norms[:, slot] = torch.where(entered[:, None, :], picked.to(held.device), held)

    def of(self, item: int, width: int) -> torch.Tensor | None:
        """(L, H, width) norms of one sequence, or None."""
        return None if self._norms is None else self._norms[item, :, :, :width]

    @staticmethod
    def _plain(value: torch.Tensor, heads: int) -> torch.Tensor:
        return value.norm(dim=-1).repeat_interleave(heads // value.shape[1], dim=1)

    @staticmethod
    def _projected(value: torch.Tensor, heads: int, site: AttentionSite) -> torch.Tensor:
        dim = value.shape[-1]
        out = head_projection(site, heads, dim, instead="use value_norms='value'")
        gram = torch.einsum("ohd,ohe->hde", out, out).to(value.device)
        groups = heads // value.shape[1]
        per_head = value.repeat_interleave(groups, dim=1)
        squared = (torch.matmul(per_head, gram) * per_head).sum(-1)
        return squared.clamp_min(0).sqrt()


def head_projection(
    site: AttentionSite, heads: int, dim: int, *, instead: str = "leave this layer out"
) -> torch.Tensor:
    """(D, H, D_v) float32: W_O by head, of plain, quantised, off-loaded and PEFT layers.

    Args:
        heads: H. dim: D_v. instead: what to do where it cannot be had, for the error.

    Raises:
        UnsupportedAttention: it is not found, or no plain float matrix can be made of it.
    """
    weight = _weight(site.output_projection, heads * dim)
    plain = isinstance(weight, torch.Tensor) and weight.is_floating_point() and not weight.is_meta
    if not plain or weight.shape[1:] != (heads * dim,):
        raise UnsupportedAttention(
            f"the output projection of {site.name} is not a plain float matrix at hand; {instead}"
        )
    return weight.detach().float().view(weight.shape[0], heads, dim)


def _weight(projection: Any, width: int) -> Any:
    """The weight (D, width) that a linear layer acts with; None if there is none.

    Fetched if accelerate keeps it elsewhere between calls, made float if its tensor knows how (torchao), probed where
    it is packed (bitsandbytes, dynamic int8) or where PEFT adds to it.
    """
    if hasattr(projection, "base_layer"):
        return _probed(projection, width)
    weight = getattr(projection, "weight", None)
    if weight is None:
        return None
    if not isinstance(weight, torch.Tensor):
        return _probed(projection, width)
    if weight.is_meta:
        from accelerate.utils import align_module_device

        with align_module_device(projection):
            weight = projection.weight.detach()
    own = getattr(type(weight), "dequantize", torch.Tensor.dequantize)
    if own is not torch.Tensor.dequantize:
        return weight.detach().dequantize()
    return weight if weight.is_floating_point() else _probed(projection, width)


@torch.no_grad()
def _probed(projection: Any, width: int) -> Any:
    # What comes out for each unit vector, less what comes out for none: merged or not, of one adapter or several. A
    # layer that rounds what comes in has values for 0 and 1, so its rounding does not show.
    weight = projection.weight
    known = isinstance(weight, torch.Tensor) and weight.is_floating_point()
    units = torch.eye(width, device=home_of(projection), dtype=weight.dtype if known else torch.float32)
    return (projection(units) - projection(torch.zeros_like(units[:1]))).T
