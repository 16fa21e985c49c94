"""Families whose tiles are cut from a picture that keeps its shape and is padded at the right and bottom."""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from vlmattn.adapters.adapter import check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tiling import View, cut, rule_of, whole
from vlmattn.adapters.zoo.tiles import Tiles
from vlmattn.core.errors import UnsupportedModel


@register(
    FamilySpec(
        name="llama4",
        model_types=("llama4",),
        processors=("Llama4Processor",),
        image_processors=("Llama4ImageProcessor",),
        towers=("llama4_vision_model",),
        geometry=(
            "tiles: the picture fitted into rows x cols squares without distortion, padded at the right and bottom",
            "thumbnail: the whole picture stretched to a square, after its tiles",
        ),
        prompt="<|header_start|>user<|header_end|>\n\n{images}{question}<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
        notes="Its image processor computes in bfloat16. Releases of transformers that cannot run the model themselves "
        "(5.23 and 5.24: its output has no field 'image_outputs') are refused, with the way out.",
    )
)
class Llama4(Tiles):
    """Llama 4."""

    merge_at = "vision_config.pixel_shuffle_ratio"
    image_tensors = True

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        _check_runs(model)
        check_agreement(self, "patch_size", processor.patch_size, self.tower.patch_size)
        check_agreement(self, "pixel_shuffle_ratio (patches per token)", processor.downsample_ratio, self.merge**2)

    def find_tokens(self) -> tuple[str, str]:
        """A placeholder stands for all patches."""
        return str(self.processor.image_token), str(self.processor.img_patch_token)

    def views(self, image_wh: tuple[int, int]) -> list[View]:
        """Tiles of the canvas that the picture fits best, then the whole picture if there are several."""
        image_hw = (image_wh[1], image_wh[0])
        canvas_hw = self._canvas_hw(image_hw)
        height, width = self._fitted_hw(image_hw, canvas_hw)
        canvas = Canvas.of(image_wh).resized(width, height).window(0, 0, canvas_hw[1], canvas_hw[0])
        tiles_hw = (canvas_hw[0] // self.side, canvas_hw[1] // self.side)
        tiles = cut(canvas, tiles_hw, (self.side, self.side))
        if len(tiles) == 1:
            return [View("base", canvas)]
        return [*tiles, whole(image_wh, self.side, "thumbnail")]

    def _canvas_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        import torch

        images = self.image_processor
        canvases = rule_of(images, "find_supported_resolutions")(
            max_num_chunks=images.max_patches, patch_size=images.size
        )
        best = rule_of(images, "get_best_fit")(
            image_hw, torch.tensor(canvases), resize_to_max_canvas=images.resize_to_max_canvas
        )
        return int(best[0]), int(best[1])

    def _fitted_hw(self, image_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the picture on its canvas; it grows no further than to one tile, unless set to."""
        room = canvas_hw
        if not self.image_processor.resize_to_max_canvas:
            room = min(max(image_hw[0], self.side), room[0]), min(max(image_hw[1], self.side), room[1])
        height, width = rule_of(self.image_processor, "get_max_res_without_distortion")(image_hw, room)
        return max(int(height), 1), max(int(width), 1)

    def tensors(self, pixels: dict[str, Any]) -> dict[str, Any]:
        """The pixels in the model's own type, which the tower does not turn them to by itself."""
        made = super().tensors(pixels)
        dtype = getattr(self.model, "dtype", None)
        return {k: v.to(dtype) if dtype is not None and v.is_floating_point() else v for k, v in made.items()}


def _check_runs(model: Any) -> None:
    """Refuse a model whose own forward reads a field that its language model's output does not have.

    A hook on the language model is taken for one that adds it.

    Raises:
        UnsupportedModel: says what to do.
    """
    language_model = getattr(model, "language_model", None)
    if language_model is None or language_model._forward_hooks:
        return
    outputs = [c for c in get_args(get_type_hints(type(language_model).forward)["return"]) if is_dataclass(c)]
    told = any(field.name == "image_outputs" for output in outputs for field in fields(output))
    if told or "outputs.image_outputs" not in inspect.getsource(type(model).forward):
        return
    import transformers

    raise UnsupportedModel(
        f"transformers {transformers.__version__} cannot run Llama 4 itself: {type(model).__name__} reads "
        "'image_outputs' off what its language model gives, which has no such field. Install a version that can, or "
        "add it before the model is handed over: model.language_model.register_forward_hook("
        "lambda module, args, output: setattr(output, 'image_outputs', None))"
    )
