"""Fuyu: patches of the picture go straight to the language model, with a token after each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.core.errors import ImageError, LayoutError, PromptError
from vlmattn.core.layout import ImageLayout, Tile

if TYPE_CHECKING:
    from PIL.Image import Image

_BEGINNING = "<s>"


@register(
    FamilySpec(
        name="fuyu",
        model_types=("fuyu",),
        processors=("FuyuProcessor",),
        image_processors=("FuyuImageProcessor",),
        towers=(),
        geometry=("base: shrunk to fit if larger, padded at right and bottom to whole patches",),
        max_images=1,
        prompt="{images}{question}\n",
        notes="There is no vision tower. The picture stands before all words.",
    )
)
class Fuyu(Adapter):
    """The processor puts the picture before the words itself, and tokenises the two apart."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        sides = self.image_processor.patch_size
        patch_hw = tuple(int(sides[side]) for side in ("height", "width"))
        check_agreement(self, "patch_size", patch_hw, (self.tower.patch_size,) * 2)
        check_agreement(self, "do_pad", bool(self.image_processor.do_pad), True)

    def find_tower(self) -> Tower:
        """Patches only."""
        return Tower("none", 0, int(self.config.patch_size), 0)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """One base tile, from which the padding that no patch holds is cut."""
        patch, size = self.tower.patch_size, self.image_processor.size
        limit_wh = (int(size["width"]), int(size["height"]))
        canvas = Canvas.of(image_wh)
        if self.image_processor.do_resize and any(side > most for side, most in zip(image_wh, limit_wh, strict=True)):
            scale = min(most / side for side, most in zip(image_wh, limit_wh, strict=True))
            canvas = canvas.resized(*(int(side * scale) for side in image_wh))
        if min(canvas.wh) < 1:
            raise ImageError(
                f"a picture of {image_wh[0]} x {image_wh[1]} is prepared as {canvas.wh[0]} x {canvas.wh[1]} pixels: cut"
                " it into less extreme parts"
            )
        cols, rows = (
            min(most // patch, math.ceil(side / patch)) for side, most in zip(canvas.wh, limit_wh, strict=True)
        )
        grid_hw, box = canvas.window(0, 0, cols * patch, rows * patch).grid(patch)
        layout = ImageLayout(image_wh, (Tile("base", grid_hw, box),), 1)
        return ImagePlan(layout, raster(0, grid_hw), (rows * patch, cols * patch), 1)

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels come as one row per patch."""
        if "pixel_values" in inputs and int(inputs["pixel_values"].shape[0]) != sum(len(p) for p in plans):
            raise LayoutError(
                f"the image processor makes {int(inputs['pixel_values'].shape[0])} patches, but its settings say"
                f" {sum(len(p) for p in plans)}: its class does more than vlmattn knows of"
            )

    def _processed(self, groups: Sequence[Sequence[Image]], texts: list[str]) -> Mapping[str, Any]:
        for group, text in zip(groups, texts, strict=True):
            if len(group) != 1 or text.find(self.placeholder) != 0:
                raise PromptError("fuyu takes exactly one picture per prompt, and its place is before all words")
        outputs = dict(super()._processed(groups, [text.removeprefix(self.placeholder) for text in texts]))
        outputs["pixel_values"] = outputs.pop("image_patches", outputs.get("pixel_values"))
        outputs["input_ids"] = [
            [int(i) for i, real in zip(ids, mask, strict=True) if real]
            for ids, mask in zip(outputs["input_ids"], outputs["attention_mask"], strict=True)
        ]
        outputs["offset_mapping"] = [
            self._offsets(text.removeprefix(self.placeholder), replaced[0]["replacement"], ids)
            for text, replaced, ids in zip(
                texts, outputs["text_replacement_offsets"], outputs["input_ids"], strict=True
            )
        ]
        return outputs

    def _offsets(self, words: str, written: str, ids: list[int]) -> list[tuple[int, int]]:
        """Characters of every token in the picture's tokens and the words, which the processor does not give."""
        from transformers.models.fuyu.processing_fuyu import BEGINNING_OF_ANSWER_STRING

        parts = (written, words + BEGINNING_OF_ANSWER_STRING)
        first, second = (self.tokenizer(p, add_special_tokens=False, return_offsets_mapping=True) for p in parts)
        # The processor drops the first token of the picture's part, a space that its tokenizer puts before any text.
        if [*first["input_ids"][1:], *second["input_ids"]] != ids:
            raise LayoutError(
                "FuyuProcessor writes other tokens than its tokenizer gives for the picture and the words"
            )
        moved = [(start + len(written), end + len(written)) for start, end in second["offset_mapping"]]
        return [*first["offset_mapping"][1:], *moved]
