"""Families whose grid follows the picture: resized to whole cells, patches merged in squares, no tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import Adapter, check_agreement
from vlmattn.adapters.canvas import Canvas
from vlmattn.adapters.plan import ImagePlan, raster
from vlmattn.adapters.registry import register
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower
from vlmattn.adapters.tower_cells import grid_cells
from vlmattn.adapters.videos import VideoSpec, grid_of, groups_of_frames, plan_frames, without
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import Box, ImageLayout, Tile
from vlmattn.core.tower_cells import TowerCells
from vlmattn.core.videos import Video

TOWER_ORDERS = {
    "hunyuan_vl_vision": "rows",
    "hy_v4_vl_vision": "rows",
    "kimi_k25_vision": "rows",
    "muse_glimmer_vision": "patch_windows",
    "muse_spark_vision": "patch_windows",
    "exaone4_5_vision": "windows",
    "paddleocr_vl_vision": "rows",
    "qwen2_5_omni_vision_encoder": "windows",
    "qwen2_5_vl_vision": "windows",
}
"""In which order towers hold patches, by ``vision_config.model_type``; ``blocks``, cell by cell, for all others."""


class DynamicGrid(Adapter):
    """One view per picture, stretched by less than a cell; rows and columns are those that the processor says.

    ``image_grid_thw`` counts patches before they are merged.
    """

    reads = True

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.merge = self.find_merge()
        vision = self.config.vision_config
        for name in ("spatial_merge_size", "merge_size"):
            check_agreement(self, name, self.merge, getattr(vision, name, self.merge))
        frames = getattr(self.image_processor, "temporal_patch_size", 1)
        check_agreement(self, "temporal_patch_size", frames, getattr(vision, "temporal_patch_size", frames))
        check_agreement(self, "patch_size", self.image_processor.patch_size, self.tower.patch_size)

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """A base tile of the whole picture for every ``temporal_patch_size`` frames."""
        maker = self.processor.video_processor
        check_agreement(self, "patch_size of videos", int(maker.patch_size), self.tower.patch_size)
        slices, rows, cols = self.video_grid(outputs, number)
        groups = groups_of_frames(len(video), self.frames_merged(maker))
        merge = int(maker.merge_size)
        if self.slices(slices) != len(groups) or rows % merge or cols % merge:
            raise LayoutError(
                f"video {number}: video_grid_thw {(slices, rows, cols)} does not hold {len(video)} frames in cells of"
                f" {merge} x {merge} patches"
            )
        grid_hw = (rows // merge, cols // merge)
        view_hw = (rows * self.tower.patch_size, cols * self.tower.patch_size)
        tile = Tile("base", grid_hw, self.video_box(video, view_hw))
        return plan_frames(video, groups, [tile], [self.frame_places(grid_hw)], view_hw)

    def frame_places(self, grid_hw: tuple[int, int]) -> NDArray[np.int32]:
        """(T, 3) places of the tokens of a grid of a video, its tile counted 0."""
        return raster(0, grid_hw)

    def video_grid(self, outputs: Mapping[str, Any], number: int) -> tuple[int, int, int]:
        """Slices in time, and rows and columns of patches, of video ``number`` of a batch."""
        return grid_of(outputs, number)

    def video_box(self, video: Video, view_hw: tuple[int, int]) -> Box:
        """What a view of ``view_hw`` pixels spans of a frame: as of a picture."""
        return self.box(video.wh, view_hw)

    def frames_merged(self, video_processor: Any) -> int:
        """How many frames share a grid, as the video processor says."""
        return int(video_processor.temporal_patch_size)

    def slices(self, told: int) -> int:
        """How many grids in time there are where ``video_grid_thw`` says ``told``."""
        return told

    def find_tower(self) -> Tower:
        """Any tower of the family: its input has no size of its own."""
        vision = self.config.vision_config
        return Tower(str(vision.model_type), 0, int(vision.patch_size), 0)

    def find_merge(self) -> int:
        """Patches along a side of a cell, as the image processor says."""
        return int(self.image_processor.merge_size)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """One base tile of the whole picture."""
        frames, rows, cols = (int(n) for n in np.asarray(outputs["image_grid_thw"][number]))
        if frames != 1 or rows % self.merge or cols % self.merge:
            raise LayoutError(
                f"picture {number}: image_grid_thw {(frames, rows, cols)} is not one frame of whole cells of"
                f" {self.merge} x {self.merge} patches"
            )
        grid_hw = (rows // self.merge, cols // self.merge)
        view_hw = (rows * self.tower.patch_size, cols * self.tower.patch_size)
        tile = Tile("base", grid_hw, self.box(image_wh, view_hw))
        return ImagePlan(ImageLayout(image_wh, (tile,), 1), raster(0, grid_hw), view_hw, 1)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """One view; its patches in the order that the tower is known for."""
        return grid_cells(self, picture, self.merge, TOWER_ORDERS.get(self.tower.name, "blocks"))

    def box(self, image_wh: tuple[int, int], view_hw: tuple[int, int]) -> Box:
        """What a view of ``view_hw`` pixels spans in pixels of the picture: all of it."""
        return Canvas.of(image_wh).resized(view_hw[1], view_hw[0]).box_xyxy

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """Pixels come as one row per patch."""
        if "pixel_values" not in inputs:
            return
        want = sum(p.view_hw[0] * p.view_hw[1] for p in plans) // self.tower.patch_size**2
        got = int(inputs["pixel_values"].shape[0])
        if got != want:
            raise LayoutError(f"the image processor makes {got} patches, image_grid_thw says {want}")


class FramedAsPictures(DynamicGrid):
    """The GLM line: grids of a video are written as pictures are, with their times between them."""

    def find_video_tokens(self) -> tuple[str, str]:
        """Image tokens stand for frames, too."""
        return str(self.processor.video_token), str(self.processor.image_token)


class CompressedGrid(DynamicGrid):
    """VideoLLaMA 3: a cell that hardly differs from the same cell of the frame before it has no token."""

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """A base tile per frame; cells that were left out are lost."""
        sizes = [int(np.prod(np.asarray(grid))) for grid in outputs["video_grid_thw"]]
        cells = [size // int(self.processor.video_processor.merge_size) ** 2 for size in sizes]
        first = sum(cells[:number])
        kept = np.asarray(outputs["video_compression_mask"], dtype=np.bool_)[first : first + cells[number]]
        return without(super().read_video(video, outputs, number), kept)


class PaddedGrid(FramedAsPictures):
    """Like :class:`DynamicGrid`, but the picture keeps its shape: it lies in the top-left corner, the rest is black.

    It keeps its size too, if it holds neither fewer than ``min_image_tokens`` nor more than ``max_image_tokens`` cells.
    """

    def box(self, image_wh: tuple[int, int], view_hw: tuple[int, int]) -> Box:
        """Beyond the right and bottom edge of the picture, where the view was padded."""
        if not self.image_processor.do_resize:
            return super().box(image_wh, view_hw)
        least = self._cell_side() ** 2 * int(self.image_processor.min_image_tokens)
        return _corner(image_wh, view_hw, grows=image_wh[0] * image_wh[1] < least)

    def video_box(self, video: Video, view_hw: tuple[int, int]) -> Box:
        """As of a picture; all frames together say whether they are too small."""
        maker = self.processor.video_processor
        if not maker.do_resize:
            return super().box(video.wh, view_hw)
        side = int(maker.patch_size) * int(maker.merge_size) * int(maker.patch_expand_factor)
        least = side**2 * int(maker.temporal_patch_size) * int(maker.min_image_tokens)
        return _corner(video.wh, view_hw, grows=len(video) * video.wh[0] * video.wh[1] < least)

    def _cell_side(self) -> int:
        # The PIL backend does not know of patch_expand_factor.
        pil = getattr(self.image_processor, "backend", "") == "pil"
        return self.tower.patch_size * self.merge * (1 if pil else int(self.image_processor.patch_expand_factor))


def _corner(image_wh: tuple[int, int], view_hw: tuple[int, int], *, grows: bool) -> Box:
    """What a view spans whose top-left corner holds a picture in its own shape, enlarged only if it ``grows``."""
    (width, height), (view_height, view_width) = image_wh, view_hw
    scale = min(view_height / height, view_width / width)
    scale = scale if grows else min(1.0, scale)
    inner = tuple(max(1, min(most, math.floor(n * scale))) for n, most in zip(image_wh, view_hw[::-1], strict=True))
    return Canvas.of(image_wh).resized(inner[0], inner[1]).window(0, 0, view_width, view_height).box_xyxy


_STRETCHED = ("base: stretched to whole cells near its own shape; a cell is merge_size x merge_size patches",)
_PADDED = ("base: shrunk if it must be, then padded at the right and bottom to whole cells of merge_size x merge_size",)

_QWEN = "<|im_start|>user\n{images}{question}<|im_end|>\n<|im_start|>assistant\n"
_GLM = "[gMASK]<sop><|user|>\n{images}{question}<|assistant|>\n"
_EXAONE = "[|user|]\n{images}{question}[|endofturn|]\n[|assistant|]\n"
_SOME_LAYERS = "Only some layers have attention; the others are linear and have no rows."
_CHOSEN = (
    "Only some layers have attention, and a row of theirs sees a chosen part of the tokens before it; the others are"
    " linear and have no rows."
)
_THINKER = "The thinker of an omni model: load(model.thinker, processor). Sound is not supported, nor that of videos."

_QWEN2_5_PROCESSORS = ("Qwen2_5_VLProcessor", "Qwen2VLProcessor")
_QWEN_IMAGES = ("Qwen2VLImageProcessor",)
# Checkpoints of the line come with each other's processors, which differ in videos only.
_GLM_PROCESSORS = ("Glm4vProcessor", "Glm46VProcessor")
_GLM_IMAGES = ("Glm4vImageProcessor", "Glm46VImageProcessor", "GlmgaImageProcessor")

_FRAMES = "stretched to whole cells near its own shape"
_TIMED = f"{_FRAMES}; its time is written before it"
_GLM_FILMS = VideoSpec(
    ("Glm4vVideoProcessor", "Glm46VVideoProcessor", "GlmgaVideoProcessor"),
    f"{_FRAMES}; its time is written after it",
    merged=2,
    beside_pictures=False,
)
_QWEN_FILMS = VideoSpec(("Qwen2VLVideoProcessor",), _FRAMES, merged=2)
_QWEN3_FILMS = VideoSpec(("Qwen3VLVideoProcessor",), _TIMED, merged=2)
_FILMS = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "exaone4_5", "hyperclovax_vision_v2"), _QWEN_FILMS),
    **dict.fromkeys(("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"), _QWEN_FILMS),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen4_exp"), _QWEN3_FILMS),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v", "glmga", "glm_ocr"), _GLM_FILMS),
    "video_llama_3": VideoSpec(
        ("VideoLlama3VideoProcessor",), f"{_TIMED}; cells that hardly change from the frame before have no token"
    ),
}
_CLASSES = {
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v", "glmga", "glm_ocr"), FramedAsPictures),
    "video_llama_3": CompressedGrid,
}

for _name, _processors, _image_processors, _prompt, _notes in (
    ("qwen2_vl", ("Qwen2VLProcessor",), _QWEN_IMAGES, _QWEN, ""),
    ("qwen2_5_vl", _QWEN2_5_PROCESSORS, _QWEN_IMAGES, _QWEN, ""),
    ("qwen3_vl", ("Qwen3VLProcessor",), _QWEN_IMAGES, _QWEN, ""),
    ("qwen3_vl_moe", ("Qwen3VLProcessor",), _QWEN_IMAGES, _QWEN, ""),
    ("qwen3_5", ("Qwen3VLProcessor",), _QWEN_IMAGES, _QWEN, _SOME_LAYERS),
    ("qwen3_5_moe", ("Qwen3VLProcessor",), _QWEN_IMAGES, _QWEN, _SOME_LAYERS),
    ("qwen4_exp", ("Qwen3VLProcessor",), _QWEN_IMAGES, _QWEN, _CHOSEN),
    ("qwen2_5_omni_thinker", ("Qwen2_5OmniProcessor",), _QWEN_IMAGES, _QWEN, _THINKER),
    ("qwen3_omni_moe_thinker", ("Qwen3OmniMoeProcessor",), _QWEN_IMAGES, _QWEN, _THINKER),
    ("glm4v", _GLM_PROCESSORS, _GLM_IMAGES, _GLM, ""),
    ("glm4v_moe", _GLM_PROCESSORS, _GLM_IMAGES, _GLM, ""),
    ("glm46v", _GLM_PROCESSORS, _GLM_IMAGES, _GLM, ""),
    ("glmga", _GLM_PROCESSORS, _GLM_IMAGES, _GLM, ""),
    ("glm_ocr", _GLM_PROCESSORS, _GLM_IMAGES, _GLM, ""),
    ("exaone4_5", ("Exaone4_5_Processor",), _QWEN_IMAGES, _EXAONE, ""),
    ("hyperclovax_vision_v2", ("HyperCLOVAXVisionV2Processor",), _QWEN_IMAGES, _QWEN, ""),
    ("video_llama_3", ("VideoLlama3Processor",), ("VideoLlama3ImageProcessor",), _QWEN, ""),
):
    register(
        FamilySpec(
            name=_name,
            model_types=(_name,),
            processors=_processors,
            image_processors=_image_processors,
            towers=(),
            geometry=_STRETCHED,
            prompt=_prompt,
            notes=_notes,
            videos=_FILMS.get(_name),
        )
    )(_CLASSES.get(_name, DynamicGrid))

register(
    FamilySpec(
        name="glm5_next",
        batches=False,
        model_types=("glm5_next",),
        processors=("Glm5NextProcessor",),
        image_processors=("Glm5NextImageProcessor",),
        towers=(),
        geometry=_PADDED,
        prompt=_GLM,
        notes=f"{_CHOSEN} Prompts are run one at a time.",
        videos=VideoSpec(
            ("Glm5NextVideoProcessor",),
            "padded at the right and bottom to whole cells; its time is written after it",
            merged=2,
            beside_pictures=False,
        ),
    )
)(PaddedGrid)
