"""Families whose encoder reads nothing but the picture, and whose decoder reads the prompt and looks at its patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import check_agreement
from vlmattn.adapters.beside import Beside
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.encoded import Encoded, pad_id_of, right_padded
from vlmattn.adapters.messages import Prompt
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.preprocess import crop_offset, resized_wh, told_size
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower, one_side
from vlmattn.core.errors import LayoutError, PromptError, UnsupportedModel
from vlmattn.core.layout import ImageLayout, Tile, TokenLayout
from vlmattn.core.tower_cells import TowerCells


class PageReader(Beside):
    """The patches are the keys of the decoder's cross attention; the prompt is what the decoder begins with.

    Nothing stands for the picture in the prompt that the model reads; in the one that users write, ``<image>`` does.
    """

    nested = False
    answers_apart = True

    def find_tokens(self) -> tuple[str, str]:
        """A mark of our own, which is taken out again."""
        return "<image>", "<image>"

    def given(self, text: str) -> str:
        """Without the mark."""
        if not text.startswith(self.placeholder):
            raise PromptError(f"{self.spec.name} sees its picture before the prompt: put {self.placeholder} first")
        return text[len(self.placeholder) :]

    def written(self, plan: ImagePlan) -> int:
        """None."""
        return 0

    def image_tokens(self, ids: NDArray[np.int64], outputs: Mapping[str, Any], index: int) -> NDArray[np.bool_]:
        """None."""
        return np.zeros(len(ids), dtype=np.bool_)

    def spans(self, rendered: Rendered, outputs: Mapping[str, Any], index: int) -> NDArray[np.int64]:
        """Behind the mark."""
        offsets = super().spans(rendered, outputs, index)
        return offsets + len(self.placeholder) * (offsets[:, 1:] > offsets[:, :1])

    def states_seen(self, inputs: Mapping[str, Any]) -> Any:
        """What the encoder gives, then nothing for what the decoder reads."""
        import torch

        words = inputs["decoder_input_ids"].shape[1]
        read = {name: value for name, value in inputs.items() if not name.startswith("decoder_")}
        with torch.no_grad():
            states = self.model.get_encoder()(**read, return_dict=True).last_hidden_state
        return torch.nn.functional.pad(states, (0, 0, 0, words))

    @property
    def max_tokens(self) -> int | None:
        """Positions that the decoder knows; None if its configuration does not say."""
        limit = getattr(self.config.decoder, "max_position_embeddings", None)
        return int(limit) if limit else None

    def find_image_token_id(self) -> int:
        """None: the decoder's prompt has no place for pictures."""
        return -1

    def _encoded(
        self, outputs: Mapping[str, Any], layouts: list[TokenLayout], groups: Any, plans: list[ImagePlan]
    ) -> Encoded:
        encoded = super()._encoded(outputs, layouts, groups, plans)
        inputs = {name: value for name, value in encoded.inputs.items() if name not in ("input_ids", "attention_mask")}
        rows = [layout.input_ids[layout.memory :] for layout in layouts]
        inputs["decoder_input_ids"] = right_padded(rows, pad_id_of(self.tokenizer))
        return replace(encoded, inputs=inputs, pad_left=(0,) * len(layouts))


