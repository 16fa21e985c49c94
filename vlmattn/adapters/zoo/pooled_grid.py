"""Families of the Gemma 4 kind: resized to whole cells within a budget of tokens; a cell is a square of patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower, free_tower
from vlmattn.adapters.tower_cells import grid_cells
from vlmattn.adapters.videos import VideoSpec, groups_of_frames, plan_frames
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.tower_cells import TowerCells
from vlmattn.core.videos import Video


class PooledGrid(Adapter):
    """One view per picture, stretched to the size that the processor says in ``image_position_ids``.

    These hold the column and row of each patch, and -1 where there is none; ``pooling_kernel_size`` patches each way
    become one token, in the tower after its layers.
    """

    reads = True
    empties = True
    drops = ("num_soft_tokens_per_image", "num_soft_tokens_per_video")

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        vision = self.config.vision_config
        self.pool = int(vision.pooling_kernel_size)
        check_agreement(self, "pooling_kernel_size", self.image_processor.pooling_kernel_size, self.pool)
        check_agreement(self, "patch_size", self.image_processor.patch_size, self.tower.patch_size)
        check_agreement(self, "do_resize", bool(self.image_processor.do_resize), True)

    @property
    def merged(self) -> int:
        """Patches that are one token, each way, per entry of ``image_position_ids``."""
        return self.pool

    def find_tower(self) -> Tower:
        """The input of the tower has no size of its own."""
        return free_tower(self.config, self.spec.towers)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile of the whole picture."""
        tile = self._whole(image_wh, outputs["image_position_ids"][number], f"picture {number}")
        return ImagePlan(ImageLayout(image_wh, (tile,), 1), raster(0, tile.grid_hw), self._view_hw(tile), 1)

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile per frame, all alike."""
        maker = self.processor.video_processor
        check_agreement(self, "pooling_kernel_size of videos", int(maker.pooling_kernel_size), self.pool)
        first = sum(int(count) for count in outputs["num_frames_per_video"][:number])
        tile = self._whole(video.wh, outputs["video_position_ids"][first], f"video {number}")
        groups = groups_of_frames(len(video), 1)
        return plan_frames(video, groups, [tile], [raster(0, tile.grid_hw)], self._view_hw(tile))

    def _whole(self, image_wh: tuple[int, int], told: Any, name: str) -> Tile:
        """The grid whose patches are at these columns and rows."""
        positions = np.asarray(told).reshape(-1, 2)
        cols, rows = (int(n) + 1 for n in positions.max(axis=0))
        if rows % self.merged or cols % self.merged or rows * cols != int((positions >= 0).all(axis=1).sum()):
            raise LayoutError(
                f"{name}: its position ids hold {rows} x {cols} patches, which are no whole cells of"
                f" {self.merged} x {self.merged}"
            )
        grid_hw = (rows // self.merged, cols // self.merged)
        return Tile("base", grid_hw, (0.0, 0.0, float(image_wh[0]), float(image_wh[1])))

    def _view_hw(self, tile: Tile) -> tuple[int, int]:
        side = self.tower.patch_size * self.pool
        return tile.grid_hw[0] * side, tile.grid_hw[1] * side

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """One view, its patches row by row; padding comes after them."""
        return grid_cells(self, picture, self.merged)

    def generation(self) -> dict[str, Any]:
        """Layers that share keys skip all rows but the last, unless that is asked for as a tensor."""
        import torch

        shares = getattr(self.config.get_text_config(), "num_kv_shared_layers", 0)
        return {"logits_to_keep": torch.tensor([-1])} if shares else {}

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels come as one row per entry of ``image_position_ids``, padded; what is in them was read already."""


class MergedGrid(PooledGrid):
    """As PooledGrid, without a tower: the image processor itself joins the patches of a cell to one."""

    @property
    def merged(self) -> int:
        """Each entry of ``image_position_ids`` is a token."""
        return 1


_GEOMETRY = ("base: stretched to whole cells near its own shape; a cell is pooling_kernel_size x as many patches",)
_PROMPT = "<|turn>user\n{images}{question}<turn|>\n<|turn>model\n"
_TIMED = "stretched to whole cells near its own shape; its time is written before it"
_NOTES = "Sound is not supported."

register(
    FamilySpec(
        name="gemma4",
        model_types=("gemma4",),
        processors=("Gemma4Processor",),
        image_processors=("Gemma4ImageProcessor",),
        towers=("gemma4_vision",),
        geometry=_GEOMETRY,
        prompt=_PROMPT,
        notes=_NOTES,
        videos=VideoSpec(("Gemma4VideoProcessor",), _TIMED),
    )
)(PooledGrid)
register(
    FamilySpec(
        name="gemma4_unified",
        model_types=("gemma4_unified",),
        processors=("Gemma4UnifiedProcessor",),
        image_processors=("Gemma4UnifiedImageProcessor",),
        towers=("gemma4_unified_vision",),
        geometry=_GEOMETRY,
        prompt=_PROMPT,
        notes=_NOTES + " There is no vision tower: patches go straight to the language model.",
        videos=VideoSpec(("Gemma4UnifiedVideoProcessor",), _TIMED),
    )
)(MergedGrid)
