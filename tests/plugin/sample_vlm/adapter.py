"""What vlmattn needs to know of the family; it finds this module by its entry point."""

from __future__ import annotations

from vlmattn.adapters import Adapter, FamilySpec, ImagePlan, register
from vlmattn.adapters.plan import raster
from vlmattn.core.layout import ImageLayout, Tile


@register(
    FamilySpec(
        name="sample_vlm",
        model_types=("sample_vlm",),
        processors=("LlavaProcessor",),
        image_processors=("SiglipImageProcessor",),
        towers=("siglip_vision_model",),
        geometry=("base: stretched to a square",),
    )
)
class SampleVlm(Adapter):
    """One view of the whole picture, stretched to a square."""

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """One base tile."""
        side, pixels = self.tower.side, self.tower.image_size
        tile = Tile("base", (side, side), (0.0, 0.0, float(image_wh[0]), float(image_wh[1])))
        return ImagePlan(ImageLayout(image_wh, (tile,), 1), raster(0, (side, side)), (pixels, pixels), 1)
