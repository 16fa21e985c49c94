"""Scanpaths that a differentiable model would choose: where to look next so that what is seen serves its aim best.

NeVA (Schwinn et al., 2022) and NevaClip (Zanca et al., 2023). A picture is blurred but for a fovea; the next fixation
is where the fovea has to go for the model's loss to fall most, found by gradient steps from several starting points.
What earlier fixations saw is kept, and forgotten by and by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.gaze.fixations import Scanpath
from vlmattn.gaze.models.foveation import blurred, fovea, foveated
from vlmattn.gaze.models.timing import CONSTANT, Durations, count_of, timed

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from vlmattn.adapters.dual import DualEncoder

    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Neva:
    """How a model's scanpath is looked for.

    The defaults were chosen on drawn scenes (split ``validation``) with the model in the box: a smaller fovea and a
    stronger blur than published, and several starting points at once, which costs a fifth of the published search.

    Attributes:
        fixations: how many. steps: gradient steps for each. rate: of a step, in half sides of the picture.
        candidates: starting points: the middle of the picture, and others spread over it. followed: how many of them,
            those with the lowest losses, are followed by gradient, at once.
        restart: where a step has not improved on the best, the next one begins anywhere (``random``) or nearby
            (``jitter``). forgetting: what is kept of earlier fixations at each new one, from 0 (only the last) to 1.
        width: of the fovea; see :func:`~vlmattn.gaze.models.foveation.fovea`. blur: deviation of the blur as a share
            of the side of the model's input. store: ``evaluated`` keeps the place whose loss was the best, ``stepped``
            the one a step further, as the published code does.
        inside: keep places on the picture; the published code does not.

    Raises:
        SpecError: a number out of range, or another choice.
    """

    fixations: int = 10
    steps: int = 4
    rate: float = 0.1
    candidates: int = 17
    followed: int = 2
    restart: Literal["random", "jitter"] = "jitter"
    forgetting: float = 0.0
    width: float = 0.05
    blur: float = 0.1
    store: Literal["evaluated", "stepped"] = "evaluated"
    inside: bool = True

    def __post_init__(self) -> None:
        for name in ("fixations", "steps", "candidates", "followed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(f"{name} of NeVA must be a whole number of 1 or more, got {value!r}")
        for name in ("rate", "width", "blur"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise SpecError(f"{name} of NeVA must be above 0, got {getattr(self, name)!r}")
        if self.followed > self.candidates:
            raise SpecError(f"NeVA cannot follow {self.followed} of {self.candidates} candidates")
        if not 0 <= self.forgetting <= 1:
            raise SpecError(f"forgetting of NeVA must be from 0 to 1, got {self.forgetting!r}")
        if self.restart not in ("random", "jitter") or self.store not in ("evaluated", "stepped"):
            raise SpecError(
                "NeVA restarts are 'random' or 'jitter', what is stored is 'evaluated' or 'stepped', got "
                f"{self.restart!r} and {self.store!r}"
            )

    @classmethod
    def published(cls, fixations: int = 10) -> Neva:
        """The settings of NevaClip's code: one start, twenty steps, random restarts, the place a step further."""
        return cls(
            fixations,
            steps=20,
            candidates=1,
            followed=1,
            restart="random",
            width=0.2,
            blur=10 / 224,
            store="stepped",
            inside=False,
        )


@dataclass(frozen=True)
class Chosen:
    """What was found.

    Attributes:
        places: (B, L, 2) row and column, -1 to 1. loss: (B, L) of what is seen from each, with what is remembered.
    """

    places: NDArray[np.float64]
    loss: NDArray[np.float64]


