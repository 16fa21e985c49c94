"""The families that vlmattn serves itself."""

from __future__ import annotations

from typing import Any

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.anyres import TileRule, plan_anyres, plan_padded, resolutions_of
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.preprocess import fixed_view, tile_side
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import ImageLayout, Tile

_ONE_VIEW = ("CLIPImageProcessor", "SiglipImageProcessor", "LlavaImageProcessor")


class OneView(Adapter):
    """Families that see each picture once, on one fixed grid."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        _check_agreement(self, "patch_size", processor.patch_size, self.tower.patch_size)
        _check_agreement(
            self, "vision_feature_select_strategy", processor.vision_feature_select_strategy, self.strategy
        )

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """One base tile; tokens without a place (CLS, if kept) come first, and a dropped first patch is lost."""
        pads = type(self.image_processor).__name__.startswith("Llava")
        canvas = fixed_view(self.image_processor, image_wh, pads_to_square=pads)
        side = self.tower.image_size
        if canvas.wh != (side, side):
            raise LayoutError(
                f"a picture of {image_wh[0]} x {image_wh[1]} is prepared as {canvas.wh[0]} x {canvas.wh[1]} pixels, but"
                f" the vision tower takes {side} x {side}: check the image processor's size and crop_size"
            )
        grid_hw, box = canvas.grid(self.tower.patch_size)
        first = max(-self.tower.leading, 0)
        parts = [nowhere(max(self.tower.leading, 0)), raster(0, grid_hw)[first:]]
        layout = ImageLayout(image_wh, (Tile("base", grid_hw, box, lost=((0, 0),) if first else ()),), 1)
        return ImagePlan(layout, places(parts), (canvas.wh[1], canvas.wh[0]), 1)


class AnyResolution(Adapter):
    """Families that see each picture once as a whole and once more in tiles."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        _check_agreement(
            self, "vision_feature_select_strategy", processor.vision_feature_select_strategy, self.strategy
        )
        _check_agreement(self, "tile size", tile_side(self.image_processor), self.tower.image_size)
        ours = resolutions_of(self.image_processor.image_grid_pinpoints)
        _check_agreement(self, "image_grid_pinpoints", ours, resolutions_of(self.config.image_grid_pinpoints))
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
        _check_agreement(self, "patch_size", processor.patch_size, self.tower.patch_size)


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
        _check_agreement(self, "vision_aspect_ratio", processor.vision_aspect_ratio, self.config.vision_aspect_ratio)
        _check_agreement(self, "num_image_tokens", processor.num_image_tokens, self.tower.side**2)

    def _most_tiles(self) -> int | None:
        ratio = str(self.config.vision_aspect_ratio)
        if not ratio.startswith("anyres_max_") or not ratio.removeprefix("anyres_max_").isdigit():
            raise LayoutError(f"vision_aspect_ratio must be 'anyres_max_' and a number, got {ratio!r}")
        return int(ratio.removeprefix("anyres_max_"))

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """Base and tiles for a single picture; for several, each padded to a square, without tiles."""
        return plan_anyres(self.rule, image_wh) if pictures == 1 else plan_padded(self.tower, image_wh)


def _check_agreement(adapter: Adapter, name: str, processor_says: Any, model_says: Any) -> None:
    if processor_says != model_says:
        raise LayoutError(
            f"processor and model disagree on {name}: the processor says {processor_says}, the model {model_says}."
            f" {adapter.spec.name} would place image tokens wrongly; set it on the processor to {model_says}"
        )


_LLAVA = FamilySpec(
    name="llava",
    model_types=("llava",),
    processors=("LlavaProcessor",),
    image_processors=_ONE_VIEW,
    towers=("clip_vision_model", "siglip_vision_model"),
    geometry=(
        "base: shortest side resized and centre crop, or padded to a square, or stretched, as the processor says",
    ),
    notes="Several pictures per prompt. With CLIP's centre crop the model does not see the ends of long pictures; with "
    "SigLIP and vision_feature_select_strategy 'default' it does not see the top-left patch.",
)
_VIPLLAVA = FamilySpec(
    name="vipllava",
    model_types=("vipllava",),
    processors=("LlavaProcessor",),
    image_processors=_ONE_VIEW,
    towers=("clip_vision_model",),
    geometry=_LLAVA.geometry,
    strategy="default",
    notes="Like llava; the model always drops the CLS token.",
)
register(_LLAVA)(OneView)
register(_VIPLLAVA)(OneView)
