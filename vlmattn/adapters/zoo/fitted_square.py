"""Families that fit each picture into a square, pad it in the middle, and see it once on one fixed grid."""

from __future__ import annotations

from typing import Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.preprocess import square_side
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower, square_tower
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout, Tile


class FittedSquare(Adapter):
    """One view per picture: its longest side resized to the side of a square, the rest padded on both sides.

    Where there is a view of high resolution, the picture is fitted and padded for it, and that square is resized once
    more: both views show the same.
    """

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        pictures = self.image_processor
        self.side = square_side(pictures, "size")
        self.first = square_side(pictures, "high_res_size") if hasattr(pictures, "high_res_size") else self.side
        check_agreement(self, "image size", self.side, self.tower.image_size)
        check_agreement(self, "num_image_tokens", processor.num_image_tokens, self.tower.side**2)
        fine = getattr(self.config, "high_res_vision_config", None)
        if fine is not None:
            check_agreement(self, "high_res_size", self.first, fine.image_size)
        check_agreement(self, "do_resize and do_pad", bool(pictures.do_resize and pictures.do_pad), True)
        if getattr(processor, "use_default_system_prompt", False):
            raise LayoutError(
                "the processor puts a system prompt of its own before every prompt, so words would be found in the"
                " wrong place: set its use_default_system_prompt to False and give the text as system="
            )

    def find_tower(self) -> Tower:
        """A tower without a CLS token."""
        return square_tower(self.config, self.spec.towers)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """One base tile that reaches into the padding."""
        scale = self.first / max(image_wh)
        width, height = (max(round(side * scale), int(self.image_processor.min_size)) for side in image_wh)
        canvas = Canvas.of(image_wh).resized(width, height).squared().resized(self.side, self.side)
        grid_hw, box = canvas.grid(self.tower.patch_size)
        layout = ImageLayout(image_wh, (Tile("base", grid_hw, box),), 1)
        return ImagePlan(layout, raster(0, grid_hw), (self.side, self.side), 1)


for _name, _image_processor, _tower, _prompt in (
    ("janus", "Janus", "janus_vision_model", "<|User|>: {images}{question}\n\n<|Assistant|>:"),
    ("deepseek_vl", "DeepseekVL", "siglip_vision_model", "User: {images}{question}\n\nAssistant:"),
    ("deepseek_vl_hybrid", "DeepseekVLHybrid", "siglip_vision_model", "User: {images}{question}\n\nAssistant:"),
):
    register(
        FamilySpec(
            name=_name,
            model_types=(_name,),
            processors=(f"{_image_processor}Processor",),
            image_processors=(f"{_image_processor}ImageProcessor",),
            towers=(_tower,),
            geometry=("base: longest side resized, padded to a square around the middle",),
            prompt=_prompt,
            notes="Several pictures per prompt.",
        )
    )(FittedSquare)
