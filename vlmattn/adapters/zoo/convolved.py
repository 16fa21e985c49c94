"""Families whose tower shrinks its grid by convolutions that overlap."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.convolved import Fields
from vlmattn.adapters.preprocess import prepared_view
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.zoo.fixed_views import STRETCHED, FixedViews, View
from vlmattn.core.errors import LayoutError, UnsupportedModel
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


class TimmTower(FixedViews):
    """A tower of timm, of one architecture; its views have the size that the image processor makes.

    Attributes:
        architecture: its name in timm.
        fields: what its tokens look at, before any mean over several of them.
    """

    architecture: str
    fields: Fields

    def find_tower(self) -> Tower:
        """The step between tokens stands for the patch."""
        vision = self.config.vision_config
        if vision.architecture != self.architecture:
            raise UnsupportedModel(
                f"vision tower {vision.architecture!r} is not supported with {self.config.model_type!r}: where its"
                f" tokens look is not known. Supported: {self.architecture}"
            )
        size = prepared_view(self.image_processor, Canvas.of((1000, 1000))).wh[0]
        return Tower(str(vision.model_type), size, int(self.fields.step), 0)

    def tile(self, kind: TileKind, canvas: Canvas) -> Tile:
        """Cells round the middles of fields; of several fields where the tower's tokens are averaged in squares."""
        mean = self.tower.side // self.side
        return self.fields.then(mean, mean, 0).tile(kind, canvas, (self.side, self.side))


def _halved(*convolutions: tuple[int, int, int]) -> Fields:
    """Pixels after (times, kernel, padding) of convolutions with stride 2."""
    fields = Fields.of_patches(1)
    for times, kernel, padding in convolutions:
        for _ in range(times):
            fields = fields.then(kernel, 2, padding)
    return fields


@register(
    FamilySpec(
        name="fast_vlm",
        model_types=("fast_vlm",),
        processors=("LlavaProcessor",),
        image_processors=("CLIPImageProcessor", "LlavaImageProcessor"),
        towers=("timm_wrapper",),
        geometry=("base: shortest side resized and centre crop, as the processor says", _GOT_OCR.geometry[-1]),
        prompt="<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n",
        notes="The tower has layers of attention and wide convolutions: what a token knows is not only of its cell.",
    )
)
class FastVlm(TimmTower):
    """FastVLM: a convolutional tower that halves its grid six times, padded alike on both sides."""

    architecture = "fastvit_mci3"
    fields = _halved((2, 3, 1), (4, 7, 3))

    def find_written(self) -> int:
        """By the processor's own count."""
        processor = self.processor
        dropped = processor.vision_feature_select_strategy == "default"
        return (self.tower.image_size // int(processor.patch_size)) ** 2 + (
            int(processor.num_additional_image_tokens) - dropped
        )


@register(
    FamilySpec(
        name="gemma3n",
        model_types=("gemma3n",),
        processors=("Gemma3nProcessor",),
        image_processors=("SiglipImageProcessor",),
        towers=("gemma3n_vision",),
        geometry=(STRETCHED, "a cell is the mean of squares of tokens", _GOT_OCR.geometry[-1]),
        prompt="<start_of_turn>user\n{images}{question}<end_of_turn>\n<start_of_turn>model\n",
        after_image="",
        notes="Pictures only, no sound. The tower has layers of attention and wide convolutions: what a token knows is "
        "not only of its cell.",
    )
)
class Gemma3n(TimmTower):
    """Gemma 3n: a convolutional tower, padded at the end of every side, whose tokens are averaged in squares."""

    architecture = "mobilenetv5_300m_enc"
    fields = _halved((2, 3, 0), (2, 5, 1))

    def find_side(self) -> int:
        """Of the averaged squares."""
        tokens = int(self.config.vision_soft_tokens_per_image)
        side = math.isqrt(tokens)
        if side**2 != tokens or self.tower.side % side or self.tower.image_size % self.tower.patch_size:
            raise LayoutError(
                f"vision_soft_tokens_per_image must be a square whose side divides the {self.tower.side} tokens that"
                f" the tower makes of {self.tower.image_size} pixels, got {tokens}"
            )
        return side
