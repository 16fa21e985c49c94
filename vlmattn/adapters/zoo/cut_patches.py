"""Families that cut a picture as it is into large patches, one token each, padded at right and bottom."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.tower_cells import grid_cells
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.tower_cells import TowerCells


class CutPatches(Adapter):
    """One view per picture in its own size; every patch is a token."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        size = self.image_processor.size
        check_agreement(self, "size", (size["height"], size["width"]), (self.tower.patch_size,) * 2)

    def find_tower(self) -> Tower:
        """Any tower of the family; its patch is what a token stands for."""
        vision = self.config.vision_config
        side = int(vision.patch_size) * int(getattr(vision, "spatial_merge_size", 1))
        return Tower(str(vision.model_type), 0, side, 0)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """One base tile that reaches beyond the picture at right and bottom."""
        canvas, side = self.scaled(Canvas.of(image_wh)), self.tower.patch_size
        grid_hw = (math.ceil(canvas.wh[1] / side), self.columns(canvas.wh[0]))
        view_wh = (grid_hw[1] * side, grid_hw[0] * side)
        tile = Tile("base", grid_hw, canvas.window(0, 0, *view_wh).box_xyxy)
        return ImagePlan(ImageLayout(image_wh, (tile,), 1), raster(0, grid_hw), (view_wh[1], view_wh[0]), 1)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """A class token, then the small patches of each large one, one after the other."""
        merge = int(getattr(self.config.vision_config, "spatial_merge_size", 1))
        return grid_cells(self, picture, merge, "blocks", classes=1)

    def scaled(self, canvas: Canvas) -> Canvas:
        """The picture as it is cut."""
        return canvas

    def columns(self, width: int) -> int:
        """Patches of a row."""
        return math.ceil(width / self.tower.patch_size)

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels come as one entry per patch."""
        if "pixel_values" not in inputs:
            return
        got, want = int(inputs["pixel_values"].shape[0]), sum(len(p) for p in plans)
        if got != want:
            raise LayoutError(f"the image processor makes {got} patches, its settings say {want}")


class ScaledPatches(CutPatches):
    """Inkling: scaled beforehand if the settings ask for it; one patch more at the right, which may be empty."""

    def scaled(self, canvas: Canvas) -> Canvas:
        """By ``rescale_image_frac``; what is enlarged stays within ``rescale_image_max_upscaled_long_edge``."""
        share = self.image_processor.rescale_image_frac
        if share is None:
            return canvas
        longest, most = max(canvas.wh), self.image_processor.rescale_image_max_upscaled_long_edge
        target = longest * share if most is None else min(longest * share, max(most, longest))
        width, height = (math.floor(side * (target / longest) + 0.5) for side in canvas.wh)
        return canvas.resized(width, height)

    def columns(self, width: int) -> int:
        """One more than fit."""
        return width // self.tower.patch_size + 1


for _cls, _name, _processor, _image_processor, _rule in (
    (CutPatches, "inkling2", "Inkling2Processor", "Inkling2ImageProcessor", "cut as it is"),
    (ScaledPatches, "inkling_mm_model", "InklingProcessor", "InklingImageProcessor", "scaled if set so, then cut"),
):
    register(
        FamilySpec(
            name=_name,
            model_types=(_name,),
            processors=(_processor,),
            image_processors=(_image_processor,),
            towers=(),
            geometry=(f"base: {_rule} into patches, padded at right and bottom",),
            prompt="{images}{question}",
            notes="Tokens at the right and bottom edge stand for padding too.",
        )
    )(_cls)
