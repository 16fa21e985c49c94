"""Families that pool patches of overlapping crops: the whole picture on a small grid, then on one joined from crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.cells import placed, pooled_cells
from vlmattn.adapters.plan import ImagePlan, places, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tiling import check_square, rule_of
from vlmattn.adapters.tower import Tower, one_side
from vlmattn.adapters.tower_cells import cell_count, cell_numbers, view_of
from vlmattn.adapters.videos import VideoSpec, groups_of_frames, plan_frames
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout
from vlmattn.core.tower_cells import NO_CELL, TowerCells
from vlmattn.core.videos import Video


@register(
    FamilySpec(
        name="molmo2",
        model_types=("molmo2",),
        processors=("Molmo2Processor",),
        image_processors=("Molmo2ImageProcessor",),
        towers=("molmo2_vision",),
        geometry=(
            "thumbnail: the whole picture stretched to a square, before its crops",
            "tiles: the picture stretched to rows x cols overlapping crops; each patch counts once; one joined grid",
            "cells: patches pooled in squares; the last of a side may hold fewer",
        ),
        prompt="<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n",
        videos=VideoSpec(
            ("Molmo2VideoProcessor",),
            "stretched to a square; patches pooled in squares; its time is written before it",
            beside_pictures=False,
            most_videos=1,
        ),
    )
)
class Molmo2(Adapter):
    """Molmo 2."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        images = self.image_processor
        check_agreement(self, "patch_size", images.patch_size, self.tower.patch_size)
        check_square(
            images, one_side(tuple(images.size[n] for n in ("height", "width")), "size"), self.tower.image_size
        )
        if self.tower.image_size % self.tower.patch_size:
            raise LayoutError(
                f"a view of {self.tower.image_size} pixels is no whole number of patches of {self.tower.patch_size}:"
                " crops would not join"
            )
        self.pool_hw = int(images.pooling_size[0]), int(images.pooling_size[1])

    def find_tokens(self) -> tuple[str, str]:
        """A placeholder stands for all patches."""
        return str(self.processor.image_token), "<im_patch>"

    def find_video_tokens(self) -> tuple[str, str]:
        """A placeholder stands for all patches of all frames."""
        return str(self.processor.video_token), "<im_patch>"

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile per frame, pooled by the video processor's own size."""
        maker = self.processor.video_processor
        side = one_side(tuple(maker.size[name] for name in ("height", "width")), "size of a video's frames")
        check_agreement(self, "size of a video's frames", side, self.tower.image_size)
        pool_hw = int(maker.pooling_size[0]), int(maker.pooling_size[1])
        tile = self._tile("base", Canvas.of(video.wh).resized(side, side), pool_hw)
        told = tuple(int(n) for n in np.asarray(outputs["video_grids"][number]))
        check_agreement(self, "frames, rows and columns of a video", told, (len(video), *tile.grid_hw))
        groups = groups_of_frames(len(video), 1)
        return plan_frames(video, groups, [tile], [raster(0, tile.grid_hw)], (side, side))

    def find_tower(self) -> Tower:
        """The family's own tower: patches only."""
        vision = self.config.vision_config
        return Tower(
            str(vision.model_type), one_side(vision.image_size, "image_size"), one_side(vision.patch_size, "patch"), 0
        )

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The small grid, then the joined one; tokens of other kinds end their rows."""
        side = self.tower.image_size
        rows, cols, height, width = self._crops(image_wh)
        grids = [("thumbnail", side, side), ("tiles", width, height)]
        tiles = tuple(self._tile(kind, Canvas.of(image_wh).resized(w, h), self.pool_hw) for kind, w, h in grids)
        parts = [raster(index, tile.grid_hw) for index, tile in enumerate(tiles)]
        views = 1 + rows * cols
        return ImagePlan(ImageLayout(image_wh, tiles, views), places(parts), (side, side), views)

    def _crops(self, image_wh: tuple[int, int]) -> tuple[int, int, int, int]:
        """Rows and columns of crops, and the height and width that the picture is stretched to."""
        images = self.image_processor
        told = rule_of(images, "compute_crop_geometry")(
            image_wh[1],
            image_wh[0],
            max_crops=images.max_crops,
            overlap_margins=images.overlap_margins,
            crop_size=self.tower.image_size,
            patch_size=images.patch_size,
        )
        rows, cols, height, width = (int(n) for n in told)
        return rows, cols, height, width

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """The patches of the whole, then of every crop; of those that crops share, the ones that are dropped too."""
        small, joined = cell_numbers(picture)
        side, (before, after) = self.tower.side, (int(n) for n in self.image_processor.overlap_margins)
        rows, cols, height, width = self._crops(picture.image_wh)
        patch, step = self.tower.patch_size, side - before - after
        pooled = self._patches(joined, (height // patch, width // patch))
        views = [view_of(self._patches(small, (side, side)))]
        for row in range(rows):
            for col in range(cols):
                owners = pooled[row * step : row * step + side, col * step : col * step + side].copy()
                owners[: before if row else 0] = NO_CELL
                owners[:, : before if col else 0] = NO_CELL
                owners[side - (after if row < rows - 1 else 0) :] = NO_CELL
                owners[:, side - (after if col < cols - 1 else 0) :] = NO_CELL
                views.append(view_of(owners))
        return TowerCells.averaged(views, cell_count(picture))

    def _patches(self, numbers: NDArray[np.int64], patches_hw: tuple[int, int]) -> NDArray[np.int64]:
        """The cell of each patch: cells are pooled around the middle, so the first and last may hold fewer."""
        found = numbers.repeat(self.pool_hw[0], axis=0).repeat(self.pool_hw[1], axis=1)
        top, left = ((own - n) // 2 for own, n in zip(found.shape, patches_hw, strict=True))
        return found[top : top + patches_hw[0], left : left + patches_hw[1]]

    def _tile(self, kind: Any, canvas: Canvas, pool_hw: tuple[int, int]) -> Any:
        patch, (pool_h, pool_w) = self.tower.patch_size, pool_hw
        return placed(
            kind, canvas, pooled_cells(canvas.wh[1], patch, pool_h), pooled_cells(canvas.wh[0], patch, pool_w)
        )

    def _rendered(
        self, prompt: Any, kinds: Sequence[str], system: str | None, raw: bool, question: str | None
    ) -> Rendered:
        """The processor would write this token before a prompt that does not start with it."""
        rendered = super()._rendered(prompt, kinds, system, raw, question)
        first = str(self.tokenizer.bos_token or self.tokenizer.eos_token)
        if rendered.text.startswith(first):
            return rendered
        start, end = rendered.question_span
        return replace(rendered, text=first + rendered.text, question_span=(start + len(first), end + len(first)))

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels come as one row per patch of each view."""
        if "pixel_values" not in inputs:
            return
        got, want = tuple(inputs["pixel_values"].shape[:2]), (sum(p.views for p in plans), self.tower.side**2)
        if got != want:
            raise LayoutError(
                f"the image processor makes {got} (views, patches of each), but its settings say {want}: its class"
                " does more than vlmattn knows of"
            )
