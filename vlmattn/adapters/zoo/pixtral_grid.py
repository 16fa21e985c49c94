"""Families of the Pixtral kind: one view near the picture's own shape, cells row by row with a token after each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower, free_tower
from vlmattn.adapters.tower_cells import cell_count, cell_numbers, merged_rows, view_of
from vlmattn.core.errors import ImageError, LayoutError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.tower_cells import NO_CELL, TowerCells


class SizedGrid(Adapter):
    """One view per picture, at the size that the processor says in ``image_sizes``.

    Cells are ``cell`` pixels wide and high; what is left over at right and bottom is cut. Pictures of one batch are
    padded at right and bottom to the size of the largest; the model cuts that off again.

    Attributes:
        cell: side of a cell in pixels, set by the family.
        row_ends: whether an image token without a place ends each row.
        fewest_cells: the least that the model takes.
    """

    reads = True
    row_ends = False
    fewest_cells = 1
    cell: int

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile: the whole picture, but for what holds no whole cell."""
        height, width = (int(n) for n in outputs["image_sizes"][number])
        if min(height, width) < self.cell:
            raise ImageError(
                f"a picture of {image_wh[0]} x {image_wh[1]} is prepared as {width} x {height} pixels, which holds no"
                f" cell of {self.cell} pixels: cut it into less extreme parts"
            )
        grid_hw, box = Canvas.of(image_wh).resized(width, height).grid(self.cell)
        if grid_hw[0] * grid_hw[1] < self.fewest_cells:
            raise ImageError(
                f"a picture of {image_wh[0]} x {image_wh[1]} makes a single image token, which this model cannot take:"
                f" enlarge it to more than {self.cell} pixels"
            )
        layout = ImageLayout(image_wh, (Tile("base", grid_hw, box),), 1)
        return ImagePlan(layout, raster(0, grid_hw, newline=self.row_ends), (height, width), 1)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """One view, its patches row by row; those at right and bottom that fill no cell belong to none."""
        (tile,), (width, height), patch = picture.tiles, picture.image_wh, self.tower.patch_size
        (rows, cols), (x0, y0, x1, y1) = tile.grid_hw, tile.source_box_xyxy
        prepared_hw = (round(rows * self.cell * height / (y1 - y0)), round(cols * self.cell * width / (x1 - x0)))
        owners = np.full((prepared_hw[0] // patch, prepared_hw[1] // patch), NO_CELL)
        merged = merged_rows(cell_numbers(picture)[0], self.cell // patch)
        owners[: merged.shape[0], : merged.shape[1]] = merged
        return TowerCells.averaged([view_of(owners)], cell_count(picture))

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels come padded to the largest picture of the batch."""
        if "pixel_values" not in inputs:
            return
        want = tuple(max(p.view_hw[side] for p in plans) for side in (0, 1))
        got = tuple(int(s) for s in inputs["pixel_values"].shape[-2:])
        if got != want:
            raise LayoutError(f"the image processor makes views of {got} pixels (height, width), but says {want}")


class PixtralGrid(SizedGrid):
    """Families with a Pixtral tower: a cell is a square of merged patches."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        merge = int(getattr(self.config, "spatial_merge_size", 1))
        check_agreement(self, "patch_size", processor.patch_size, self.tower.patch_size)
        check_agreement(self, "spatial_merge_size", processor.spatial_merge_size, merge)
        self.cell = self.tower.patch_size * merge
        if self.strategy == "default":
            raise LayoutError(
                "vision_feature_select_strategy must be 'full' with a Pixtral tower, which has no CLS token to drop"
            )
        if getattr(self.image_processor, "do_center_crop", False) or not self.image_processor.do_pad:
            raise LayoutError("the image processor must have do_pad=True and do_center_crop=False with a Pixtral tower")

    def find_tower(self) -> Tower:
        """The input of the tower has no size of its own."""
        return free_tower(self.config, self.spec.towers)


class MistralGrid(PixtralGrid):
    """As PixtralGrid; a picture of one image token is lost in the model's own reshaping."""

    fewest_cells = 2


_GEOMETRY = ("base: stretched to whole patches near its own shape; a cell is a square of merged patches",)
_IMAGE_PROCESSORS = ("PixtralImageProcessor",)
_INST = "[INST]{images}{question}[/INST]"

register(
    FamilySpec(
        name="pixtral",
        model_types=("llava",),
        processors=("PixtralProcessor",),
        image_processors=_IMAGE_PROCESSORS,
        towers=("pixtral",),
        geometry=_GEOMETRY,
        prompt=_INST,
        notes="Models of type llava with a Pixtral tower. A token ends every row and the picture.",
    )
)(PixtralGrid)
register(
    FamilySpec(
        name="lighton_ocr",
        model_types=("lighton_ocr",),
        processors=("LightOnOcrProcessor",),
        image_processors=_IMAGE_PROCESSORS,
        towers=("pixtral",),
        geometry=_GEOMETRY,
        prompt="<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n",
        notes="No tokens between rows.",
    )
)(PixtralGrid)
_MISTRAL3 = FamilySpec(
    name="mistral3",
    model_types=("mistral3",),
    processors=("PixtralProcessor",),
    image_processors=_IMAGE_PROCESSORS,
    towers=("pixtral",),
    geometry=_GEOMETRY,
    prompt=_INST,
    notes="A token ends every row and the picture. A picture must be larger than one cell.",
)
register(_MISTRAL3)(MistralGrid)
register(
    replace(
        _MISTRAL3,
        name="mistral_large4",
        model_types=("mistral_large4",),
        notes=f"{_MISTRAL3.notes} Padding changes what its attention sees: prompts are run one at a time.",
        batches=False,
    )
)(MistralGrid)