def neva_places(
    loss: Loss,
    pixels: torch.Tensor,
    settings: Neva = Neva(),
    *,
    seeds: Sequence[Any] | None = None,
    limits: NDArray[np.float64] | None = None,
) -> Chosen:
    """Where fixations should go on (B, C, H, W) pictures, one after the other.

    Args:
        loss: (N,) losses of (N, C, H, W) pictures, of which (N,) numbers say whose they are. seeds: one per picture,
            of its starting points; the picture's result does not depend on what else is in the batch.
        limits: (B, 2, 2) lowest and highest row and column per picture, for ``settings.inside``.

    Raises:
        SpecError: seeds or limits for another number of pictures.
    """
    import torch

    count = len(pixels)
    rngs = [np.random.default_rng(seed) for seed in (range(count) if seeds is None else seeds)]
    bounds = np.tile([[-1.0, -1.0], [1.0, 1.0]], (count, 1, 1)) if limits is None else np.asarray(limits)
    if len(rngs) != count or bounds.shape != (count, 2, 2):
        raise SpecError(f"{count} pictures need as many seeds and limits (B, 2, 2), got {len(rngs)}, {bounds.shape}")
    blur = blurred(pixels, settings.blur * pixels.shape[-1])
    memory = torch.zeros(count, *pixels.shape[-2:], dtype=pixels.dtype, device=pixels.device)
    side_hw = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    places, losses = [], []
    for _ in range(settings.fixations):
        search = _Search(loss, pixels, blur, memory, settings, rngs, bounds)
        best, value = search.run()
        seen = fovea(torch.as_tensor(best, dtype=pixels.dtype, device=pixels.device), side_hw, settings.width)
        memory = settings.forgetting * memory + seen
        places.append(best)
        losses.append(value)
    return Chosen(np.stack(places, axis=1), np.stack(losses, axis=1))


