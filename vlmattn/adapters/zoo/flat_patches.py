"""Families that resize a picture to whole patches, as many as fit a bound, and flatten them into one list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.preprocess import told_size
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.tower_cells import cell_count, cell_numbers, view_of
from vlmattn.adapters.zoo.resampled import Kosmos2
from vlmattn.core.errors import ImageError, LayoutError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.tower_cells import TowerCells


@register(
    FamilySpec(
        name="kosmos-2.5",
        model_types=("kosmos-2.5",),
        processors=("Kosmos2_5Processor",),
        image_processors=("Kosmos2_5ImageProcessor",),
        towers=("kosmos_2_5_vision_model",),
        geometry=(
            "base: stretched to whole patches, as many as fit a bound; seen through a resampler's queries, so maps are "
            "composed of two hops",
        ),
        max_images=1,
        prompt="{images}<md>{question}",
        after_image="",
        notes="One picture per prompt, before the text. transformers counts the positions of written tokens with the "
        "padding of a batch, so ask questions of different length one at a time.",
    )
)
class Kosmos25(Kosmos2):
    """KOSMOS-2.5: patches that a picture does not need are padding, which the resampler sees all the same."""

    reads = True
    own_scale = True

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """From a blank picture of that size."""
        return Adapter.plan(self, image_wh, pictures)

    def find_tokens(self) -> tuple[str, str]:
        """The token that begins a picture stands for it in a prompt."""
        return str(self.processor.image_start_token), str(self.processor.image_start_token)

    def find_tower(self) -> Tower:
        """Patches of the image processor's size."""
        sides = {told_size(self.image_processor.patch_size, side) for side in ("height", "width")}
        if len(sides) != 1 or not min(sides):
            raise LayoutError(f"patches must be square, got patch_size {self.image_processor.patch_size}")
        return Tower(str(self.config.vision_config.model_type), 0, sides.pop(), 0)

    def call_processor(self, **options: Any) -> Mapping[str, Any]:
        """One prompt, as tensors: the processor knows no lists, and keeps no offsets."""
        texts = {"text": options["text"], "padding": False, "truncation": False, "return_tensors": "pt"}
        outputs = {k: v.tolist() for k, v in self.processor(images=options["images"], **texts).items()}
        written = self.tokenizer(self._before() + options["text"][0], return_offsets_mapping=True)
        if written["input_ids"] != outputs["input_ids"][0]:
            raise LayoutError(f"{type(self.processor).__name__} writes pictures into the prompt in another way")
        return outputs | {"offset_mapping": [written["offset_mapping"]]}

    def _before(self) -> str:
        # What the processor writes before a prompt.
        queries = str(self.processor.image_token) * self.own_keys
        around = str(self.processor.image_start_token), str(self.processor.image_end_token)
        return f"{self.tokenizer.bos_token}{around[0]}{queries}{around[1]}"

    def image_tokens(self, ids: NDArray[np.int64], outputs: Mapping[str, Any], index: int) -> NDArray[np.bool_]:
        """Where the processor says that queries stand; it marks what begins and ends a picture, too."""
        return np.asarray(outputs["image_embeds_position_mask"][index]) == 1

    def spans(self, rendered: Rendered, outputs: Mapping[str, Any], index: int) -> NDArray[np.int64]:
        """Behind what the processor writes before the prompt."""
        offsets = np.asarray(outputs["offset_mapping"][index], dtype=np.int64).reshape(-1, 2)
        first = len(self._before())
        return np.where(offsets >= first, offsets - first + len(self.placeholder), 0)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """Rows and columns of the resized picture, padding, and queries that look at each other."""
        width, height = (int(outputs[side][number]) for side in ("width", "height"))
        patch = self.tower.patch_size
        grid_hw = height // patch, width // patch
        if max(grid_hw) >= int(self.config.vision_config.max_num_patches):
            raise ImageError(
                f"a picture of {image_wh[0]} x {image_wh[1]} becomes {grid_hw[0]} x {grid_hw[1]} patches, and the model"
                f" has places for fewer than {self.config.vision_config.max_num_patches} in a row: cut it into parts"
            )
        padding = len(outputs["flattened_patches"][number]) - grid_hw[0] * grid_hw[1]
        tile = Tile("base", grid_hw, (0.0, 0.0, float(image_wh[0]), float(image_wh[1])))
        keys = places([raster(0, grid_hw), nowhere(padding), nowhere(self.own_keys)])
        return ImagePlan(ImageLayout(image_wh, (tile,), 1), keys, (height, width), 1)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """The patches row by row; padding comes after them."""
        views = [view_of(numbers) for numbers in cell_numbers(picture)]
        return TowerCells.averaged(views, cell_count(picture))

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Nothing to compare: the grid is read off what was made."""