@register(
    FamilySpec(
        name="donut",
        model_types=("vision-encoder-decoder",),
        processors=("DonutProcessor",),
        image_processors=("DonutImageProcessor",),
        towers=(),
        geometry=("base: the page shrunk or enlarged to fit the model's size, and padded around it",),
        max_images=1,
        prompt="{images}<s_docvqa><s_question>{question}</s_question><s_answer>",
        after_image="",
        notes="Donut. Rows are those of the decoder's cross attention, words of the question included. A checkpoint "
        "made for another task than questions takes its task token as a raw prompt, such as <image><s_cord-v2>. "
        "Prompts are run one after the other: the decoder counts padding as positions. Other encoders than Swin, "
        "TrOCR's among them, are refused with the reason.",
        batches=False,
    )
)
class Donut(PageReader):
    """Donut: a Swin encoder, each of whose last patches is a square of pixels, and an mBART decoder."""

    drops = ("labels",)
    image_tensors = True

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        if getattr(self.image_processor, "do_align_long_axis", False):
            raise LayoutError("the image processor turns pictures by 90 degrees: set do_align_long_axis=False")
        check_agreement(self, "do_center_crop", bool(getattr(self.image_processor, "do_center_crop", False)), False)
        wh = self._view((100, 100)).wh
        check_agreement(self, "image size (height, width)", wh[::-1], tuple(self.config.encoder.image_size))
        if any(side % self.tower.patch_size for side in wh):
            raise LayoutError(
                f"the encoder makes patches of {self.tower.patch_size} pixels, and pictures of {wh[0]} x {wh[1]} pixels"
                " are no whole number of them: set the image processor's size to multiples"
            )

    def find_tower(self) -> Tower:
        """Patches as they are after every stage has put 2 x 2 into one."""
        encoder, decoder = self.config.encoder, self.config.decoder
        if encoder.model_type != "donut-swin":
            trocr = ": its decoder computes attention past transformers' dispatch, so its rows cannot be seen"
            raise UnsupportedModel(
                f"vision-encoder-decoder with encoder {encoder.model_type!r} and decoder {decoder.model_type!r} is not "
                f"supported{trocr if decoder.model_type == 'trocr' else '; donut-swin (Donut) is'}"
            )
        step = one_side(encoder.patch_size, "patch_size") * 2 ** (len(encoder.depths) - 1)
        return Tower(str(encoder.model_type), 0, step, 0)

    def call_processor(self, **options: Any) -> Mapping[str, Any]:
        """It writes nothing in place of pictures, so it is not asked where; the prompt is all that the decoder gets."""
        asked = {k: v for k, v in options.items() if k != "return_text_replacement_offsets"}
        return super().call_processor(**asked | {"add_special_tokens": False})

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The patches row by row."""
        view = self._view(image_wh)
        grid_hw, box = view.grid(self.tower.patch_size)
        layout = ImageLayout(image_wh, (Tile("base", grid_hw, box),), 1)
        return ImagePlan(layout, raster(0, grid_hw), view.wh[::-1], 1)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """Patches of the first layers are many to a cell, those of the last one: not one order for all."""
        raise UnsupportedModel("the patches of a Swin tower change from stage to stage, so they cannot be followed")

    def _view(self, image_wh: tuple[int, int]) -> Canvas:
        prepares, canvas = self.image_processor, Canvas.of(image_wh)
        width, height = (told_size(prepares.size, side) for side in ("width", "height"))
        if prepares.do_resize:
            canvas = canvas.resized(*resized_wh(canvas.wh, {"shortest_edge": min(width, height)}))
        if prepares.do_thumbnail:
            canvas = canvas.resized(*_fitted(canvas.wh, (width, height)))
        if prepares.do_pad:
            offset = [crop_offset(own, side, floor=False) for own, side in zip(canvas.wh, (width, height), strict=True)]
            canvas = canvas.window(offset[0], offset[1], width, height)
        return canvas

    def _rendered(
        self, prompt: Prompt, kinds: Sequence[str], system: str | None, raw: bool, question: str | None
    ) -> Rendered:
        known = self.tokenizer.get_added_vocab()
        if not raw and "<s_docvqa>" not in known:
            tasks = ", ".join(t for t in known if t.startswith("<s_")) or "none"
            raise PromptError(
                f"this checkpoint of {self.spec.name} takes no questions (it has no token <s_docvqa>): give its task "
                f"token as a raw prompt, as in raw=True and '<image><s_cord-v2>'; it has {tasks}"
            )
        return super()._rendered(prompt, kinds, system, raw, question)


def _fitted(wh: tuple[int, int], most: tuple[int, int]) -> tuple[int, int]:
    """Shrunk to fit, the longer side first, as the processor counts."""
    width, height = (min(own, side) for own, side in zip(wh, most, strict=True))
    if (width, height) == wh:
        return wh
    if wh[1] > wh[0]:
        width = int(wh[0] * height / wh[1])
    elif wh[0] > wh[1]:
        height = int(wh[1] * width / wh[0])
    return width, height
