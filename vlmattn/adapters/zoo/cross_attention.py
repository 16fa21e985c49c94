"""Families whose language model looks at pictures by cross attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import check_agreement
from vlmattn.adapters.beside import Beside
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.encoded import Encoded
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.preprocess import told_size
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tiling import cut, plan_views, rule_of
from vlmattn.adapters.tower import Tower, one_side
from vlmattn.core.layout import TokenLayout


@register(
    FamilySpec(
        name="mllama",
        model_types=("mllama",),
        processors=("MllamaProcessor",),
        image_processors=("MllamaImageProcessor",),
        towers=("mllama_vision_model",),
        geometry=("tiles: the picture shrunk or enlarged to fit rows x cols squares, padded at right and bottom",),
        prompt=(
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{images}{question}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        after_image="",
        notes="Llama 3.2 Vision. Only its cross attention layers look at pictures; maps leave the others out. Text "
        "between two pictures sees the first of them, text after both the second only. Prompts with different numbers "
        "of pictures are run one after the other: in one batch the model's own answers would differ.",
        mixed_batches=False,
    )
)
class Mllama(Beside):
    """Llama 3.2 Vision: every tile is a class token and its patches; unused tiles are masked keys."""

    rows_of_tokens = ("cross_attention_mask",)

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.tiles = int(self.config.vision_config.max_num_tiles)
        check_agreement(self, "max_image_tiles", self.image_processor.max_image_tiles, self.tiles)
        for side in ("height", "width"):
            told = told_size(self.image_processor.size, side)
            check_agreement(self, f"image size ({side})", told, self.tower.image_size)

    def find_tower(self) -> Tower:
        """A class token before the patches of each tile."""
        vision = self.config.vision_config
        sizes = one_side(vision.image_size, "image_size"), one_side(vision.patch_size, "patch_size")
        return Tower(str(vision.model_type), *sizes, 1)

    def completed(self, rendered: Rendered) -> Rendered:
        """With the bos token, which the processor writes where there is none."""
        bos = str(self.tokenizer.bos_token)
        if bos in rendered.text:
            return rendered
        start, end = (at + len(bos) for at in rendered.question_span)
        return Rendered(bos + rendered.text, (start, end))

    def call_processor(self, **options: Any) -> Mapping[str, Any]:
        """It writes nothing in place of pictures, so it is not asked where."""
        return super().call_processor(**{k: v for k, v in options.items() if k != "return_text_replacement_offsets"})

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The tiles' grids one after the other, then keys without a place for tiles that the picture does not need."""
        side, patch = self.tower.image_size, self.tower.patch_size
        width, height = image_wh
        canvas_of = rule_of(self.image_processor, "get_optimal_tiled_canvas")
        canvas_h, canvas_w = (int(n) for n in canvas_of(height, width, self.tiles, side))
        fit = rule_of(self.image_processor, "get_image_size_fit_to_canvas")
        new_h, new_w = (int(n) for n in fit(height, width, canvas_h, canvas_w, side))
        canvas = Canvas.of(image_wh).resized(new_w, new_h).window(0, 0, canvas_w, canvas_h)
        plan = plan_views(image_wh, cut(canvas, (canvas_h // side, canvas_w // side), (side, side)), patch)
        cells = self.tower.side**2
        parts = [p for i, t in enumerate(plan.layout.tiles) for p in (nowhere(1), raster(i, t.grid_hw))]
        unused = nowhere((self.tiles - len(plan.layout.tiles)) * (cells + 1))
        return ImagePlan(replace(plan.layout, views=1), places([*parts, unused]), plan.view_hw, 1)

    def keys(
        self, plans: Sequence[ImagePlan], outputs: Mapping[str, Any], index: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """All prompts of a batch have as many keys as the one with most pictures."""
        place, image = super().keys(plans, outputs, index)
        most = np.asarray(outputs["cross_attention_mask"][index]).shape[1]
        empty = (most - len(plans)) * len(plans[0])
        return places([place, nowhere(empty)]), np.pad(image, (0, empty), constant_values=-1)

    def language_inputs(self, given: Mapping[str, Any]) -> Any:
        """States of the vision tower, then the embeddings of the words."""
        import torch

        words = self.model.get_input_embeddings()(given["input_ids"])
        states = given["cross_attention_states"]
        return torch.cat([states.reshape(words.shape[0], -1, words.shape[2]), words], dim=1)

    def _encoded(
        self, outputs: Mapping[str, Any], layouts: list[TokenLayout], groups: Any, plans: list[ImagePlan]
    ) -> Encoded:
        encoded = super()._encoded(outputs, layouts, groups, plans)
        told = encoded.inputs["cross_attention_mask"]
        seen = told.new_zeros((told.shape[0], encoded.inputs["input_ids"].shape[1], *told.shape[2:]))
        for line, (layout, pad) in enumerate(zip(layouts, encoded.pad_left, strict=True)):
            count = len(layout) - layout.memory
            seen[line, pad : pad + count] = told[line, :count]
        return replace(encoded, inputs=encoded.inputs | {"cross_attention_mask": seen})
