"""Families that see a picture as Qwen-VL does, and differ in what they write round it or in how they read settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower_cells import grid_cells
from vlmattn.adapters.videos import NOT_DECLARED, VideoSpec
from vlmattn.adapters.zoo.dynamic_grid import DynamicGrid
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import Box, ImageLayout, Tile
from vlmattn.core.tower_cells import TowerCells
from vlmattn.core.videos import Video


class TypedGrid(DynamicGrid):
    """Families whose processor marks words and pictures only when asked to, though the model needs it."""

    asks = MappingProxyType({"return_mm_token_type_ids": True})


class StillGrid(DynamicGrid):
    """Families whose tower takes a picture as one frame, though the image processor they share doubles it for films."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "temporal_patch_size", int(self.image_processor.temporal_patch_size), 1)


class ChunkedGrid(DynamicGrid):
    """MiniMax M3: a video is handed over in chunks, whose slices count on."""

    def video_settings(self, video_processor: Any) -> Mapping[str, Any]:
        """The processor would leave frames as they are, which fails unless their sides are whole cells."""
        return {"do_resize": bool(video_processor.do_resize)}

    def video_grid(self, outputs: Mapping[str, Any], number: int) -> tuple[int, int, int]:
        """As many slices as were written; rows and columns are those of its first chunk."""
        slices = _written(outputs, str(self.processor.VISION_START_TOKEN))
        chunks = np.asarray(outputs["video_grid_thw"])
        first = int(np.searchsorted(np.cumsum(chunks[:, 0]), sum(slices[:number]), side="right"))
        return slices[number], int(chunks[first, 1]), int(chunks[first, 2])


def _written(outputs: Mapping[str, Any], mark: str) -> list[int]:
    """How often a mark was written in place of each video of a batch."""
    replaced = [item for line in outputs["text_replacement_offsets"] for item in line if item["type"] == "video"]
    return [item["replacement"].count(mark) for item in replaced]


class OnePromptGrid(DynamicGrid):
    """Families whose processor cannot take several prompts of different length without padding.

    Frames of a video are merged behind the tower: grids are counted before that.
    """

    one_by_one = True

    def slices(self, told: int) -> int:
        """Frames that are merged are counted one by one."""
        return told // self.frames_merged(self.processor.video_processor)


class RowEndGrid(DynamicGrid):
    """Families that end every row of cells with an image token without a place.

    Attributes:
        edges: image tokens without a place before the first and after the last row.
    """

    edges = (0, 0)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile of the whole picture, its rows ended."""
        plan = super().read(image_wh, outputs, number)
        before, after = self.edges
        rows = raster(0, plan.layout.tiles[0].grid_hw, newline=True)
        return ImagePlan(plan.layout, places([nowhere(before), rows, nowhere(after)]), plan.view_hw, plan.views)

    def frame_places(self, grid_hw: tuple[int, int]) -> NDArray[np.int32]:
        """Rows of a frame are ended, too."""
        return raster(0, grid_hw, newline=True)


class FramedGrid(RowEndGrid):
    """HunYuan-VL: begin and end tokens round the picture, besides the row ends."""

    edges = (1, 1)

    def find_tokens(self) -> tuple[str, str]:
        """The processor takes a picture's place only between its start and end tokens."""
        mark = str(self.processor.image_token)
        return f"{self.processor.image_start_token}{mark}{self.processor.image_end_token}", mark

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "cat_extra_token", bool(processor.cat_extra_token), True)
        check_agreement(self, "spatial_patch_size", int(self.image_processor.spatial_patch_size), 1)


