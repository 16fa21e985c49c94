"""Families that see the whole picture first, at a size near its own shape, and then slices of it, all of one size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tiling import View, cut, plan_views
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.tower_cells import grid_cells, unknown
from vlmattn.adapters.videos import NOT_DECLARED
from vlmattn.core.errors import LayoutError, UnsupportedModel
from vlmattn.core.layout import ImageLayout
from vlmattn.core.tower_cells import TowerCells

MERGES = {"16x": 4, "4x": 2}


class Slices(Adapter):
    """The whole picture, then its slices row by row; both are stretched by less than a cell."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        images = self.image_processor
        check_agreement(self, "patch_size", images.patch_size, self.tower.patch_size)
        check_agreement(self, "downsample_mode", images.downsample_mode, self.config.downsample_mode)
        merging = tuple(self.config.merge_kernel_size), int(self.config.merger_times)
        if images.downsample_mode not in MERGES or merging != ((2, 2), 1):
            raise LayoutError(
                f"downsample_mode must be one of {', '.join(MERGES)} with one merger of 2 x 2 patches, got"
                f" {images.downsample_mode!r} with merge_kernel_size and merger_times {merging}: the processor writes"
                " other numbers of image tokens than the model makes"
            )
        if getattr(images, "small_image_upsize", "always") == "adaptive":
            raise UnsupportedModel(
                f"{type(images).__name__} with small_image_upsize='adaptive' chooses sizes by what the picture shows:"
                " set it to 'always' or 'never'"
            )
        self.merge = MERGES[images.downsample_mode]

    def find_tower(self) -> Tower:
        """Any tower of the family: its input has no size of its own."""
        vision = self.config.vision_config
        return Tower(str(vision.model_type), 0, int(vision.patch_size), 0)

    def views(self, image_wh: tuple[int, int]) -> list[View]:
        """The whole picture and its slices, by the image processor's own rules."""
        images, image_hw = self.image_processor, (image_wh[1], image_wh[0])
        sizes = {
            "scale_resolution": images.scale_resolution,
            "patch_size": images.patch_size,
            "downsample_mode": images.downsample_mode,
        }
        most = images.max_slice_nums
        tiles_hw = images.get_sliced_grid(image_hw, most, images.scale_resolution) if images.slice_mode else None
        grows = tiles_hw is None and getattr(images, "small_image_upsize", "always") == "always"
        height, width = images.find_best_resize(image_hw, allow_upscale=grows, **sizes)
        overview = View("thumbnail" if tiles_hw else "base", Canvas.of(image_wh).resized(width, height))
        if tiles_hw is None:
            return [overview]
        height, width = images.get_refine_size(image_hw, tiles_hw, allow_upscale=True, **sizes)
        rows, cols = tiles_hw
        large = Canvas.of(image_wh).resized(width, height)
        return [overview, *cut(large, (rows, cols), (width // cols, height // rows))]

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The views' grids one after the other."""
        return plan_views(image_wh, self.views(image_wh), self.tower.patch_size * self.merge)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """Every view's patches row by row, where no merger inside the tower joins them on the way."""
        if self.merge != MERGES["4x"]:
            raise unknown(self, "a merger inside its tower joins patches between two of its layers")
        return grid_cells(self, picture, self.merge)

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """The image processor tells rows and columns of patches of every view."""
        if "target_sizes" not in inputs:
            return
        told = [tuple(size) for size in inputs["target_sizes"].tolist()]
        want = [(t.grid_hw[0] * self.merge, t.grid_hw[1] * self.merge) for p in plans for t in p.layout.tiles]
        if told != want:
            raise LayoutError(
                f"the image processor makes views of {told} patches (rows, columns), but its settings say {want}:"
                " its class does more than vlmattn knows of"
            )


for _name, _processor, _image_processors in (
    ("minicpmv4_6", "MiniCPMV4_6Processor", ("MiniCPMV4_6ImageProcessor",)),
    ("minicpmv4_7", "MiniCPMV4_7Processor", ("MiniCPMV4_6ImageProcessor", "MiniCPMV4_7ImageProcessor")),
    ("minicpm_ocr", "MiniCPMOcrProcessor", ("MiniCPMOcrImageProcessor",)),
):
    register(
        FamilySpec(
            name=_name,
            model_types=(_name,),
            processors=(_processor,),
            image_processors=_image_processors,
            towers=(),
            geometry=(
                "thumbnail: the whole picture stretched to whole cells near its own shape",
                "slices: the picture stretched to rows x cols of whole cells near the scale resolution",
            ),
            prompt="<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n",
            no_videos=NOT_DECLARED,
        )
    )(Slices)
