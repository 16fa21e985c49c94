"""Families whose vision tower halves its grid twice with convolutions; they see a picture in tiles and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.convolved import Fields
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tiling import joined, plan_tiles, rule_of, stretched_tiles
from vlmattn.adapters.tower import Tower
from vlmattn.core.errors import ImageError, LayoutError
from vlmattn.core.layout import ImageLayout, Tile, TileKind

HALVINGS = 2


class Strided(Adapter):
    """A view of the whole picture, and tiles in ``pixel_values_local``."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.side, self.tile_side = self.sides()
        cell = self.tower.patch_size * 2**HALVINGS
        if self.side % cell or self.tile_side % cell:
            raise LayoutError(
                f"views of {self.side} and tiles of {self.tile_side} pixels are no whole cells of {cell} pixels:"
                " the processor writes other numbers of image tokens than the model makes. Set the image processor's"
                " sizes to multiples of it"
            )

    def sides(self) -> tuple[int, int]:
        """Side in pixels of the view of the whole picture, and of a tile."""
        raise NotImplementedError

    def grid(self, kind: TileKind, view: Canvas) -> Tile:
        """The grid of a view: two convolutions of 3 x 3 patches with stride 2, padded by one."""
        fields = Fields.of_patches(self.tower.patch_size).then(3, 2, 1).then(3, 2, 1)
        cell = int(fields.step)
        return fields.tile(kind, view, (view.wh[1] // cell, view.wh[0] // cell))

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Tiles come apart from the view of the whole picture."""
        super().check_views(inputs, plans)
        tiles = inputs.get("pixel_values_local")
        got = (0, self.tile_side, self.tile_side) if tiles is None else (tiles.shape[0], *tiles.shape[-2:])
        want = (sum(p.views - 1 for p in plans), self.tile_side, self.tile_side)
        if tuple(got) != want:
            raise LayoutError(
                f"the image processor makes tiles of shape {tuple(got)} (number, height, width), but its settings say"
                f" {want}: its class does more than vlmattn knows of"
            )


@register(
    FamilySpec(
        name="step3p7",
        model_types=("step3p7",),
        processors=("Step3p7Processor",),
        image_processors=("Step3p7ImageProcessor",),
        towers=(),
        geometry=(
            "tiles: windows of the picture, near its own size, each stretched to a square",
            "thumbnail: the whole picture stretched to a square, after its tiles",
            "cells: centred where the tower's convolutions are",
        ),
        prompt="<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n",
        notes="Small and extremely thin pictures are padded to a square at the right or bottom.",
    )
)
class Step3p7(Strided):
    """Step 3.7."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "vision_patch_size", self.image_processor.vision_patch_size, self.tower.patch_size)
        check_agreement(self, "downsampler_stride", self.image_processor.downsampler_stride, 2**HALVINGS)

    def find_tower(self) -> Tower:
        """The family's own tower, which takes views of two sizes."""
        vision = self.config.vision_config
        return Tower(str(vision.model_type), 0, int(vision.patch_size), 0)

    def sides(self) -> tuple[int, int]:
        """Both are settings."""
        return int(self.image_processor.size["height"]), int(self.image_processor.patch_size)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The tiles' grids one after the other, then that of the whole picture."""
        windows, canvas = self._windows(image_wh)
        tiles = [self.grid("crop", w.resized(self.tile_side, self.tile_side)) for w in windows]
        tiles.append(self.grid("thumbnail" if tiles else "base", canvas.resized(self.side, self.side)))
        return plan_tiles(image_wh, tiles, (self.side, self.side))

    def _windows(self, image_wh: tuple[int, int]) -> tuple[list[Canvas], Canvas]:
        """The windows row by row, and the whole picture, padded if it has to be."""
        planned = rule_of(self.image_processor, "_plan_patches")(*image_wh, self.side, self.tile_side)
        _, (width, height), window, _, _, pads = planned
        canvas = Canvas.of(image_wh)
        canvas = canvas.window(0, 0, max(image_wh), max(image_wh)) if pads else canvas
        if not window:
            return [], canvas
        if min(width, height) < 1:
            raise ImageError(f"a picture of {image_wh[0]} x {image_wh[1]} pixels is too thin for {self.spec.name}")
        large = canvas.resized(width, height)
        corners = [(x, y) for y in range(0, height, window) for x in range(0, width, window)]
        return [large.window(x, y, min(window, width - x), min(window, height - y)) for x, y in corners], canvas


@register(
    FamilySpec(
        name="unlimited_ocr",
        model_types=("unlimited_ocr",),
        processors=("UnlimitedOcrProcessor",),
        image_processors=("UnlimitedOcrImageProcessor",),
        towers=(),
        geometry=(
            "tiles: the picture stretched to rows x cols squares, joined to one grid",
            "thumbnail: the whole picture padded to a square, after its tiles",
            "cells: centred where the tower's convolutions are",
        ),
        prompt="{images}{question}",
        notes="A newline token ends every row, one more token the picture.",
    )
)
class UnlimitedOcr(Strided):
    """Unlimited-OCR."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "patch_size", processor.patch_size, self.tower.patch_size)
        check_agreement(self, "downsample_ratio", processor.downsample_ratio, 2**HALVINGS)

    def find_tower(self) -> Tower:
        """The first of its two encoders cuts the patches; views have two sizes."""
        vision = self.config.vision_config
        return Tower(str(vision.model_type), 0, int(vision.sam_config.patch_size), 0)

    def sides(self) -> tuple[int, int]:
        """Both are settings."""
        size = self.image_processor.size
        return max(int(size["height"]), int(size["width"])), int(self.image_processor.tile_size)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The joined grid of the tiles, that of the whole picture, and one token after them."""
        rows, cols = self._tiles_hw(image_wh)
        tiles: list[Tile] = []
        if rows:
            views = stretched_tiles(image_wh, (rows, cols), self.tile_side)
            tiles.append(joined("tiles", [self.grid(v.kind, v.canvas) for v in views], (rows, cols)))
        tiles.append(self.grid("thumbnail" if rows else "base", self._whole(image_wh)))
        parts = [raster(index, tile.grid_hw, newline=True) for index, tile in enumerate(tiles)]
        layout = ImageLayout(image_wh, tuple(tiles), 1 + rows * cols)
        return ImagePlan(layout, places([*parts, nowhere(1)]), (self.side,) * 2, 1 + rows * cols)

    def _tiles_hw(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        images = self.image_processor
        if not images.crop_to_patches or max(image_wh) <= self.tile_side:
            return 0, 0
        best = rule_of(images, "get_optimal_tiled_canvas")
        sizes = (image_wh[1], image_wh[0]), (self.tile_side, self.tile_side)
        cols, rows = best(*sizes, images.min_patches, images.max_patches)
        return int(rows), int(cols)

    def _whole(self, image_wh: tuple[int, int]) -> Canvas:
        """The picture padded to a square, or stretched to one where there are no tiles and it is small."""
        images, canvas = self.image_processor, Canvas.of(image_wh)
        if not images.crop_to_patches and self.side <= images.maximum_pad_value:
            return canvas.resized(self.side, self.side)
        scale = self.side / max(image_wh)
        width, height = round(image_wh[0] * scale), round(image_wh[1] * scale)
        if min(width, height) < 1:
            raise ImageError(f"a picture of {image_wh[0]} x {image_wh[1]} pixels is too thin for {self.spec.name}")
        return canvas.resized(width, height).squared()

    def tensors(self, pixels: dict[str, Any]) -> dict[str, Any]:
        """The model takes numbers of tiles as lists."""
        told = {k: pixels[k] for k in ("num_local_patches", "patches_grid") if k in pixels}
        return super().tensors({k: v for k, v in pixels.items() if k not in told}) | told
