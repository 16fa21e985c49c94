"""Families whose encoder reads pictures and prompt, and whose decoder looks at both by cross attention."""

from __future__ import annotations

from typing import Any

from vlmattn.adapters.adapter import check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.convolved import Fields
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.preprocess import fixed_view
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.seq2seq import EncoderDecoder
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.zoo.fixed_views import STRETCHED
from vlmattn.adapters.zoo.gemma import Gemma3
from vlmattn.core.errors import PromptError
from vlmattn.core.layout import ImageLayout


@register(
    FamilySpec(
        name="florence2",
        model_types=("florence2",),
        processors=("Florence2Processor",),
        image_processors=("CLIPImageProcessor",),
        towers=("florence_vision",),
        geometry=("base: stretched to a square; its grid is shrunk by convolutions that overlap",),
        max_images=1,
        prompt="{images}{question}",
        after_image="",
        notes="One picture per prompt. Rows are those of the decoder's cross attention; the question is read by the "
        "encoder and has none. A task token such as <CAPTION> is written out as the processor does.",
    )
)
class Florence2(EncoderDecoder):
    """Florence-2: a token for the mean of the picture, then its grid."""

    nested = False

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        vision = self.config.vision_config
        self.fields = Fields.of_patches(1)
        for kernel, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
            self.fields = self.fields.then(kernel, stride, padding)
        view = self._view((1, 1))
        rows, cols = self._grid_hw(view)
        check_agreement(self, "image_seq_length", processor.num_image_tokens, rows * cols + 1)

    def find_tower(self) -> Tower:
        """A tower of convolutions and windows; its input follows the image processor."""
        vision = self.config.vision_config
        step = 1
        for stride in vision.patch_stride:
            step *= int(stride)
        return Tower(str(vision.model_type), 0, step, 1)

    def find_tokens(self) -> tuple[str, str]:
        """The processor itself puts the picture first."""
        return str(self.processor.image_token), str(self.processor.image_token)

    def completed(self, rendered: Rendered) -> Rendered:
        """With what the processor writes round the prompt, its task written out."""
        if not rendered.text.startswith(self.placeholder):
            raise PromptError(f"{self.spec.name} sees its picture before the prompt: put {self.placeholder} first")
        cut = len(self.placeholder)
        before, after = str(self.tokenizer.bos_token), str(self.tokenizer.eos_token)
        start, end = (at + len(before) for at in rendered.question_span)
        said = self.processor._construct_prompts(rendered.text[cut:])[0]
        if said != rendered.text[cut:]:
            start, end = cut + len(before), cut + len(before) + len(said)
        return Rendered(f"{self.placeholder}{before}{said}{after}", (start, end))

    def given(self, text: str) -> str:
        """Without it: the processor writes it itself."""
        before = len(self.placeholder) + len(str(self.tokenizer.bos_token))
        return text[before : -len(str(self.tokenizer.eos_token))]

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """A token without a place, and the grid row by row."""
        view = self._view(image_wh)
        tile = self.fields.tile("base", view, self._grid_hw(view))
        width, height = view.wh
        return ImagePlan(
            ImageLayout(image_wh, (tile,), 1), places([nowhere(1), raster(0, tile.grid_hw)]), (height, width), 1
        )

    def _view(self, image_wh: tuple[int, int]) -> Canvas:
        return fixed_view(self.image_processor, image_wh, pads_to_square=False)

    def _grid_hw(self, view: Canvas) -> tuple[int, int]:
        vision = self.config.vision_config
        sizes = list(view.wh[::-1])
        for kernel, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
            sizes = [(size + 2 * padding - kernel) // stride + 1 for size in sizes]
        return sizes[0], sizes[1]


@register(
    FamilySpec(
        name="t5gemma2",
        model_types=("t5gemma2",),
        processors=("Gemma3Processor",),
        image_processors=("Gemma3ImageProcessor",),
        towers=("siglip_vision_model",),
        geometry=(STRETCHED, "crop: with pan and scan, strips of the picture, each stretched to a square"),
        prompt="{images}{question}",
        after_image="",
        notes="Rows are those of the decoder, whose layers look at its own tokens and at what the encoder read in one; "
        "the question is read by the encoder and has none.",
    )
)
class T5Gemma2(EncoderDecoder, Gemma3):
    """T5Gemma 2: Gemma 3's pictures in an encoder."""

    def find_config(self) -> Any:
        """That of the encoder."""
        return self.model.config.encoder

    def text_encoder(self) -> Any:
        """Pictures are put among words inside the encoder."""
        return self.model.get_encoder().text_model
