"""Families that write a picture in codes: a tokenizer gives each cell an entry of a code book, embedded like a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.messages import Prompt
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.preprocess import fixed_view
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.tower_cells import unknown
from vlmattn.adapters.zoo.pixtral_grid import SizedGrid
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.tower_cells import TowerCells

if TYPE_CHECKING:
    from PIL.Image import Image

_SEES_MORE = (
    "A code also depends on what lies around its cell, as far as the tokenizer's convolutions and attention reach."
)


def _halvings(tokenizer: Any) -> int:
    """Side in pixels of a cell: the tokenizer of pictures halves its input before every stage but the first."""
    return int(2 ** (len(tokenizer.channel_multiplier) - 1))


@register(
    FamilySpec(
        name="chameleon",
        model_types=("chameleon",),
        processors=("ChameleonProcessor",),
        image_processors=("ChameleonImageProcessor",),
        towers=(),
        geometry=("base: shortest side resized and centre crop, as the processor says",),
        prompt="{images}{question}",
        notes=f"The model does not see the ends of long pictures. {_SEES_MORE}",
    )
)
class Chameleon(Adapter):
    """One view of fixed size per picture, a code per cell."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        canvas = fixed_view(self.image_processor, (64, 64), pads_to_square=False)
        grid_hw, _ = canvas.grid(self.tower.patch_size)
        check_agreement(self, "image_seq_length", int(processor.image_seq_length), grid_hw[0] * grid_hw[1])

    def find_tower(self) -> Tower:
        """The tokenizer of pictures."""
        tokenizer = self.config.vq_config
        return Tower(str(tokenizer.model_type), 0, _halvings(tokenizer), 0)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """One base tile, row by row."""
        canvas = fixed_view(self.image_processor, image_wh, pads_to_square=False)
        grid_hw, box = canvas.grid(self.tower.patch_size)
        layout = ImageLayout(image_wh, (Tile("base", grid_hw, box),), 1)
        return ImagePlan(layout, raster(0, grid_hw), (canvas.wh[1], canvas.wh[0]), 1)


class CodedGrid(SizedGrid):
    """One view near the picture's own shape, a code per cell."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.cell = self.tower.patch_size
        check_agreement(self, "spatial_factor", int(self.image_processor.spatial_factor), self.cell)
        ratio = getattr(processor, "downsample_ratio", self.cell)
        check_agreement(self, "downsample_ratio", int(ratio), self.cell)
        if not getattr(self.image_processor, "do_pad", True):
            raise LayoutError("the image processor must have do_pad=True: pictures of one batch differ in size")

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """Not known: a tokenizer of pictures, not a tower of layers, reads them."""
        raise unknown(self, "a tokenizer of pictures reads them, whose attention is not on cells")

    def find_tower(self) -> Tower:
        """The tokenizer of pictures."""
        tokenizer = getattr(self.config, "vq_config", None) or self.config.vision_config
        return Tower(str(tokenizer.model_type), 0, _halvings(tokenizer), 0)


@register(
    FamilySpec(
        name="emu3",
        model_types=("emu3",),
        processors=("Emu3Processor",),
        image_processors=("Emu3ImageProcessor",),
        towers=(),
        geometry=("base: stretched to whole cells near its own shape",),
        prompt="USER: {images}{question} ASSISTANT:",
        notes=f"Its size is written before a picture, and a token ends every row. {_SEES_MORE} Prompts are run one at a"
        " time: in a batch, padding to the largest picture changes the others' codes.",
        batches=False,
    )
)
class Emu3(CodedGrid):
    """The processor writes the token that begins a prompt before every text: it is part of the prompt here."""

    row_ends = True

    def _rendered(
        self, prompt: Prompt, kinds: Sequence[str], system: str | None, raw: bool, question: str | None
    ) -> Rendered:
        rendered, bos = super()._rendered(prompt, kinds, system, raw, question), str(self.tokenizer.bos_token)
        if rendered.text.startswith(bos):
            return rendered
        start, end = rendered.question_span
        return replace(rendered, text=bos + rendered.text, question_span=(start + len(bos), end + len(bos)))

    def _processed(self, groups: Sequence[Sequence[Image]], texts: list[str]) -> Mapping[str, Any]:
        bos = str(self.tokenizer.bos_token)
        return super()._processed(groups, [text.removeprefix(bos) for text in texts])


register(
    FamilySpec(
        name="apertus1p5",
        model_types=("apertus1p5",),
        processors=("Apertus1p5Processor",),
        image_processors=("Apertus1p5ImageProcessor",),
        towers=("apertus1p5_vision_tokenizer",),
        geometry=("base: stretched to whole cells near its own shape",),
        prompt="<|user_start|>{images}{question}<|user_end|><|assistant_start|>",
        notes=f"Its size is written before a picture, and a token stands between rows. {_SEES_MORE}",
    )
)(CodedGrid)
