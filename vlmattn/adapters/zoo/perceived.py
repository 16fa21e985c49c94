"""Families whose views of any size are read by a perceiver: a few latents per view stand in the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import check_agreement
from vlmattn.adapters.beside import Resampled
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.preprocess import told_size
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tiling import View, rule_of
from vlmattn.adapters.tower import Tower, one_side
from vlmattn.adapters.tower_cells import cell_count, cell_numbers
from vlmattn.core.errors import ImageError, LayoutError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.tower_cells import TowerCells, TowerView

_SIDES = ("height", "width", "shortest_edge", "longest_edge")
_PROMPT = "User:{images}{question}<end_of_utterance>\nAssistant:"


@register(
    FamilySpec(
        name="idefics2",
        model_types=("idefics2",),
        processors=("Idefics2Processor",),
        image_processors=("Idefics2ImageProcessor",),
        towers=("idefics2_vision",),
        geometry=(
            "crop: quarters of the picture, each resized within limits (with do_image_splitting)",
            "base: the picture resized within limits; seen through latents, so maps are composed of two hops",
        ),
        prompt=_PROMPT,
        after_image="",
        notes="What is left of a view beyond whole patches is not seen.",
    )
)
class Idefics2(Resampled):
    """Idefics2: views of a batch are padded to one size; padding is masked in the resampler."""

    encoder = "model.vision_model"

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.own_keys = int(self.config.perceiver_config.resampler_n_latents)
        check_agreement(self, "image_seq_len", processor.image_seq_len, self.own_keys)
        self.splits = bool(self.setting("do_image_splitting"))

    def find_tower(self) -> Tower:
        """Patches of views whose size follows the picture."""
        vision = self.config.vision_config
        return Tower(str(vision.model_type), 0, one_side(vision.patch_size, "patch_size"), 0)

    def written(self, plan: ImagePlan) -> int:
        """One token per latent of each view."""
        return plan.views * self.own_keys

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The quarters, if the picture is split, then the whole."""
        views = [View(v.kind, self._resized(v.canvas)) for v in self._views(image_wh)]
        tiles = tuple(Tile(v.kind, *v.canvas.grid(self.tower.patch_size)) for v in views)
        place = places([raster(index, tile.grid_hw) for index, tile in enumerate(tiles)])
        most = max(v.canvas.wh[1] for v in views), max(v.canvas.wh[0] for v in views)
        return ImagePlan(ImageLayout(image_wh, tiles, len(views)), place, most, len(views))

    def _views(self, image_wh: tuple[int, int]) -> list[View]:
        whole = Canvas.of(image_wh)
        if not self.splits:
            return [View("base", whole)]
        width, height = image_wh
        if min(image_wh) < 2:
            raise ImageError(f"a picture of {width} x {height} pixels cannot be split into quarters")
        left, top = width // 2, height // 2
        columns, rows = ((0, left), (left, width - left)), ((0, top), (top, height - top))
        return [
            *(View("crop", whole.window(x, y, w, h)) for y, h in rows for x, w in columns),
            View("thumbnail", whole),
        ]

    def _resized(self, canvas: Canvas) -> Canvas:
        if not self.setting("do_resize"):
            return canvas
        size = SimpleNamespace(**{side: told_size(self.image_processor.size, side) for side in _SIDES})
        if size.height and size.width:
            return canvas.resized(size.width, size.height)
        # The rule only asks the picture for its shape.
        blank = np.broadcast_to(np.uint8(0), (3, canvas.wh[1], canvas.wh[0]))
        height, width = rule_of(self.image_processor, "get_resize_output_image_size")(blank, size)
        return canvas.resized(int(width), int(height))

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """The patches of every view row by row, padded to the largest view of all."""
        views = [TowerView(numbers.reshape(-1), grid_hw=numbers.shape) for numbers in cell_numbers(picture)]
        return TowerCells.averaged(views, cell_count(picture))

    def keys(
        self, plans: Sequence[ImagePlan], outputs: Mapping[str, Any], index: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The patches of every view in the padded size of the batch, then its latents."""
        padded = [int(side) // self.tower.patch_size for side in np.shape(outputs["pixel_values"])[-2:]]
        parts, owners = [], []
        for number, plan in enumerate(plans):
            for tile, view in enumerate(plan.layout.tiles):
                grid = np.full((padded[0], padded[1], 3), -1, dtype=np.int32)
                grid[: view.grid_hw[0], : view.grid_hw[1]] = raster(tile, view.grid_hw).reshape(*view.grid_hw, 3)
                parts += [grid, nowhere(self.own_keys)]
                owners += [number] * (padded[0] * padded[1] + self.own_keys)
        return places(parts), np.array(owners, dtype=np.int32)

    def call_processor(self, **options: Any) -> Mapping[str, Any]:
        """With the places of what it writes for pictures, which it does not say."""
        asked = {k: v for k, v in options.items() if k != "return_text_replacement_offsets"}
        outputs = dict(super().call_processor(**asked))
        outputs["text_replacement_offsets"] = [self._replaced(text)[1] for text in options["text"]]
        for text, ids in zip(options["text"], outputs["input_ids"], strict=True):
            told = self.tokenizer(self._replaced(text)[0], add_special_tokens=options.get("add_special_tokens", True))
            if list(told["input_ids"]) != list(ids):
                raise LayoutError(f"{type(self.processor).__name__} writes pictures into the prompt in another way")
        return outputs

    def _replaced(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The prompt with pictures written out, and where each of them stands."""
        around, token = str(self.processor.fake_image_token), self.image_token
        views = (token * self.own_keys + around) * (5 if self.splits else 1)
        written, found, last = "", [], 0
        for place in re.finditer(re.escape(self.placeholder), text):
            written += text[last : place.start()]
            said = views if written.endswith(around) else around + views
            last = place.end()
            if re.match(r"[^\s<]", text[last:]):
                said += " "
            spans = {"span": place.span(), "new_span": (len(written), len(written) + len(said))}
            found.append({"replacement": said, **spans})
            written += said
        return written + text[last:], found

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """The largest view decides the size of all."""
        pixels = inputs.get("pixel_values")
        most = (max(p.view_hw[0] for p in plans), max(p.view_hw[1] for p in plans))
        if pixels is not None and tuple(pixels.shape[-2:]) != most:
            raise LayoutError(
                f"the image processor makes views of {tuple(pixels.shape[-2:])} pixels (height, width), but its"
                f" settings say {most}"
            )
