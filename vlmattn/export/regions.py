"""Regions that stand out of maps: what boxes and masks of every annotation format are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.provenance import Provenance
from vlmattn.export.subject import Mapped, PictureFile, each, picture_files, pixels_of
from vlmattn.grid import PixelMap
from vlmattn.grid.regions import ranked_regions

IntBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class RegionRule:
    """Which connected regions of a map are taken: of the seen pixels at or above a level, 8-connected, the largest.

    Attributes:
        quantile: the level as a quantile of the seen values, 0 to 1. threshold: the level as a value, instead.
        most: how many regions of a map, the largest first. least_pixels: smaller regions are left out.

    The lowest value of a map never belongs to a region, so a map that is 0 nearly everywhere gives what is above 0.

    Raises:
        SpecError: a value that cannot be.
    """

    quantile: float = 0.9
    threshold: float | None = None
    most: int = 1
    least_pixels: int = 1

    def __post_init__(self) -> None:
        if not _is_number(self.quantile) or not 0 <= self.quantile <= 1:
            raise SpecError(f"quantile must be a number from 0 to 1, got {self.quantile!r}")
        if self.threshold is not None and not (_is_number(self.threshold) and np.isfinite(self.threshold)):
            raise SpecError(f"threshold must be a finite number, got {self.threshold!r}")
        for name in ("most", "least_pixels"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise SpecError(f"{name} must be a whole number, at least 1; got {value!r}")

    @property
    def said(self) -> str:
        """The rule in words."""
        at = f"value {self.threshold:g}" if self.threshold is not None else f"quantile {self.quantile:g} of the map"
        return f"the {self.most} largest 8-connected regions" * (self.most > 1) + (
            "the largest 8-connected region" * (self.most == 1) + f" of pixels at or above {at}"
        )

    def regions(self, pixel_map: PixelMap) -> list[tuple[NDArray[np.bool_], IntBox, float]]:
        """Mask (H, W), tight box (ends exclusive) and score of every region, the largest first.

        Raises:
            MapError: the map is flat, or no region is left.
        """
        if not pixel_map.seen.any():
            raise MapError("no pixel of the picture was seen by the model")
        if pixel_map.is_flat:
            raise MapError("the map is flat: every pixel has the same value, so no region stands out")
        values, seen = pixel_map.values, pixel_map.seen
        level = pixel_map.level(self.quantile) if self.threshold is None else self.threshold
        high = seen & (values >= level) & (values > np.min(values, where=seen, initial=np.inf))
        labels, found = ranked_regions(high, values, rank="area")
        kept = [one for one in found if one.area >= self.least_pixels][: self.most]
        if not kept:
            raise MapError(
                f"no region of {self.least_pixels} or more pixels reaches {level:.4g}; the highest value is "
                f"{float(np.max(values, where=seen, initial=-np.inf)):.4g}"
            )
        weight = np.where(seen, np.maximum(values, 0), 0)
        whole = float(weight.sum(dtype=np.float64))
        masks = [labels == one.number for one in kept]
        shares = [float(weight[mask].sum(dtype=np.float64)) / whole if whole > 0 else 0.0 for mask in masks]
        boxes = [one.box_xyxy for one in kept]
        return list(zip(masks, boxes, [min(1.0, share) for share in shares], strict=True))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True, eq=False)
class MarkedRegion:
    """One region of one map.

    Attributes:
        label: the word or phrase. picture: number of its picture in :attr:`Marked.files`.
        mask_hw: (H, W) bool, in pixels of the upright picture. box_xyxy: its tight box, ends exclusive.
        score: share of the map's positive values that lies in the region, 0 to 1.
        provenance: of the map.

    Raises:
        MapError: an empty mask, or a box that is not its own.
    """

    label: str
    picture: int
    mask_hw: NDArray[np.bool_]
    box_xyxy: IntBox
    score: float
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        mask = np.asarray(self.mask_hw, dtype=np.bool_)
        if mask.ndim != 2 or not mask.any():
            raise MapError(f"mask_hw must have shape (H, W) and hold a pixel, got {mask.shape}, {int(mask.sum())} set")
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        tight = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        if tuple(self.box_xyxy) != tight:
            raise MapError(f"box_xyxy must be the tight box {tight} of the mask, got {tuple(self.box_xyxy)}")
        object.__setattr__(self, "mask_hw", mask)

    @property
    def area(self) -> int:
        """Pixels of the region."""
        return int(self.mask_hw.sum())

    @property
    def box_xywh(self) -> IntBox:
        """Left, top, width, height."""
        x0, y0, x1, y1 = self.box_xyxy
        return x0, y0, x1 - x0, y1 - y0


@dataclass(frozen=True, eq=False)
class Marked:
    """Regions of maps on their pictures.

    Attributes:
        looks: the maps, one per picture and frame. numbers: of each, the number of its picture in ``files``.
        files: the pictures, upright, with a file name for each. regions: what was found.
        rule: how. skipped: one line for every map that gave no region.
    """

    looks: tuple[Mapped, ...]
    numbers: tuple[int, ...]
    files: tuple[PictureFile, ...]
    regions: tuple[MarkedRegion, ...]
    rule: RegionRule
    skipped: tuple[str, ...] = ()

    def on(self, number: int) -> list[MarkedRegion]:
        """The regions on one picture."""
        return [one for one in self.regions if one.picture == number]

    def looks_at(self, number: int) -> list[Mapped]:
        """The maps on one picture."""
        return [look for look, at in zip(self.looks, self.numbers, strict=True) if at == number]

    @property
    def labels(self) -> tuple[str, ...]:
        """The words and phrases, in order, each once; those whose maps gave no region, too."""
        return tuple(dict.fromkeys(look.label for look in self.looks))

    @property
    def made(self) -> dict[str, Any]:
        """How regions and maps were made, for the head of a file."""
        return {
            "made_by": "vlmattn",
            "regions": self.rule.said,
            "score": "share of the map's positive values inside the region; not a probability",
            "coordinates": "pixels of the upright picture written beside this file, EXIF rotation applied; origin at "
            "the top-left corner, box ends exclusive",
            "skipped": list(self.skipped),
        }


def mark(looks: Mapped | Iterable[Mapped] | Marked, rule: RegionRule | None = None, **changes: Any) -> Marked:
    """The regions of every map.

    Args:
        looks: from ``run.map(...)``; a look at a video counts as one per frame. rule: or its fields by name:
            ``quantile``, ``threshold``, ``most``, ``least_pixels``.

    A flat map has no region: it is skipped, and ``skipped`` says so.

    Raises:
        SpecError: nothing given, or a rule that cannot be.
    """
    if isinstance(looks, Marked):
        return looks
    made = rule_of(rule, changes)
    each_one = each(looks)
    files, numbers = picture_files(each_one)
    regions: list[MarkedRegion] = []
    skipped = []
    for look, number in zip(each_one, numbers, strict=True):
        provenance = look.patch_map.provenance
        try:
            found = made.regions(pixels_of(look))
        except MapError as error:
            skipped.append(f"{look.label!r} on {look.picture.name}: {error}")
            continue
        regions += [MarkedRegion(look.label, number, mask, box, score, provenance) for mask, box, score in found]
    return Marked(tuple(each_one), tuple(numbers), tuple(files), tuple(regions), made, tuple(skipped))


def rule_of(rule: RegionRule | None, changes: dict[str, Any]) -> RegionRule:
    """A rule from its fields.

    Raises:
        SpecError: both a rule and fields, or a field that does not exist.
    """
    if rule is not None and changes:
        raise SpecError(f"give a rule or its fields, not both: got {', '.join(changes)}")
    unknown = [name for name in changes if name not in RegionRule.__dataclass_fields__]
    if unknown:
        known = ", ".join(RegionRule.__dataclass_fields__)
        raise SpecError(f"regions have no option {unknown[0]!r}; there are {known}")
    return RegionRule(**changes) if rule is None else rule
