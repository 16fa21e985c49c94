"""Families whose grid follows the picture: resized to whole cells, patches merged in squares, no tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout, Tile


class DynamicGrid(Adapter):
    """One view per picture, stretched by less than a cell; rows and columns are those that the processor says.

    ``image_grid_thw`` counts patches before they are merged.
    """

    reads = True

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.merge = self.find_merge()
        vision = self.config.vision_config
        for name in ("spatial_merge_size", "merge_size"):
            check_agreement(self, name, self.merge, getattr(vision, name, self.merge))
        check_agreement(self, "patch_size", self.image_processor.patch_size, self.tower.patch_size)

    def find_tower(self) -> Tower:
        """Any tower of the family: its input has no size of its own."""
        vision = self.config.vision_config
        return Tower(str(vision.model_type), 0, int(vision.patch_size), 0)

    def find_merge(self) -> int:
        """Patches along a side of a cell, as the image processor says."""
        return int(self.image_processor.merge_size)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile of the whole picture."""
        frames, rows, cols = (int(n) for n in np.asarray(outputs["image_grid_thw"][number]))
        if frames != 1 or rows % self.merge or cols % self.merge:
            raise LayoutError(
                f"picture {number}: image_grid_thw {(frames, rows, cols)} is not one frame of whole cells of"
                f" {self.merge} x {self.merge} patches"
            )
        grid_hw = (rows // self.merge, cols // self.merge)
        tile = Tile("base", grid_hw, (0.0, 0.0, float(image_wh[0]), float(image_wh[1])))
        view_hw = (rows * self.tower.patch_size, cols * self.tower.patch_size)
        return ImagePlan(ImageLayout(image_wh, (tile,), 1), raster(0, grid_hw), view_hw, 1)

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels come as one row per patch."""
        if "pixel_values" not in inputs:
            return
        want = sum(p.view_hw[0] * p.view_hw[1] for p in plans) // self.tower.patch_size**2
        got = int(inputs["pixel_values"].shape[0])
        if got != want:
            raise LayoutError(f"the image processor makes {got} patches, image_grid_thw says {want}")


_GEOMETRY = ("base: stretched to whole cells near its own shape; a cell is merge_size x merge_size patches",)

for _name, _types, _processor, _image_processor in (
    ("qwen2_vl", ("qwen2_vl",), "Qwen2VLProcessor", "Qwen2VLImageProcessor"),
    ("qwen2_5_vl", ("qwen2_5_vl",), "Qwen2_5_VLProcessor", "Qwen2VLImageProcessor"),
):
    register(
        FamilySpec(
            name=_name,
            model_types=_types,
            processors=(_processor,),
            image_processors=(_image_processor,),
            towers=(),
            geometry=_GEOMETRY,
            prompt="<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n",
            notes="Videos are not supported.",
        )
    )(DynamicGrid)