class NavitGrid(DynamicGrid):
    """Kimi: shrunk if need be, never enlarged, and padded at right and bottom to whole cells."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        kernel = tuple(int(n) for n in self.config.vision_config.merge_kernel_size)
        check_agreement(self, "merge_size", (self.merge, self.merge), kernel)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile that reaches beyond the picture where it was padded."""
        plan = super().read(image_wh, outputs, number)
        canvas = self._canvas(image_wh)
        if canvas.wh != (plan.view_hw[1], plan.view_hw[0]):
            raise LayoutError(
                f"picture {number}: image_grid_thw says {plan.view_hw[1]} x {plan.view_hw[0]} pixels, the image"
                f" processor's settings say {canvas.wh[0]} x {canvas.wh[1]}"
            )
        tile = Tile("base", plan.layout.tiles[0].grid_hw, canvas.box_xyxy)
        return ImagePlan(ImageLayout(image_wh, (tile,), 1), plan.place, plan.view_hw, 1)

    def video_grid(self, outputs: Mapping[str, Any], number: int) -> tuple[int, int, int]:
        """A slice per chunk: the model averages its frames."""
        slices = _written(outputs, "<|media_begin|>")
        rows, cols = (int(n) for n in np.asarray(outputs["video_grid_thw"])[sum(slices[:number]), 1:])
        return slices[number], rows, cols

    def video_settings(self, video_processor: Any) -> Mapping[str, Any]:
        """The processor adds numbers of chunks up as a list."""
        return {"return_tensors": None}

    def video_box(self, video: Video, view_hw: tuple[int, int]) -> Box:
        """Beyond the right and bottom edge of a frame, where it was padded."""
        canvas = self._canvas(video.wh, self.processor.video_processor)
        check_agreement(self, "size of a video's frames", canvas.wh, view_hw[::-1])
        return canvas.box_xyxy

    def _canvas(self, image_wh: tuple[int, int], maker: Any = None) -> Canvas:
        from transformers.models.kimi_k25.image_processing_kimi_k25 import navit_resize

        maker, canvas = maker or self.image_processor, Canvas.of(image_wh)
        if not maker.do_resize:
            return canvas
        (height, width), (padded_height, padded_width) = navit_resize(
            height=image_wh[1],
            width=image_wh[0],
            patch_size=maker.patch_size,
            merge_kernel_size=self.merge,
            max_patches=maker.max_patches,
            max_size_per_side=maker.size["max_height"],
        )
        return canvas.resized(width, height).window(0, 0, padded_width, padded_height)


