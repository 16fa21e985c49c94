"""VCD: contrasts the answer with one to the same picture under noise.

Leng et al., "Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding",
CVPR 2024, arXiv 2311.16922. With v the pixels as the model gets them (normalised), e Gaussian noise:

    v' = sqrt(abar_n) v + sqrt(1 - abar_n) e
    l' = (1 + alpha) l(v) - alpha l(v'),   for tokens with  p >= beta max p

and abar_n = prod_{i<=n} (1 - b_i), b = 1e-5 + (5e-3 - 1e-5) sigmoid(linspace(-6, 6, 1000)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from vlmattn.capture.choices import is_whole
from vlmattn.core.errors import SpecError
from vlmattn.core.layout import TokenLayout
from vlmattn.steering.contrast import LogitsMethod, Processor, Second, against, contrasted
from vlmattn.steering.method import check_pictures
from vlmattn.steering.prompts import pixel_inputs

STEPS = 1000


def signal_left(step: int) -> float:
    """How much of the picture's variance is left after ``step`` (from 0) of the diffusion: abar.

    Example:
        >>> round(signal_left(0), 4), round(signal_left(999), 2)
        (1.0, 0.08)
    """
    line = np.linspace(-6, 6, STEPS)
    rates = 1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-line))
    return float(np.prod(1 - rates[: step + 1]))


def noisy(pixels: torch.Tensor, step: int, seed: int) -> torch.Tensor:
    """Pixels after ``step`` of the diffusion. Of tensors with four or more axes, every entry of the first gets the same
    noise, so that a picture's does not depend on the batch; patches in rows (2 or 3 axes) are drawn in one go."""
    shape = pixels.shape[1:] if pixels.ndim >= 4 else pixels.shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(pixels.device)
    left = signal_left(step)
    return (left**0.5 * pixels.float() + (1 - left) ** 0.5 * noise).to(pixels.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class VCD(LogitsMethod):
    """Visual contrastive decoding.

    Attributes:
        alpha: strength; 0 contrasts with nothing. beta: least probability, of that of the best token; 0 keeps all.
        noise_step: 0 to 999. seed: of the noise.

    ``alpha=0, beta=0`` changes nothing, bit for bit. One more pass per token; the second run has its own cache and is
    not steered. The paper samples (``do_sample=True``); greedy decoding takes the best token of the same distribution.

    Raises:
        SpecError: values out of range; on asking, a model that gets no pixels, or a way of decoding that is refused.

    Example:
        >>> VCD.preset("paper").noise_step
        500
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"alpha": 1.0, "beta": 0.1, "noise_step": 500}}

    alpha: float = 1.0
    beta: float = 0.1
    noise_step: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_number("alpha", 0)
        self._check_number("beta", 0, 1)
        if not is_whole(self.noise_step) or not 0 <= self.noise_step < STEPS:
            raise SpecError(f"noise_step of VCD must be a whole number, 0 to {STEPS - 1}; got {self.noise_step!r}")
        if not is_whole(self.seed) or not 0 <= self.seed < 2**63:
            raise SpecError(f"seed of VCD must be a whole number of 63 bits, got {self.seed!r}")

    @property
    def neutral(self) -> bool:
        """See :class:`Method`."""
        return self.alpha == 0 and self.beta == 0

    def check(self, width: int | None, layouts: Sequence[TokenLayout]) -> None:
        """See :meth:`Steering.check`."""
        check_pictures("VCD", layouts)

    def processor(self, model: Any, encoded: Any) -> Processor:
        """See :class:`LogitsMethod`."""
        second = None
        if self.alpha:
            changed = {n: noisy(encoded.inputs[n], self.noise_step, self.seed) for n in pixel_inputs(encoded)}
            second = Second(model, encoded.inputs | changed, encoded)
        return against(second, lambda scores, other: contrasted(scores, other, self.alpha, self.beta))

    def describe(self) -> str:
        """One phrase for provenance."""
        return self._told("alpha", "beta", "noise_step", "seed")
