"""Training material: scenes as the model sees them, with what lies on each patch, made once and kept in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmattn.core.files import write_json
from vlmattn.scene.build import GRID_SIDE, IMAGE_SIDE, PATCH_SIDE
from vlmattn.scene.generator import TRAINING, Scene, make_scene
from vlmattn.scene.objects import SceneObject
from vlmattn.scene.training.leaning import make_leaning_scene

CLIP_MEAN_RGB = (122, 116, 104)
_FIRST_SEED = 100
_PARTS = 8

DRAWS: dict[str, Callable[[np.random.Generator], tuple[Scene, tuple[str, ...]]]] = {
    "plain": lambda rng: (make_scene(rng, TRAINING), ()),
    "leaning": make_leaning_scene,
}
"""Ways to draw a training scene; each gives the scene and what is claimed though it is not there."""


@dataclass(frozen=True)
class Samples:
    """K scenes.

    Attributes:
        pixels: (K, 112, 112, 3) uint8, padded to a square and scaled. on_patch: (K, 64) uint8, number of the object
            that covers most of each patch, from 1; 0 for background. scenes: objects only, pixels left out. claimed: of
            each scene, names of what answers claim although it is not there.
    """

    pixels: NDArray[np.uint8]
    on_patch: NDArray[np.uint8]
    scenes: tuple[Scene, ...]
    claimed: tuple[tuple[str, ...], ...]

    @cached_property
    def easy(self) -> NDArray[np.int64]:
        """Indices of the scenes of at most three objects."""
        return np.array([i for i, scene in enumerate(self.scenes) if len(scene.objects) <= 3])


def as_input(scene: Scene) -> tuple[NDArray[np.uint8], int, int, int]:
    """(112, 112, 3) pixels, and left, top and side of the square they came from, as the processor does it."""
    height, width = scene.pixels.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = CLIP_MEAN_RGB
    left, top = (side - width) // 2, (side - height) // 2
    square[top : top + height, left : left + width] = scene.pixels
    scaled = Image.fromarray(square).resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(scaled), left, top, side


def objects_on_patches(scene: Scene, left: int, top: int, side: int) -> NDArray[np.uint8]:
    """(64,) number of the object that covers most of each patch, from 1; 0 where none covers an eighth of it."""
    labels = np.zeros((GRID_SIDE, GRID_SIDE), dtype=np.uint8)
    most = np.zeros((GRID_SIDE, GRID_SIDE))
    edges = np.arange(GRID_SIDE)
    scale = IMAGE_SIDE / side / PATCH_SIDE
    for number, item in enumerate(scene.objects, 1):
        x0, y0, x1, y1 = (scale * (v + p) for v, p in zip(item.box_xyxy, (left, top, left, top), strict=True))
        across = np.clip(np.minimum(edges + 1, x1) - np.maximum(edges, x0), 0, 1)
        down = np.clip(np.minimum(edges + 1, y1) - np.maximum(edges, y0), 0, 1)
        cover = down[:, None] * across[None]
        better = (cover > most) & (cover > 0.12)
        most[better], labels[better] = cover[better], number
    return labels.ravel()


def make_samples(
    folder: Path,
    count: int,
    draw: str = "plain",
    *,
    processes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """``count`` training scenes (a multiple of 8), made in ``folder`` unless they are there already.

    Args:
        folder: where they are kept. count: how many. draw: one of :data:`DRAWS`. processes: that draw at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "samples.json"
    if not done.is_file():
        jobs = [(_FIRST_SEED + part, count // _PARTS, draw) for part in range(_PARTS)]
        with get_context("spawn").Pool(processes) as pool:
            parts = []
            for part in pool.imap(draw_part, jobs):
                parts.append(part)
                if progress is not None:
                    progress(len(parts), _PARTS)
        save_samples(folder, parts)
    return load_samples(folder)


Part = tuple[NDArray[np.uint8], NDArray[np.uint8], list[dict[str, Any]]]


def save_samples(folder: Path, parts: Sequence[Part]) -> None:
    """Write parts as :func:`load_samples` reads them; the last file to appear says that all are there."""
    np.save(folder / "pixels.npy", np.concatenate([p[0] for p in parts]))
    np.save(folder / "on_patch.npy", np.concatenate([p[1] for p in parts]))
    write_json(folder / "samples.json", [scene for p in parts for scene in p[2]])


def load_samples(folder: Path) -> Samples:
    """What :func:`make_samples` wrote."""
    records = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    scenes = tuple(_scene(record) for record in records)
    claimed = tuple(tuple(record.get("claimed", ())) for record in records)
    return Samples(pixels, np.load(folder / "on_patch.npy"), scenes, claimed)


def draw_part(job: tuple[int, int, str]) -> Part:
    """Pixels, patch numbers and records of one seed's scenes: (seed, count, one of :data:`DRAWS`)."""
    seed, count, draw = job
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = np.random.default_rng(seed)
    pixels = np.empty((count, IMAGE_SIDE, IMAGE_SIDE, 3), dtype=np.uint8)
    on_patch = np.empty((count, GRID_SIDE**2), dtype=np.uint8)
    records: list[dict[str, Any]] = []
    for index in range(count):
        scene, claimed = DRAWS[draw](rng)
        pixels[index], left, top, side = as_input(scene)
        on_patch[index] = objects_on_patches(scene, left, top, side)
        record = {"image_wh": scene.image_wh, "objects": [asdict(o) for o in scene.objects]}
        records.append(record | ({"claimed": list(claimed)} if claimed else {}))
    return pixels, on_patch, records


def _scene(record: dict[str, Any]) -> Scene:
    width, height = record["image_wh"]
    return Scene(np.broadcast_to(np.uint8(0), (height, width, 3)), _objects(record["objects"]))


def _objects(records: Sequence[dict[str, Any]]) -> tuple[SceneObject, ...]:
    return tuple(SceneObject(o["color"], o["shape"], o["size"], tuple(o["box_xyxy"])) for o in records)
