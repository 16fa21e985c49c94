"""Families that see each picture once as a whole and once more in tiles that are joined to one grid."""

from __future__ import annotations

from typing import Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.anyres import TileRule, plan_anyres, plan_padded, resolutions_of
from vlmattn.adapters.plan import ImagePlan
from vlmattn.adapters.preprocess import tile_side
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.core.errors import LayoutError


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


@register(
    FamilySpec(
        name="llava_next",
        model_types=("llava_next",),
        processors=("LlavaNextProcessor",),
        image_processors=("LlavaNextImageProcessor",),
        towers=("clip_vision_model", "siglip_vision_model"),
        geometry=("base: stretched to a square", "tiles: fitted, padded, joined, unpadded in whole cells"),
        prompt="[INST] {images}{question} [/INST]",
        notes="Several pictures per prompt; each gets its own tiles.",
    )
)
class LlavaNext(AnyResolution):
    """LLaVA-NeXT (LLaVA-1.6)."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "patch_size", processor.patch_size, self.tower.patch_size)


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
        notes="Tiles only for a single picture per prompt. Videos are not supported.",
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
