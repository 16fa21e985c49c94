"""Families that stretch every view of a picture to one square, which becomes one square grid of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, places, raster
from vlmattn.adapters.preprocess import prepared_view
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.core.errors import ImageError, LayoutError, PromptError
from vlmattn.core.layout import ImageLayout, Tile, TileKind

if TYPE_CHECKING:
    from PIL.Image import Image

View = tuple[TileKind, Canvas]


class FixedViews(Adapter):
    """One view or more per picture, each a square grid of :meth:`find_side` cells a side."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.side = self.find_side()
        check_agreement(self, "image_seq_length", self.find_written(), self.side**2)

    def find_side(self) -> int:
        """Rows, and columns, of a view's grid. Here: the patches of the tower."""
        return self.tower.side

    def find_written(self) -> int:
        """Image tokens that the processor writes for a view."""
        return int(self.processor.image_seq_length)

    def views(self, canvas: Canvas) -> list[View]:
        """The parts of a picture that the tower sees, in the order of their tokens. Here: the whole."""
        return [("base", canvas)]

    def tile(self, kind: TileKind, canvas: Canvas) -> Tile:
        """The grid of a view that has the tower's size. Here: its cells divide the patches evenly."""
        box = canvas.grid(self.tower.patch_size)[1]
        return Tile(kind, (self.side, self.side), box)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """One tile per view, row by row."""
        views = [(kind, self._sized(canvas, image_wh)) for kind, canvas in self.views(Canvas.of(image_wh))]
        tiles = tuple(self.tile(kind, canvas) for kind, canvas in views)
        place = places([raster(index, tile.grid_hw) for index, tile in enumerate(tiles)])
        return ImagePlan(ImageLayout(image_wh, tiles, len(tiles)), place, (self.tower.image_size,) * 2, len(tiles))

    def _sized(self, canvas: Canvas, image_wh: tuple[int, int]) -> Canvas:
        side = self.tower.image_size
        view = prepared_view(self.image_processor, canvas)
        if view.wh != (side, side):
            raise LayoutError(
                f"a picture of {image_wh[0]} x {image_wh[1]} is prepared as {view.wh[0]} x {view.wh[1]} pixels, but the"
                f" vision tower takes {side} x {side}: check the image processor's size"
            )
        return view


_STRETCHED = "base: stretched to a square"


@register(
    FamilySpec(
        name="paligemma",
        model_types=("paligemma",),
        processors=("PaliGemmaProcessor",),
        image_processors=("SiglipImageProcessor",),
        towers=("siglip_vision_model",),
        geometry=(_STRETCHED,),
        prompt="{images}{question}",
        after_image="",
        notes="PaliGemma and PaliGemma 2. All tokens of the prompt see each other, also those after them. The processor "
        "itself writes the bos token after the last picture and a line break at the end.",
    )
)
class PaliGemma(FixedViews):
    """PaliGemma: pictures first, then the bos token, the question and a line break."""

    one_by_one = True  # it makes labels, which prompts of different lengths do not allow
    drops = ("labels",)
    answer_types = {"token_type_ids": 1}

    def completed(self, rendered: Rendered) -> Rendered:
        """With the bos token after the last picture and a line break at the end."""
        cut, bos = self._cut(rendered.text), str(self.tokenizer.bos_token)
        text = f"{rendered.text[:cut]}{bos}{rendered.text[cut:]}\n"
        shift = [len(bos) if place >= cut else 0 for place in rendered.question_span]
        start, end = rendered.question_span
        return Rendered(text, (start + shift[0], end + shift[1]))

    def given(self, text: str) -> str:
        """Without them: the processor writes them itself."""
        cut = self._cut(text)
        return text[:cut] + text[cut + len(str(self.tokenizer.bos_token)) : -1]

    def _cut(self, text: str) -> int:
        found = text.rfind(self.placeholder)
        if found < 0:
            raise PromptError(f"{self.spec.name} takes no prompt without a picture")
        return found + len(self.placeholder)


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
        if not self._setting("do_pan_and_scan"):
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
        options = {f"pan_and_scan_{name}": self._setting(f"pan_and_scan_{name}") for name in names}
        width, height = image_wh
        if hasattr(self.image_processor, "pan_and_scan_batched"):
            import torch

            blank = torch.empty((1, 1, height, width), device="meta")
            return cast(Sequence[Any], self.image_processor.pan_and_scan_batched(blank, **options))
        import numpy as np

        return cast(
            Sequence[Any], self.image_processor.pan_and_scan(np.broadcast_to(np.uint8(0), (3, height, width)), **options)
        )

    def _setting(self, name: str) -> Any:
        """What the processor tells its image processor comes before what the latter says itself."""
        told = getattr(self.processor, "images_kwargs", {})
        return told[name] if name in told else getattr(self.image_processor, name, None)


_GEMMA3 = FamilySpec(
    name="gemma3",
    model_types=("gemma3",),
    processors=("Gemma3Processor",),
    image_processors=("Gemma3ImageProcessor",),
    towers=("siglip_vision_model",),
    geometry=(_STRETCHED, "crop: with pan and scan, strips of the picture, each stretched to a square"),
    prompt="<start_of_turn>user\n{images}{question}<end_of_turn>\n<start_of_turn>model\n",
    after_image="",
    notes="Tokens of a picture see each other, also those after them. Pan and scan runs where the processor's "
    "images_kwargs say so.",
)
register(_GEMMA3)(Gemma3)
