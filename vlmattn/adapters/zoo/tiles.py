"""Families that cut a picture into tiles and see it once more as a whole; patches are merged in squares."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import numpy as np

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.preprocess import prepared_view, tile_side
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tiling import View, check_square, plan_views, rule_of, stretched_tiles, whole
from vlmattn.adapters.tower import Tower, one_side
from vlmattn.adapters.videos import VideoSpec, groups_of_frames, plan_frames
from vlmattn.core.errors import LayoutError, UnsupportedModel
from vlmattn.core.layout import Tile
from vlmattn.core.videos import Video

_COHERE = (
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{images}{question}<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
)
_IDEFICS = "<|im_start|>User:{images}{question}<end_of_utterance>\nAssistant:"
_IM_START = "<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n"


class Tiles(Adapter):
    """Square tiles of one size, each a grid of its own, and the whole picture stretched to one more.

    Attributes:
        merge_at: where the configuration says how many patches of a side become one token (or one over that).
        told_at: where the processor says how many tokens a tile has; empty if it counts for itself.
        overview_first: whether the whole picture comes before its tiles.
        overview_always: whether it comes with a single tile, too.
    """

    merge_at = "downsample_factor"
    told_at = ""
    overview_first = False
    overview_always = False

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.side = self.tower.image_size
        self.merge = self.find_merge()
        self.cell = self.tower.patch_size * self.merge
        if self.tower.leading or self.tower.side % self.merge:
            raise LayoutError(
                f"{self.tower.side} x {self.tower.side} patches"
                + (
                    f" and {self.tower.leading:+} tokens of vision_feature_select_strategy"
                    if self.tower.leading
                    else ""
                )
                + f" cannot be merged in squares of {self.merge} x {self.merge}: the model itself cannot run"
            )
        check_square(self.image_processor, self.view_side(), self.side)
        if self.told_at:
            check_agreement(self, self.told_at, attrgetter(self.told_at)(processor), (self.side // self.cell) ** 2)

    def find_merge(self) -> int:
        """How many patches of a side become one token."""
        value = attrgetter(self.merge_at)(self.config)
        return round(1 / value) if value < 1 else int(value)

    def view_side(self) -> int:
        """Side in pixels of the views that the image processor makes."""
        return tile_side(self.image_processor)

    def tiles_hw(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles of a picture, by the image processor's own rule."""
        if not self.setting("crop_to_patches"):
            return 1, 1
        limits = int(self.setting("min_patches")), int(self.setting("max_patches"))
        best = rule_of(self.image_processor, "get_optimal_tiled_canvas")
        cols, rows = best((image_wh[1], image_wh[0]), (self.side, self.side), *limits)
        return int(rows), int(cols)

    def views(self, image_wh: tuple[int, int]) -> list[View]:
        """The tiles and the whole picture, in the order of their tokens."""
        tiles_hw = self.tiles_hw(image_wh)
        if tiles_hw == (1, 1) and not self.overview_always:
            return [whole(image_wh, self.side, "base")]
        tiles = stretched_tiles(image_wh, tiles_hw, self.side)
        overview = [whole(image_wh, self.side, "thumbnail")]
        return overview + tiles if self.overview_first else tiles + overview

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The views' grids one after the other."""
        return plan_views(image_wh, self.views(image_wh), self.cell)


def frames_whole(adapter: Adapter, video: Video, side: int, cell: int) -> ImagePlan:
    """One base tile per frame: the whole frame as its video processor makes it, of ``cell`` pixels a cell."""
    canvas = prepared_view(adapter.processor.video_processor, Canvas.of(video.wh))
    check_agreement(adapter, "size of a video's frames", canvas.wh, (side, side))
    tile = Tile("base", *canvas.grid(cell))
    return plan_frames(video, groups_of_frames(len(video), 1), [tile], [raster(0, tile.grid_hw)], (side, side))


