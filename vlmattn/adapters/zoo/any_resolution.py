"""Families that see each picture once as a whole and once more in tiles that are joined to one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.anyres import (
    TileRule,
    best_resolution,
    kept_cells,
    plan_anyres,
    plan_padded,
    resolutions_of,
)
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.cells import placed
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.preprocess import prepared_view, tile_side
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.tower_cells import (
    cell_numbers,
    class_tokens,
    joined_cells,
    joined_tokens,
    merged_rows,
    patches_of_side,
    view_of,
)
from vlmattn.adapters.videos import VideoSpec, ended, groups_of_frames, plan_frames
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout
from vlmattn.core.tower_cells import NO_CELL, TowerCells
from vlmattn.core.videos import Video


class AnyResolution(Adapter):
    """Families that see each picture once as a whole and once more in tiles."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "vision_feature_select_strategy", processor.vision_feature_select_strategy, self.strategy)
        check_agreement(self, "tile size", tile_side(self.image_processor), self.tower.image_size)
        ours = resolutions_of(self.image_processor.image_grid_pinpoints)
        check_agreement(self, "image_grid_pinpoints", ours, resolutions_of(self.config.image_grid_pinpoints))
        self.rule = TileRule(self.tower, ours, self._most_tiles())

    def _most_tiles(self) -> int | None:
        return None

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """A base tile, then the tiles joined to one grid with a newline token after each row."""
        return plan_anyres(self.rule, image_wh)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """The base's patches; of the joined grid, those that were not cut off, shrunk as the model shrinks them."""
        side, classes = patches_of_side(self), class_tokens(self)
        merge = side // self.tower.side
        base = view_of(merged_rows(cell_numbers(picture)[0], merge), classes=classes)
        none = view_of(np.full(side**2, NO_CELL), classes=classes)
        views = [base, *[none] * ((picture.views or 1) - 1)]
        if len(picture.tiles) == 1:
            return TowerCells.averaged(views, picture.tiles[0].cells)
        best_hw = best_resolution(self.rule, picture.image_wh)
        kept = kept_cells(self.rule, picture.image_wh, best_hw)
        tiles_hw = (best_hw[0] // self.tower.image_size, best_hw[1] // self.tower.image_size)
        return joined_cells(picture, joined_tokens(tiles_hw, side, classes), kept, views, merge)


_LLAVA_NEXT = FamilySpec(
    name="llava_next",
    model_types=("llava_next",),
    processors=("LlavaNextProcessor",),
    image_processors=("LlavaNextImageProcessor",),
    towers=("clip_vision_model", "siglip_vision_model"),
    geometry=("base: stretched to a square", "tiles: fitted, padded, joined, unpadded in whole cells"),
    prompt="[INST] {images}{question} [/INST]",
    notes="Several pictures per prompt; each gets its own tiles.",
)


@register(_LLAVA_NEXT)
class LlavaNext(AnyResolution):
    """LLaVA-NeXT (LLaVA-1.6)."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "patch_size", processor.patch_size, self.patch_size)

    @property
    def patch_size(self) -> int:
        """Side of a patch as the processor counts it."""
        return self.tower.patch_size


@register(
    replace(
        _LLAVA_NEXT,
        name="llava_next_video",
        model_types=("llava_next_video",),
        processors=("LlavaNextVideoProcessor",),
        prompt="USER: {images}{question} ASSISTANT:",
        videos=VideoSpec(
            ("LlavaNextVideoVideoProcessor",),
            "shortest side resized and centre crop; a cell is spatial_pool_stride x as many patches",
            equal=True,
        ),
    )
)
class LlavaNextVideo(LlavaNext):
    """LLaVA-NeXT-Video: frames of a video are pooled, without tiles or newlines."""

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile per frame; patches beyond whole cells are not seen."""
        canvas = prepared_view(self.processor.video_processor, Canvas.of(video.wh))
        side = self.tower.image_size
        check_agreement(self, "size of a video's frames", canvas.wh, (side, side))
        stride = int(self.config.spatial_pool_stride)
        check_agreement(self, "spatial_pool_stride (2)", 2, stride)
        cells = range(self.tower.side // stride)
        pixels = stride * self.tower.patch_size
        lines = [(Fraction(k * pixels), Fraction((k + 1) * pixels)) for k in cells]
        tile = placed("base", canvas, lines, lines)
        return plan_frames(video, groups_of_frames(len(video), 1), [tile], [raster(0, tile.grid_hw)], (side, side))


@register(
    replace(
        _LLAVA_NEXT,
        name="granite4_vision",
        model_types=("granite4_vision",),
        processors=("Granite4VisionProcessor",),
        geometry=(*_LLAVA_NEXT.geometry, "a cell is 2 x 2 patches"),
        prompt="<|start_of_role|>user<|end_of_role|>{images}{question}<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
        notes="Image tokens start empty; several decoder layers add what the tower saw to them. Each token is made of "
        "its own cell and, by attention, of the window of cells round it.",
    )
)
class Granite4Vision(LlavaNext):
    """Granite 4 Vision: LLaVA-NeXT with cells of 2 x 2 patches, added at several layers of the decoder."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        rates = (Fraction(processor.downsample_rate or 1), Fraction(self.config.downsample_rate or 1))
        check_agreement(self, "downsample_rate", *rates)

    @property
    def patch_size(self) -> int:
        """A cell holds 2 x 2 patches."""
        return self.tower.patch_size // 2

    def find_tower(self) -> Tower:
        """With cells for patches."""
        tower, rate = super().find_tower(), str(self.config.downsample_rate)
        window = int(rate.rpartition("/")[2])
        if Fraction(rate) != Fraction(1, 2) or tower.side % window:
            raise LayoutError(
                f"downsample_rate must halve a window that divides the {tower.side} patches of the vision tower, as"
                f" '4/8' halves one of 8; got {rate!r}"
            )
        return replace(tower, patch_size=2 * tower.patch_size)

    def language_inputs(self, given: Mapping[str, Any]) -> Any:
        """With all that decoder layers add to image tokens."""
        added, mask = given.get("deepstack_features"), given.get("vision_mask")
        embeddings = given["inputs_embeds"]
        return embeddings if not added else embeddings.masked_scatter(mask, sum(added.values()))


@register(
    FamilySpec(
        name="llava_onevision",
        model_types=("llava_onevision",),
        processors=("LlavaOnevisionProcessor",),
        image_processors=("LlavaOnevisionImageProcessor",),
        towers=("siglip_vision_model",),
        geometry=(
            "base: stretched to a square",
            "tiles: fitted, padded, joined, unpadded in whole cells, shrunk above anyres_max_N",
            "one of several pictures: padded to a square, no tiles",
        ),
        prompt="<|im_start|>user {images}{question}<|im_end|><|im_start|>assistant\n",
        notes="Tiles only for a single picture per prompt.",
        videos=VideoSpec(
            ("LlavaOnevisionVideoProcessor",),
            "stretched to a square; a cell is about 2 x 2 patches; one newline token at the end",
            equal=True,
        ),
    )
)
class LlavaOnevision(AnyResolution):
    """LLaVA-OneVision."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "vision_aspect_ratio", processor.vision_aspect_ratio, self.config.vision_aspect_ratio)
        check_agreement(self, "num_image_tokens", processor.num_image_tokens, self.tower.side**2)

    def _most_tiles(self) -> int | None:
        ratio = str(self.config.vision_aspect_ratio)
        if not ratio.startswith("anyres_max_") or not ratio.removeprefix("anyres_max_").isdigit():
            raise LayoutError(f"vision_aspect_ratio must be 'anyres_max_' and a number, got {ratio!r}")
        return int(ratio.removeprefix("anyres_max_"))

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """Base and tiles for a single picture; for several, each padded to a square, without tiles."""
        return plan_anyres(self.rule, image_wh) if pictures == 1 else plan_padded(self.tower, image_wh)

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile per frame, its patches interpolated to half as many a side; then the newline."""
        canvas = prepared_view(self.processor.video_processor, Canvas.of(video.wh))
        side, patches = self.tower.image_size, self.tower.side
        check_agreement(self, "size of a video's frames", canvas.wh, (side, side))
        half = -(-patches // 2)
        seen = patches * self.tower.patch_size
        lines = [(Fraction(k * seen, half), Fraction((k + 1) * seen, half)) for k in range(half)]
        tile = placed("base", canvas, lines, lines)
        plan = plan_frames(video, groups_of_frames(len(video), 1), [tile], [raster(0, tile.grid_hw)], (side, side))
        return ended(plan, 1)
