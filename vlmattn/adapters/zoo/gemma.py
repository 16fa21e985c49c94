"""The Gemma 3 models: soft tokens of a fixed number per view."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.processing import UNPADDED
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.zoo.fixed_views import STRETCHED, FixedViews, View
from vlmattn.core.errors import ImageError, LayoutError

if TYPE_CHECKING:
    from PIL.Image import Image


class Gemma3(FixedViews):
    """Gemma 3: patches are averaged in squares; with pan and scan, crops of the picture follow the whole."""

    def find_tokens(self) -> tuple[str, str]:
        """A prompt holds the token that begins a picture, the processor writes image tokens after it."""
        return str(self.processor.boi_token), str(self.tokenizer.image_token)

    def find_side(self) -> int:
        """Of the averaged squares."""
        side = math.isqrt(int(self.config.mm_tokens_per_image))
        if side**2 != self.config.mm_tokens_per_image or self.tower.side % side:
            raise LayoutError(
                f"mm_tokens_per_image must be a square whose side divides the {self.tower.side} patches of the vision"
                f" tower, got {self.config.mm_tokens_per_image}"
            )
        return side

    def views(self, canvas: Canvas) -> list[View]:
        """The whole, then its crops from left to right or from top to bottom."""
        crops: list[View] = [("crop", canvas.window(*box)) for box in self._crops(canvas.wh)]
        return [("base", canvas), *crops]

    def _crops(self, image_wh: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Left, top, width and height of each crop, by the image processor's own rule."""
        if not self.setting("do_pan_and_scan"):
            return []
        shapes = [p.shape[-2:] for p in self._cut_up(image_wh)]
        if any(0 in shape for shape in shapes):
            raise ImageError(f"pan and scan leaves nothing for one of {len(shapes)} crops: raise its min_crop_size")
        across = image_wh[0] >= image_wh[1]
        boxes, start = [], 0
        for height, width in shapes:
            boxes.append((start if across else 0, 0 if across else start, int(width), int(height)))
            start += int(width if across else height)
        return boxes

    def _cut_up(self, image_wh: tuple[int, int]) -> Sequence[Any]:
        names = ("min_crop_size", "max_num_crops", "min_ratio_to_activate")
        options = {f"pan_and_scan_{name}": self.setting(f"pan_and_scan_{name}") for name in names}
        width, height = image_wh
        if hasattr(self.image_processor, "pan_and_scan_batched"):
            import torch

            blank = torch.empty((1, 1, height, width), device="meta")
            return cast(Sequence[Any], self.image_processor.pan_and_scan_batched(blank, **options))
        import numpy as np

        return cast(
            Sequence[Any],
            self.image_processor.pan_and_scan(np.broadcast_to(np.uint8(0), (3, height, width)), **options),
        )


_GEMMA3 = FamilySpec(
    name="gemma3",
    model_types=("gemma3",),
    processors=("Gemma3Processor",),
    image_processors=("Gemma3ImageProcessor",),
    towers=("siglip_vision_model",),
    geometry=(STRETCHED, "crop: with pan and scan, strips of the picture, each stretched to a square"),
    prompt="<start_of_turn>user\n{images}{question}<end_of_turn>\n<start_of_turn>model\n",
    after_image="",
    notes="Tokens of a picture see each other, also those after them. Pan and scan runs where the processor's "
    "images_kwargs say so.",
)
register(_GEMMA3)(Gemma3)


@register(
    FamilySpec(
        name="shieldgemma2",
        model_types=("shieldgemma2",),
        processors=("ShieldGemma2Processor",),
        image_processors=("Gemma3ImageProcessor",),
        towers=("siglip_vision_model",),
        geometry=(STRETCHED,),
        notes="The question is the policy that the picture is checked against; the answer is Yes or No. The model is "
        "loaded as one that writes (Gemma3ForConditionalGeneration).",
    )
)
class ShieldGemma2(Gemma3):
    """ShieldGemma 2: Gemma 3 whose processor would write a prompt of its own for every policy."""

    needs_picture = True

    def prepared(
        self, groups: Sequence[Sequence[Image]], texts: list[str], *, add_special_tokens: bool
    ) -> Mapping[str, Any]:
        """As other processors prepare a rendered prompt."""
        from transformers import ProcessorMixin

        output = dict(
            ProcessorMixin.__call__(
                self.processor,
                images=[list(g) for g in groups],
                text=texts,
                **UNPADDED,
                add_special_tokens=add_special_tokens,
            )
        )
        return output | {"token_type_ids": output.pop("mm_token_type_ids")}
