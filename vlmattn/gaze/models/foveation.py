"""A picture as an eye sees it: sharp round where it looks and has looked, blurred elsewhere.

Schwinn, Precup, Eskofier and Zanca, Behind the machine's gaze (NeVA), 2022. Places are (row, column), both from -1 at
the middle of the first pixel to 1 at the middle of the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def blurred(pixels: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """(B, C, H, W) smeared by a Gaussian, cut at two deviations as published, mirrored at the border."""
    import torch
    from torch.nn import functional

    reach = max(1, min(round(2 * sigma_px), pixels.shape[-1] - 1, pixels.shape[-2] - 1))
    steps = torch.arange(-reach, reach + 1, dtype=pixels.dtype, device=pixels.device)
    weights = torch.exp(-0.5 * (steps / sigma_px) ** 2)
    weights = weights / weights.sum()
    channels = pixels.shape[1]
    across = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    down = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    padded = functional.pad(pixels, (reach, reach, reach, reach), mode="reflect")
    return functional.conv2d(functional.conv2d(padded, across, groups=channels), down, groups=channels)


def fovea(places: torch.Tensor, side_hw: tuple[int, int], width: float) -> torch.Tensor:
    """(N, H, W) how sharply each pixel is seen from (N, 2) places: exp(-distance² / width), 1 at the place itself.

    There is no factor 2 and ``width`` is not squared, as published: 0.2 is a deviation of 0.32 half sides.
    """
    import torch

    rows, columns = (torch.linspace(-1, 1, n, dtype=places.dtype, device=places.device) for n in side_hw)
    down = (rows[None, :] - places[:, :1]) ** 2
    across = (columns[None, :] - places[:, 1:]) ** 2
    return torch.exp(-(down[:, :, None] + across[:, None, :]) / width)


def foveated(pixels: torch.Tensor, blur: torch.Tensor, sharp: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) the picture where ``sharp`` (N, H, W) is 1 or more, its blurred self where that is 0."""
    return pixels + (blur - pixels) * (1 - sharp).clamp(0, 1)[:, None]