class ShuffledGrid(DynamicGrid):
    """Nemotron Omni: cells are made by a pixel shuffle, and the grid has no frames."""

    def find_merge(self) -> int:
        """What the image processor's ratio says."""
        ratio = float(self.image_processor.downsample_ratio)
        check_agreement(self, "downsample_ratio", ratio, float(self.config.downsample_ratio))
        return round(1 / ratio)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile of the whole picture."""
        grid = {"image_grid_thw": {number: (1, *outputs["image_grid_hw"][number])}}
        return super().read(image_wh, grid, number)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """Class and register tokens, then patches row by row."""
        vision = self.config.vision_config
        classes, registers = int(vision.num_cls_tokens), int(vision.num_registers)
        return grid_cells(self, picture, self.merge, classes=classes, registers=registers)

    def call_processor(self, **options: Any) -> Mapping[str, Any]:
        """The call that the processor inherits: its own gives no offsets back."""
        from transformers.processing_utils import ProcessorMixin

        return ProcessorMixin.__call__(self.processor, **options)


# Their attention picks keys by blocks, or by pictures counted over the batch: padding changes what they compute.
_ALONE = ("dots3_note", "hunyuan_vl", "hy_v4_vl", "minimax_m3_vl")
_STRETCHED = ("base: stretched to whole cells near its own shape; a cell is merge_size x merge_size patches",)
_PADDED = ("base: shrunk if need be, padded at right and bottom to whole cells of merge_size x merge_size patches",)
_QWEN = "<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n"
_NOTES = {
    "minimax_m3_vl": "Its sparse layers choose other keys in a padded batch than for a prompt"
    " alone, by the model's own rule: ask prompts of different length one at a time. ",
}
_FRAMES = "stretched to whole cells near its own shape"
_TIMED = f"{_FRAMES}; its time is written before it"
_FILMS = {
    "cohere_compass": VideoSpec(("CohereCompassVideoProcessor",), _TIMED, merged=2),
    "cosmos3_edge": VideoSpec(("Cosmos3EdgeVideoProcessor",), _TIMED),
    "cosmos3_omni": VideoSpec(("Qwen3VLVideoProcessor",), _TIMED, merged=2),
    "lfm3_vl": VideoSpec(("Qwen3VLVideoProcessor",), _TIMED),
    "muse_glimmer": VideoSpec(("MuseGlimmerVideoProcessor",), _TIMED, merged=2),
    "muse_spark": VideoSpec(("MuseGlimmerVideoProcessor",), _TIMED, merged=2),
    "kimi_k25": VideoSpec(
        ("Kimi_K25VideoProcessor",), "padded at right and bottom; the time of a grid is written before it", merged=4
    ),
    "minimax_m3_vl": VideoSpec(("MiniMaxM3VLVideoProcessor",), _TIMED, merged=2),
    "dots3_note": VideoSpec(("Qwen3VLVideoProcessor",), _FRAMES),
    "ernie4_5_vl_moe": VideoSpec(
        ("Ernie4_5_VLMoeVideoProcessor",), f"{_FRAMES}; its time is drawn on it, if draw_on_frames is set", merged=2
    ),
    "hy_v4_vl": VideoSpec(("HYV4VLVideoProcessor",), f"{_FRAMES}; a token ends every row"),
}
_UNDECLARED = ("nemotron_h_omni",)
_SAID = "User: {images}{question}\nAssistant: "

for _cls, _name, _processor, _image_processor, _geometry, _prompt in (
    (DynamicGrid, "paddleocr_vl", "PaddleOCRVLProcessor", "PaddleOCRVLImageProcessor", _STRETCHED, _SAID),
    (DynamicGrid, "cohere_compass", "CohereCompassProcessor", "CohereCompassImageProcessor", _STRETCHED, _SAID),
    (DynamicGrid, "cosmos3_omni", "Qwen3VLProcessor", "Qwen2VLImageProcessor", _STRETCHED, _QWEN),
    (DynamicGrid, "lfm3_vl", "Lfm3VlProcessor", "Qwen2VLImageProcessor", _STRETCHED, _QWEN),
    (ChunkedGrid, "minimax_m3_vl", "MiniMaxM3VLProcessor", "MiniMaxM3VLImageProcessor", _STRETCHED, _SAID),
    (DynamicGrid, "muse_glimmer", "MuseGlimmerProcessor", "MuseGlimmerImageProcessor", _STRETCHED, _SAID),
    (DynamicGrid, "muse_spark", "MuseSparkProcessor", "MuseGlimmerImageProcessor", _STRETCHED, _SAID),
    (StillGrid, "dots3_note", "Dots3NoteProcessor", "Qwen2VLImageProcessor", _STRETCHED, _SAID),
    (TypedGrid, "cosmos3_edge", "Cosmos3EdgeProcessor", "Cosmos3EdgeImageProcessor", _STRETCHED, _QWEN),
    (OnePromptGrid, "ernie4_5_vl_moe", "Ernie4_5_VLMoeProcessor", "Ernie4_5_VLMoeImageProcessor", _STRETCHED, _SAID),
    (RowEndGrid, "hy_v4_vl", "HYV4VLProcessor", "HYV4VLImageProcessor", _STRETCHED, _SAID),
    (FramedGrid, "hunyuan_vl", "HunYuanVLProcessor", "HunYuanVLImageProcessor", _STRETCHED, _SAID),
    (
        ShuffledGrid,
        "nemotron_h_omni",
        "NemotronH_Omni_Reasoning_V3Processor",
        "NemotronH_Omni_Reasoning_V3ImageProcessor",
        _STRETCHED,
        _QWEN,
    ),
    (NavitGrid, "kimi_k25", "Kimi_K25Processor", "Kimi_K25ImageProcessor", _PADDED, _SAID),
):
    register(
        FamilySpec(
            name=_name,
            model_types=(_name,),
            processors=(_processor,),
            image_processors=(_image_processor,),
            towers=(),
            geometry=_geometry,
            prompt=_prompt,
            notes=_NOTES.get(_name, "") + ("" if _name not in _ALONE else "Prompts are run one at a time."),
            batches=_name not in _ALONE,
            videos=_FILMS.get(_name),
            no_videos=NOT_DECLARED if _name in _UNDECLARED else FamilySpec.no_videos,
        )
    )(_cls)
