"""Families that stretch every view of a picture to one square, which becomes one square grid of tokens."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, places, raster
from vlmattn.adapters.preprocess import check_prepared, prepared_view
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.core.layout import ImageLayout, Tile, TileKind

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
        return check_prepared(prepared_view(self.image_processor, canvas), image_wh, self.tower.image_size)


STRETCHED = "base: stretched to a square"


@register(
    FamilySpec(
        name="paligemma",
        model_types=("paligemma",),
        processors=("PaliGemmaProcessor",),
        image_processors=("SiglipImageProcessor",),
        towers=("siglip_vision_model",),
        geometry=(STRETCHED,),
        prompt="{images}{question}",
        after_image="",
        notes="PaliGemma and PaliGemma 2. All tokens of the prompt see each other, also those after them. The "
        "processor itself writes the bos token after the last picture and a line break at the end.",
    )
)
class PaliGemma(FixedViews):
    """PaliGemma: pictures first, then the bos token, the question and a line break."""

    needs_picture = True
    one_by_one = True  # it makes labels, which prompts of different lengths do not allow
    drops = ("labels",)
    answer_types = MappingProxyType({"token_type_ids": 1})

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
        return text.rfind(self.placeholder) + len(self.placeholder)
