"""Families whose tower shrinks its grid by convolutions that overlap."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.convolved import Fields
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.zoo.fixed_views import STRETCHED, FixedViews, View
from vlmattn.core.layout import Tile, TileKind

if TYPE_CHECKING:
    from PIL.Image import Image

_SYSTEM = "You should follow the instructions carefully and explain your answers in detail."
_GOT_OCR = FamilySpec(
    name="got_ocr2",
    model_types=("got_ocr2",),
    processors=("GotOcr2Processor",),
    image_processors=("GotOcr2ImageProcessor",),
    towers=("got_ocr2_vision",),
    geometry=(
        STRETCHED,
        "crop: with crop_to_patches, tiles of the stretched picture, then a thumbnail of the whole",
        "cells meet half-way between the middles of their fields",
    ),
    prompt=f"<|im_start|>system\n{_SYSTEM}<|im_end|><|im_start|>user\n<img>{{images}}</img>\n{{question}}<|im_end|>"
    "<|im_start|>assistant\n",
    after_image="",
    own_prompt=True,
    notes="GOT-OCR 2 was trained on the question ' OCR: '. Tiles are made where the processor's images_kwargs say "
    "crop_to_patches.",
)


@register(_GOT_OCR)
class GotOcr2(FixedViews):
    """GOT-OCR 2: two convolutions of stride 2 after the tower."""

    needs_picture = True
    nested = False

    def find_tower(self) -> Tower:
        """A segment-anything tower: no token without a place."""
        vision = self.config.vision_config
        return Tower(str(vision.model_type), int(vision.image_size), int(vision.patch_size), 0)

    def find_side(self) -> int:
        """Every convolution halves the patches of a side, rounded up."""
        vision = self.config.vision_config
        return -(-(vision.image_size // vision.patch_size) // 4)

    def find_written(self) -> int:
        """As the processor says."""
        return int(self.processor.num_image_tokens)

    def views(self, canvas: Canvas) -> list[View]:
        """The whole; or tiles row by row, then the whole."""
        cols, rows = self._tiles(canvas.wh)
        if (cols, rows) == (1, 1):
            return [("base", canvas)]
        size = self.tower.image_size
        large = canvas.resized(cols * size, rows * size)
        corners = [(x * size, y * size) for y in range(rows) for x in range(cols)]
        crops: list[View] = [("crop", large.window(x, y, size, size)) for x, y in corners]
        return [*crops, ("thumbnail", canvas)]

    def tile(self, kind: TileKind, canvas: Canvas) -> Tile:
        """Cells round the middles of what two convolutions look at."""
        fields = Fields.of_patches(self.tower.patch_size).then(3, 2, 1).then(3, 2, 1)
        return fields.tile(kind, canvas, (self.side, self.side))

    def _tiles(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """Columns and rows of tiles, by transformers' own rule."""
        from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

        if not self.setting("crop_to_patches"):
            return 1, 1
        size, least, most = self.tower.image_size, self.setting("min_patches"), self.setting("max_patches")
        cols, rows = get_optimal_tiled_canvas((image_wh[1], image_wh[0]), (size, size), least, most)
        return int(cols), int(rows)


@register(
    replace(
        _GOT_OCR,
        name="pp_chart2table",
        model_types=("pp_chart2table",),
        processors=("PPChart2TableProcessor",),
        image_processors=("PPChart2TableImageProcessor",),
        towers=("pp_chart2table_vision",),
        geometry=(STRETCHED, _GOT_OCR.geometry[-1]),
        notes="PP-Chart2Table was trained on the question 'Chart to table' alone, which its own chat template writes "
        "whatever is asked; here the question is yours.",
    )
)
class Chart2Table(GotOcr2):
    """PP-Chart2Table: GOT-OCR 2 whose prompt holds every image token already."""

    def find_tokens(self) -> tuple[str, str]:
        """All image tokens of a picture stand for it."""
        token = str(self.tokenizer.convert_ids_to_tokens(int(self.config.image_token_id)))
        return token * self.find_side() ** 2, token

    def find_written(self) -> int:
        """The prompt holds them."""
        return self.find_side() ** 2

    def prepared(
        self, groups: Sequence[Sequence[Image]], texts: list[str], *, add_special_tokens: bool
    ) -> Mapping[str, Any]:
        """With the places of pictures, which stay as they are."""
        output = super().prepared(groups, texts, add_special_tokens=add_special_tokens)
        found = [[m.span() for m in re.finditer(re.escape(self.placeholder), text)] for text in texts]
        places = [[{"span": s, "new_span": s, "replacement": self.placeholder} for s in spans] for spans in found]
        return {**output, "text_replacement_offsets": places}
