"""A map and a recipe made into a place and a picture: everything of a refinement but the model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from vlmattn.core.errors import MapError
from vlmattn.grid import PatchMap, PixelMap, to_pixels
from vlmattn.refine.pictures import refined_picture
from vlmattn.refine.places import Place, place_of
from vlmattn.refine.recipes import Recipe


@dataclass(frozen=True, eq=False)
class Refined:
    """Where to look again, and the picture to look at.

    Attributes:
        recipe: how. patch_map, pixels: the map that says where. place: mask, regions and box. image: the refined
            picture.
    """

    recipe: Recipe
    patch_map: PatchMap
    pixels: PixelMap
    place: Place
    image: Image.Image

    @cached_property
    def mask_image(self) -> Image.Image:
        """The mask in black and white, the size of the original."""
        return Image.fromarray(self.place.mask).convert("L")

    def to_dict(self) -> dict[str, Any]:
        """Boxes, shares, recipe and provenance as plain values; no pixels."""
        return {
            "recipe": self.recipe.described(),
            "box_xyxy": list(self.place.box_xyxy),
            "box_share": self.place.share,
            "mask_share": float(self.place.mask.mean()),
            "regions": [{"box_xyxy": list(r.box_xyxy), "area": r.area, "total": r.total} for r in self.place.regions],
            "shown_wh": list(self.image.size),
            "map": self.pixels.to_dict(),
        }


def refine_picture(image: Image.Image, patch_map: PatchMap, recipe: Recipe) -> Refined:
    """Apply a recipe to a map.

    Args:
        image: the upright original that the map belongs to; taken as RGB.

    Raises:
        MapError: the map is flat or of another picture, or no region is left.

    Example:
        >>> from vlmattn.core.layout import ImageLayout, Tile
        >>> from vlmattn.refine import RECIPES
        >>> layout = ImageLayout((40, 20), (Tile("base", (2, 4), (0.0, 0.0, 40.0, 20.0)),))
        >>> look = PatchMap(([[0, 0, 0, 0], [0, 0, 0, 1.0]],), layout)
        >>> refine_picture(Image.new("RGB", (40, 20)), look, RECIPES["peak"].but(window_px=12)).place.box_xyxy
        (28, 8, 40, 20)
    """
    if image.size != patch_map.layout.image_wh:
        raise MapError(f"the map belongs to a picture of {patch_map.layout.image_wh} pixels, got {image.size}")
    pixels = to_pixels(patch_map, merge="mean", kind="density", smooth=recipe.smooth)
    place = place_of(patch_map, pixels, recipe)
    colours = image if image.mode == "RGB" else image.convert("RGB")
    return Refined(recipe, patch_map, pixels, place, refined_picture(colours, place, pixels, recipe))
