"""LFM2-VL: one view near the picture's own shape, or a grid of square tiles and a thumbnail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, places, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower, free_tower
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout, Tile, TileKind


@register(
    FamilySpec(
        name="lfm2_vl",
        model_types=("lfm2_vl",),
        processors=("Lfm2VlProcessor",),
        image_processors=("Lfm2VlImageProcessor",),
        towers=("siglip2_vision_model",),
        geometry=(
            "base: stretched to whole cells near its own shape; a cell is downsample_factor x as many patches",
            "crop: of large pictures, stretched to a grid of square tiles",
            "thumbnail: of large pictures, as base, after the tiles",
        ),
        prompt="<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n",
        notes="Tokens that name the row and column of a tile stand before it.",
    )
)
class Lfm2Vl(Adapter):
    """Tiles and sizes are those that the image processor's own functions choose."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        pictures = self.image_processor
        factor = int(self.config.downsample_factor)
        check_agreement(self, "downsample_factor", int(pictures.downsample_factor), factor)
        check_agreement(self, "encoder_patch_size", int(pictures.encoder_patch_size), self.tower.patch_size)
        self.cell = factor * self.tower.patch_size
        self.tile = int(pictures.tile_size)
        self.splits = bool(pictures.do_image_splitting) and not pictures.min_tiles == pictures.max_tiles == 1
        if self.splits and self.tile % self.cell:
            raise LayoutError(f"tile_size must be a multiple of the {self.cell} pixels of a cell, got {self.tile}")
        check_agreement(self, "do_pad", bool(pictures.do_pad), True)

    def find_tower(self) -> Tower:
        """The input of the tower has no size of its own."""
        return free_tower(self.config, self.spec.towers)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """Tiles row by row, then the thumbnail; or the base tile alone."""
        canvas, (width, height) = Canvas.of(image_wh), self._whole(image_wh)
        cols, rows = self._split(image_wh)
        views: list[tuple[TileKind, Canvas]] = []
        if rows:
            joined = canvas.resized(cols * self.tile, rows * self.tile)
            corners = [(col * self.tile, row * self.tile) for row in range(rows) for col in range(cols)]
            views = [("crop", joined.window(left, top, self.tile, self.tile)) for left, top in corners]
        if not rows or (self.image_processor.use_thumbnail and len(views) > 1):
            views.append(("thumbnail" if views else "base", canvas.resized(width, height)))
        tiles = tuple(Tile(kind, *view.grid(self.cell)) for kind, view in views)
        place = places([raster(index, tile.grid_hw) for index, tile in enumerate(tiles)])
        return ImagePlan(ImageLayout(image_wh, tiles, len(tiles)), place, (height, width), len(tiles))

    def _whole(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the picture as a whole, base or thumbnail."""
        pictures = self.image_processor
        width, height = pictures.smart_resize(
            height=image_wh[1],
            width=image_wh[0],
            downsample_factor=pictures.downsample_factor,
            min_image_tokens=pictures.min_image_tokens,
            max_image_tokens=pictures.max_image_tokens,
            encoder_patch_size=pictures.encoder_patch_size,
        )
        return int(width), int(height)

    def _split(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """Columns and rows of tiles; zeros for a picture that is not split."""
        pictures = self.image_processor
        large = pictures._is_image_too_large(
            height=image_wh[1],
            width=image_wh[0],
            max_image_tokens=pictures.max_image_tokens,
            encoder_patch_size=pictures.encoder_patch_size,
            downsample_factor=pictures.downsample_factor,
            max_pixels_tolerance=pictures.max_pixels_tolerance,
        )
        if not (large and self.splits):
            return 0, 0
        cols, rows, *_ = pictures._get_grid_layout(
            image_wh[1],
            image_wh[0],
            min_tiles=pictures.min_tiles,
            max_tiles=pictures.max_tiles,
            tile_size=pictures.tile_size,
        )
        return int(cols), int(rows)

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels come as one row per patch, padded, with the rows and columns of every view."""
        if "spatial_shapes" not in inputs:
            return
        factor = self.cell // self.tower.patch_size
        want = [[side * factor for side in tile.grid_hw] for plan in plans for tile in plan.layout.tiles]
        got = inputs["spatial_shapes"].tolist()
        if got != want:
            raise LayoutError(f"the image processor makes views of {got} patches, but its settings say {want}")
