"""Families that see each picture once, on one fixed square grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.preprocess import check_prepared, fixed_view, prepared_view
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.videos import VideoSpec, groups_of_frames, plan_frames
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.videos import Video

_ONE_VIEW = ("CLIPImageProcessor", "SiglipImageProcessor", "LlavaImageProcessor")


class OneView(Adapter):
    """Families that see each picture once, on one fixed grid."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "patch_size", processor.patch_size, self.tower.patch_size)
        check_agreement(self, "vision_feature_select_strategy", processor.vision_feature_select_strategy, self.strategy)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """One base tile; tokens without a place (CLS, if kept) come first, and a dropped first patch is lost."""
        pads = type(self.image_processor).__name__.startswith("Llava")
        view = fixed_view(self.image_processor, image_wh, pads_to_square=pads)
        canvas = check_prepared(view, image_wh, self.tower.image_size)
        grid_hw, box = canvas.grid(self.tower.patch_size)
        first = max(-self.tower.leading, 0)
        parts = [nowhere(max(self.tower.leading, 0)), raster(0, grid_hw)[first:]]
        layout = ImageLayout(image_wh, (Tile("base", grid_hw, box, lost=((0, 0),) if first else ()),), 1)
        return ImagePlan(layout, places(parts), (canvas.wh[1], canvas.wh[0]), 1)


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


@register(
    FamilySpec(
        name="video_llava",
        model_types=("video_llava",),
        processors=("VideoLlavaProcessor",),
        image_processors=("VideoLlavaImageProcessor",),
        towers=("clip_vision_model",),
        geometry=("base: shortest side resized and centre crop",),
        notes="The model does not see the ends of long pictures.",
        videos=VideoSpec(
            ("VideoLlavaVideoProcessor",),
            "shortest side resized and centre crop; a token without a place before it",
            equal=True,
        ),
    )
)
class VideoLlava(OneView):
    """Video-LLaVA: a tower for pictures, and one for videos, whose CLS tokens stay."""

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile per frame, its CLS token before it."""
        canvas = prepared_view(self.processor.video_processor, Canvas.of(video.wh))
        side = self.tower.image_size
        check_agreement(self, "size of a video's frames", canvas.wh, (side, side))
        check_agreement(self, "num_additional_image_tokens", int(self.processor.num_additional_image_tokens), 1)
        grid_hw, box = canvas.grid(self.tower.patch_size)
        parts = [nowhere(1), raster(0, grid_hw)]
        return plan_frames(video, groups_of_frames(len(video), 1), [Tile("base", grid_hw, box)], parts, (side, side))

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels of pictures and of videos have names of their own."""
        super().check_views({"pixel_values": inputs.get("pixel_values_images", inputs.get("pixel_values"))}, plans)
