"""One map on the picture it belongs to."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.api.peaks import peak_of
from vlmattn.core.errors import MapError
from vlmattn.core.files import as_path, atomic_write_text
from vlmattn.core.images import Picture
from vlmattn.core.layout import Box
from vlmattn.grid import PatchMap, PixelMap, to_pixels
from vlmattn.overlay.preview import Bundle, bundle

if TYPE_CHECKING:
    from vlmattn.overlay import Overlay


class Look:
    """Where the model looked for one word, phrase or answer.

    Attributes:
        patch_map: values on the patch grids. picture: the picture, upright.
    """

    def __init__(self, patch_map: PatchMap, picture: Picture) -> None:
        self.patch_map, self.picture = patch_map, picture

    @property
    def label(self) -> str:
        """The word or phrase."""
        return self.patch_map.label

    @cached_property
    def pixels(self) -> PixelMap:
        """Density in original pixels: a patch shows its value wherever it lies; tiles of one place are averaged."""
        return to_pixels(self.patch_map, merge="mean", kind="density")

    def to_pixels(self, **options: Any) -> PixelMap:
        """The map in original pixels by other rules; see :func:`vlmattn.grid.to_pixels`."""
        return to_pixels(self.patch_map, **options)

    @property
    def peak_xy(self) -> tuple[float, float]:
        """The highest point, in pixels of the upright original. Raises MapError if the map is flat."""
        return self.pixels.peak_xy if "pixels" in self.__dict__ else peak_of(self.patch_map)

    def box_xyxy(self, quantile: float = 0.9) -> Box:
        """The tight box of the largest region above a quantile of the map. Raises MapError if the map is flat."""
        return self.pixels.box_xyxy(quantile=quantile)

    def overlay(self, **options: Any) -> Overlay:
        """The map drawn on the picture at its own resolution; see :func:`vlmattn.overlay.overlay`."""
        from vlmattn.overlay import overlay

        return overlay(self.picture.image, self.pixels, **options)

    def to_dict(self) -> dict[str, Any]:
        """Peak, box, shares and provenance as plain values; no pixels."""
        summary = self.pixels.to_dict()
        try:
            summary["box_xyxy"] = list(self.box_xyxy())
        except MapError:
            summary["box_xyxy"] = None
        return summary

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the overlay (``.png``, ``.webp``, ``.jpg``), the arrays (``.npz``) or the summary (``.json``)."""
        target = as_path(path)
        if target.suffix.lower() == ".npz":
            from vlmattn.overlay import save_map

            save_map(target, self.pixels)
        elif target.suffix.lower() == ".json":
            atomic_write_text(target, json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n")
        else:
            self.overlay(**options).save(target)
        return target

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        return bundle(self.overlay().figure, repr(self))

    def __repr__(self) -> str:
        return f"<Look at {self.picture.name!r} for {self.label!r}: {self.patch_map!r}>"