class InternVL(Tiles):
    """InternVL and its kin: one run of image tokens for all tiles."""

    merge_at = "downsample_ratio"
    told_at = "image_seq_length"

    def find_tokens(self) -> tuple[str, str]:
        """Some kin write a placeholder of its own into prompts."""
        token = str(self.processor.image_token)
        return str(getattr(self.processor, "image_placeholder_token", token)), token

    def find_video_tokens(self) -> tuple[str, str]:
        """Frames are written as pictures are, each with its number before it."""
        return str(self.processor.video_token), str(self.processor.image_token)

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile per frame, without cutting it."""
        return frames_whole(self, video, self.side, self.cell)


class AyaVision(Tiles):
    """Aya Vision: the number of each tile is written before it."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        told = (processor.img_size // processor.patch_size) ** 2
        check_agreement(self, "tokens per tile (img_size, patch_size)", told, (self.side // self.cell) ** 2)

    def find_tokens(self) -> tuple[str, str]:
        """A placeholder stands for all patches."""
        return str(self.processor.image_token), str(self.processor.img_patch_token)


class Cohere2Vision(Tiles):
    """Command A Vision: a line break after each tile."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "patch_size (tokens of a side)", processor.patch_size, self.side // self.cell)


class Idefics3(Tiles):
    """Idefics3 and its kin: longest side resized, then both sides stretched to whole tiles."""

    merge_at = "scale_factor"
    told_at = "image_seq_len"

    def view_side(self) -> int:
        """Tiles have their own size, besides that of the picture."""
        return int(self.image_processor.max_image_size["longest_edge"])

    def tiles_hw(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """Whole tiles of both sides: of the longer one first, and of what the other then measures."""
        if not self.setting("do_image_splitting"):
            return 1, 1
        width, height = self._resized(image_wh)
        tiles = math.ceil(max(width, height) / self.side)
        shape = width / height
        if width >= height:
            return math.ceil(int(tiles * self.side / shape) / self.side), tiles
        return tiles, math.ceil(int(tiles * self.side * shape) / self.side)

    def _resized(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        size = self.image_processor.size
        if not self.setting("do_resize"):
            return image_wh
        if not size["longest_edge"]:
            return int(size["width"]), int(size["height"])
        # The rule only asks the picture for its shape.
        blank = np.broadcast_to(np.uint8(0), (3, image_wh[1], image_wh[0]))
        height, width = rule_of(self.image_processor, "get_resize_output_image_size")(blank, size["longest_edge"])
        return int(width), int(height)


class SmolVLM(Idefics3):
    """SmolVLM: frames of a video are written as pictures without tiles are, with their times between them."""

    def find_video_tokens(self) -> tuple[str, str]:
        """Image tokens stand for frames, too."""
        return str(self.processor.video_token), str(self.processor.image_token)

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile per frame, stretched to a square twice."""
        side = int(self.processor.video_processor.max_image_size["longest_edge"])
        check_agreement(self, "size of a video's frames", side, self.side)
        tile = Tile("base", *whole(video.wh, side, "base").canvas.grid(self.cell))
        return plan_frames(video, groups_of_frames(len(video), 1), [tile], [raster(0, tile.grid_hw)], (side, side))


class GraniteDocling(Tiles):
    """Granite Docling: four times the tokens on the fine route."""

    merge_at = "vision_config.scale_factor"

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        tokens = (self.side // self.tower.patch_size) ** 2 // int(attrgetter(self.merge_at)(self.config)) ** 2
        check_agreement(self, "image_seq_len", processor.image_seq_len, tokens)

    def find_merge(self) -> int:
        """The fine route merges half as many patches of a side."""
        return super().find_merge() // (2 if self.setting("fine_route") else 1)

    def tiles_hw(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """The image processor counts for itself."""
        rows, cols = self.image_processor.get_tile_grid(image_wh[1], image_wh[0])
        return int(rows), int(cols)


class Ovis2(Tiles):
    """Ovis2: the whole picture first; tokens of its own for ends of tiles and rows."""

    merge_at = "vision_config.hidden_stride"
    told_at = "image_seq_length"
    overview_first = True
    image_tensors = True

    def find_tokens(self) -> tuple[str, str]:
        """A placeholder stands for all patches."""
        return str(self.processor.image_token), "<IMG_ATOM>"

    def tiles_hw(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """Fewest tiles that keep most of the pixels, or the closest shape, as the settings say."""
        if not self.setting("crop_to_patches") or not self.setting("use_covering_area_grid"):
            return super().tiles_hw(image_wh)
        if int(self.setting("max_patches")) <= 1:
            return 1, 1
        best = rule_of(self.image_processor, "get_min_tile_covering_grid")
        cols, rows = best(
            (image_wh[1], image_wh[0]), target_patch_size=self.side, max_image_tiles=int(self.setting("max_patches"))
        )
        return int(rows), int(cols)


class PerceptionLM(Tiles):
    """Perception LM: the whole picture first, always, then tiles; patches are averaged in squares."""

    merge_at = "projector_pooling_ratio"
    overview_first = True

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.overview_always = self.setting("vision_input_type") == "thumb+tile"
        check_agreement(self, "patch_size", processor.patch_size, self.tower.patch_size)
        check_agreement(self, "pooling_ratio", processor.pooling_ratio, self.merge)

    def find_tower(self) -> Tower:
        """A tower of timm, whose sizes are in its name where its arguments do not say them."""
        vision = self.config.vision_config
        args = vision.model_args or {}
        named = re.search(r"_patch(\d+)_(\d+)", str(vision.architecture))
        patch, size = (int(n) for n in named.groups()) if named else (0, 0)
        tower = Tower(
            str(vision.architecture),
            one_side(args.get("img_size", size), "model_args['img_size']"),
            one_side(args.get("patch_size", patch), "model_args['patch_size']"),
            0,
        )
        if not tower.image_size or not tower.patch_size:
            raise UnsupportedModel(
                f"vision tower {tower.name!r} is not supported: neither its name nor vision_config.model_args says"
                " img_size and patch_size"
            )
        return tower

    def view_side(self) -> int:
        """Tiles have their own size."""
        return int(self.setting("tile_size"))

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile per frame, without cutting it."""
        return frames_whole(self, video, self.side, self.cell)

    def tensors(self, pixels: dict[str, Any]) -> dict[str, Any]:
        """The model takes the views of all pictures in a row, however many each has."""
        import torch

        views = [torch.as_tensor(np.asarray(v)) for v in pixels.get("pixel_values", ())]
        joined = {"pixel_values": [torch.cat(views)]} if views else {}
        return super().tensors(pixels | joined)

    def tiles_hw(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """The largest of the tilings that hold the picture, else the one of the closest shape."""
        if not self.overview_always or int(self.setting("max_num_tiles")) <= 1:
            return 1, 1
        given = {"img_width": image_wh[0], "img_height": image_wh[1], "tile_size": self.side}
        fitting = rule_of(self.image_processor, "_fit_image_to_canvas")(**given)
        cols, rows = fitting or rule_of(self.image_processor, "_find_closest_aspect_ratio")(**given)
        return int(rows), int(cols)


_STRETCHED = "tiles: the picture stretched to rows x cols squares; patches merged in squares"
_WHOLE = "thumbnail: the whole picture stretched to a square, {} its tiles"
_LAST, _FIRST = (_STRETCHED, _WHOLE.format("after")), (_WHOLE.format("before"), _STRETCHED)

_VIDEOS = {
    "internvl": VideoSpec(
        ("InternVLVideoProcessor",), "stretched to a square; its number is written before it", equal=True
    ),
    "smolvlm": VideoSpec(
        ("SmolVLMVideoProcessor",),
        "stretched to a square; its time is written before it",
        equal=True,
        beside_pictures=False,
    ),
    "perception_lm": VideoSpec(("PerceptionLMVideoProcessor",), "stretched to a square", equal=True),
}

for _name, _class, _processors, _image_processors, _towers, _geometry, _prompt in (
    ("internvl", InternVL, "InternVLProcessor", "GotOcr2ImageProcessor", "internvl_vision", _LAST, _IM_START),
    ("qianfan_ocr", InternVL, "QianfanOCRProcessor", "GotOcr2ImageProcessor", "qianfan_ocr_vision", _LAST, _IM_START),
    ("aya_vision", AyaVision, "AyaVisionProcessor", "GotOcr2ImageProcessor", "siglip_vision_model", _LAST, _COHERE),
    (
        "cohere2_vision",
        Cohere2Vision,
        "Cohere2VisionProcessor",
        "Cohere2VisionImageProcessor",
        "siglip_vision_model",
        _LAST,
        _COHERE,
    ),
    ("idefics3", Idefics3, "Idefics3Processor", "Idefics3ImageProcessor", "idefics3_vision", _LAST, _IDEFICS),
    (
        "smolvlm",
        SmolVLM,
        "SmolVLMProcessor Idefics3Processor",
        "SmolVLMImageProcessor Idefics3ImageProcessor",
        "smolvlm_vision",
        _LAST,
        _IDEFICS,
    ),
    (
        "granite_docling",
        GraniteDocling,
        "GraniteDoclingProcessor",
        "GraniteDoclingImageProcessor",
        "granite_docling_vision",
        _LAST,
        _IDEFICS,
    ),
    ("ovis2", Ovis2, "Ovis2Processor", "Ovis2ImageProcessor", "ovis2_vision", _FIRST, _IM_START),
    (
        "perception_lm",
        PerceptionLM,
        "PerceptionLMProcessor",
        "PerceptionLMImageProcessor",
        "",
        _FIRST,
        _IM_START,
    ),
):
    register(
        FamilySpec(
            name=_name,
            model_types=(_name,),
            processors=tuple(_processors.split()),
            image_processors=tuple(_image_processors.split()),
            towers=tuple(_towers.split()),
            geometry=_geometry,
            prompt=_prompt,
            videos=_VIDEOS.get(_name),
        )
    )(_class)