@dataclass(frozen=True)
class _Search:
    """The search for the next fixation of every picture: K candidates each, a step at a time."""

    loss: Loss
    pixels: torch.Tensor
    blur: torch.Tensor
    memory: torch.Tensor
    settings: Neva
    rngs: Sequence[np.random.Generator]
    bounds: NDArray[np.float64]

    def run(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(B, 2) best places and (B,) their losses."""
        at = self._starts()
        if self.settings.followed < self.settings.candidates:
            order = self._evaluated(at, slopes=False)[0].argsort(axis=1, kind="stable")[:, : self.settings.followed]
            at = np.take_along_axis(at, order[..., None], axis=1)
        best, lowest = at.copy(), np.full(at.shape[:2], np.inf)
        for _ in range(self.settings.steps):
            values, slopes = self._evaluated(at)
            stepped = at - self.settings.rate * np.sign(slopes)
            better = values < lowest
            lowest = np.where(better, values, lowest)
            best = np.where(better[..., None], at if self.settings.store == "evaluated" else stepped, best)
            at = self._kept(np.where(better[..., None], stepped, self._elsewhere(stepped)))
        first = lowest.argmin(axis=1)
        rows = np.arange(len(first))
        return self._kept(best)[rows, first], lowest[rows, first]

    def _starts(self) -> NDArray[np.float64]:
        """(B, K, 2): the middle, one point anywhere in each cell of a square grid, and the rest anywhere."""
        side = math.isqrt(self.settings.candidates - 1)
        cells = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
        rest = self.settings.candidates - 1 - len(cells)
        starts = []
        for rng in self.rngs:
            spread = (cells + rng.uniform(0, 1, cells.shape)) / max(side, 1) * 2 - 1
            starts.append(np.concatenate([np.zeros((1, 2)), spread, rng.uniform(-1, 1, (rest, 2))]))
        low, high = self.bounds[:, :1], self.bounds[:, 1:]
        return low + (np.stack(starts) + 1) / 2 * (high - low)

    def _elsewhere(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        shape, half = at.shape[1:], self.settings.rate / 2
        if self.settings.restart == "random":
            return np.stack([rng.uniform(-1, 1, shape) for rng in self.rngs])
        return at + np.stack([rng.uniform(-half, half, shape) for rng in self.rngs])

    def _kept(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(at, self.bounds[:, :1], self.bounds[:, 1:]) if self.settings.inside else at

    def _evaluated(
        self, at: NDArray[np.float64], *, slopes: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(B, K) losses and (B, K, 2) their slopes, or nothing."""
        import torch

        count, each = at.shape[:2]
        whose = torch.arange(count, device=self.pixels.device).repeat_interleave(each)
        with torch.set_grad_enabled(slopes):
            place = torch.as_tensor(at.reshape(-1, 2), dtype=self.pixels.dtype, device=self.pixels.device)
            place.requires_grad_(slopes)
            sharp = self.memory[whose] + fovea(
                place, (self.memory.shape[-2], self.memory.shape[-1]), self.settings.width
            )
            values = self.loss(foveated(self.pixels[whose], self.blur[whose], sharp), whose)
            fall = torch.autograd.grad(values.sum(), place)[0] if slopes else torch.zeros_like(place)
        told = (values.detach().double().cpu().numpy(), fall.double().cpu().numpy())
        return told[0].reshape(count, each), told[1].reshape(count, each, 2)


def neva_clip(
    encoder: DualEncoder,
    images: Sequence[Image],
    texts: Sequence[str] | None = None,
    *,
    settings: Neva = Neva(),
    seeds: Sequence[Any] | None = None,
    batch: int = 16,
    durations: Durations = CONSTANT,
) -> list[Scanpath]:
    """Scanpaths on pictures that bring what is seen nearest to a text (NevaClip), or to the whole picture (NeVA).

    Args:
        encoder: an open_clip model. images: in mode RGB. texts: a caption or question for each; None: the embedding
            of the whole, sharp picture is what is aimed at. seeds: one per picture. batch: pictures at once.

    Returns:
        One scanpath per picture, in its own pixels; its trial facts say ``model``, ``text`` and ``loss``.

    Raises:
        SpecError: another number of texts or seeds than pictures. ImageError, PromptError: as of the encoder.
    """
    import torch

    if (texts is not None and len(texts) != len(images)) or (seeds is not None and len(seeds) != len(images)):
        raise SpecError(f"{len(images)} pictures need as many texts and seeds, if any")
    count_of(batch)
    numbers = list(range(len(images))) if seeds is None else list(seeds)
    paths: list[Scanpath] = []
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        pixels = encoder.pixels(images[part])
        with torch.no_grad():
            aims = (encoder.images(pixels) if texts is None else encoder.texts(list(texts[part]))).float()
        boxes = [encoder.layout(image.size).tiles[0].source_box_xyxy for image in images[part]]
        sizes = [image.size for image in images[part]]
        limits = np.stack([_limits(box, wh, pixels.shape[-1]) for box, wh in zip(boxes, sizes, strict=True)])
        found = neva_places(cosine_loss(encoder, aims), pixels, settings, seeds=numbers[part], limits=limits)
        for n, (box, wh) in enumerate(zip(boxes, sizes, strict=True)):
            points = _in_picture(found.places[n], box, pixels.shape[-1])
            text = None if texts is None else texts[start + n]
            facts = {"model": encoder.name, "text": text, "loss": found.loss[n].tolist()}
            path = timed(points, wh, durations, rng=np.random.default_rng(numbers[start + n]), trial=facts)
            paths.append(path.outside("clip") if settings.inside else path)
    return paths


def cosine_loss(encoder: DualEncoder, aims: torch.Tensor) -> Loss:
    """1 - the cosine of what is seen with each picture's aim (B, D)."""

    def loss(pixels: torch.Tensor, whose: torch.Tensor) -> torch.Tensor:
        return 1 - (encoder.images(pixels).float() * aims[whose]).sum(-1)

    return loss


def _in_picture(
    places: NDArray[np.float64], box_xyxy: tuple[float, float, float, float], side: int
) -> NDArray[np.float64]:
    """(L, 2) x, y in the picture's pixels, of rows and columns from -1 to 1."""
    share = ((places[:, ::-1] + 1) / 2 * (side - 1) + 0.5) / side
    low, high = np.array(box_xyxy[:2]), np.array(box_xyxy[2:])
    return np.asarray(low + share * (high - low))


def _limits(box_xyxy: tuple[float, float, float, float], image_wh: tuple[int, int], side: int) -> NDArray[np.float64]:
    """(2, 2) lowest and highest row and column whose middle lies on the picture, not on its padding."""
    low, high = np.array(box_xyxy[:2]), np.array(box_xyxy[2:])
    ends = np.stack([np.maximum(low, 0.0), np.minimum(high, image_wh)])
    share = (ends - low) / (high - low)
    share = np.clip(share, 0.5 / side, 1 - 0.5 / side)
    return np.asarray(((share * side - 0.5) / (side - 1) * 2 - 1)[:, ::-1])
