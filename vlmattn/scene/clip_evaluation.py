"""How well ``scene-clip`` names, retrieves and points: ``python -m vlmattn.scene.clip_evaluation [FOLDER]``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError
from vlmattn.core.files import atomic_write_text, write_json
from vlmattn.scene.clip import load_clip
from vlmattn.scene.generator import Scene
from vlmattn.scene.objects import COLORS, SHAPES, SIZES
from vlmattn.scene.phrasings import with_article
from vlmattn.scene.splits import split_item

if TYPE_CHECKING:
    import torch

NAMES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)


@dataclass(frozen=True)
class ClipScore:
    """Scores on unseen scenes; every share is from 0 to 1.

    Attributes:
        scenes: how many, of ``split`` and ``seed``. naming: share of single objects, cut out with some background, that
            are named right among all 64 colours and shapes (chance 1/64); by_size: the same by size. image_to_text,
            text_to_image: share of scenes whose own caption is the nearest of all, and the reverse; retrieval_chance:
            of one guess. pointing: share of named objects that the patch with the largest gradient × activation
            touches; pointing_chance: of a random patch; pointing_object: of a random object of the scene.
    """

    split: str
    seed: int
    scenes: int
    naming: float
    by_size: dict[str, float]
    image_to_text: float
    text_to_image: float
    retrieval_chance: float
    pointing: float
    pointing_chance: float
    pointing_object: float


def score_clip(
    model: Any, preprocess: Any, tokenizer: Any, *, split: str = "test", seed: int = 0, scenes: int = 200
) -> ClipScore:
    """Naming, retrieval and pointing of an open_clip model.

    Raises:
        SpecError: fewer than two scenes.
    """
    if scenes < 2:
        raise SpecError(f"retrieval needs at least two scenes, got {scenes}")
    drawn = [split_item(split, seed, index)[0] for index in range(scenes)]
    named = _named(model, preprocess, tokenizer, drawn)
    forth, back = _retrieved(model, preprocess, tokenizer, drawn)
    hits, patch, thing = _pointed(model, preprocess, tokenizer, drawn)
    by_size = {
        s: float(np.mean([ok for size, ok in named if size == s])) for s in SIZES if any(z == s for z, _ in named)
    }
    naming = float(np.mean([ok for _, ok in named]))
    return ClipScore(split, seed, scenes, naming, by_size, forth, back, 1 / scenes, hits, patch, thing)


def gradient_map(model: Any, pixels: torch.Tensor, ids: torch.Tensor) -> NDArray[np.float32]:
    """(rows, cols) gradient × activation of the patches entering the last block, for the cosine of a picture and a
    text.

    Args:
        model: an open_clip ViT. pixels: (1, 3, H, W), preprocessed. ids: (1, C).
    """
    import torch

    held: list[torch.Tensor] = []
    block = model.visual.transformer.resblocks[-1]

    def keep(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        held.append(given[0].detach().requires_grad_())
        return (held[-1], *given[1:])

    hook = block.register_forward_pre_hook(keep)
    try:
        with torch.enable_grad():
            seen = model.encode_image(pixels, normalize=True)
            cosine = (seen * model.encode_text(ids, normalize=True).detach()).sum()
            (gradient,) = torch.autograd.grad(cosine, held[0])
    finally:
        hook.remove()
    values = (gradient * held[0].detach()).sum(-1)[0, 1:].clamp(min=0)
    rows, cols = model.visual.grid_size
    return values.reshape(rows, cols).float().numpy()


def _named(model: Any, preprocess: Any, tokenizer: Any, drawn: Sequence[Scene]) -> list[tuple[str, bool]]:
    rng = np.random.default_rng(0)
    texts = _texts(model, tokenizer, [with_article(n) for n in NAMES])
    pieces, truth = [], []
    for scene in drawn:
        item = scene.objects[rng.integers(len(scene.objects))]
        slack = round(item.side * 0.25)
        x0, y0, x1, y1 = item.box_xyxy
        pieces.append(scene.image.crop((max(x0 - slack, 0), max(y0 - slack, 0), x1 + slack, y1 + slack)))
        truth.append(item)
    best = (_images(model, preprocess, pieces) @ texts.T).argmax(1).tolist()
    return [(item.size, NAMES[found] == item.name) for item, found in zip(truth, best, strict=True)]


def _retrieved(model: Any, preprocess: Any, tokenizer: Any, drawn: Sequence[Scene]) -> tuple[float, float]:
    captions = [_caption(scene) for scene in drawn]
    near = _images(model, preprocess, [s.image for s in drawn]) @ _texts(model, tokenizer, captions).T
    own = np.arange(len(drawn))
    return float(np.mean(near.argmax(1).numpy() == own)), float(np.mean(near.argmax(0).numpy() == own))


def _caption(scene: Scene) -> str:
    order = sorted(scene.objects, key=lambda o: o.center_xy)
    return ", ".join(with_article(o.name) for o in order)


def _pointed(model: Any, preprocess: Any, tokenizer: Any, drawn: Sequence[Scene]) -> tuple[float, float, float]:
    hits, patch, thing = [], [], []
    for scene in drawn:
        pixels = preprocess(scene.image)[None]
        touched = [_touched(scene, o.box_xyxy, model.visual.grid_size) for o in scene.objects]
        for item, mask in zip(scene.objects, touched, strict=True):
            found = gradient_map(model, pixels, tokenizer([with_article(item.name)]))
            hits.append(bool(mask.flat[int(found.argmax())]))
            patch.append(float(mask.mean()))
            thing.append(1 / len(scene.objects))
    return float(np.mean(hits)), float(np.mean(patch)), float(np.mean(thing))


def _touched(scene: Scene, box: tuple[int, int, int, int], grid_hw: tuple[int, int]) -> NDArray[np.bool_]:
    # Patches that a box touches; the picture is padded to a square in the middle.
    width, height = scene.image_wh
    side = max(width, height)
    left, top = (side - width) / 2, (side - height) / 2
    rows, cols = np.arange(grid_hw[0]), np.arange(grid_hw[1])
    scale_y, scale_x = grid_hw[0] / side, grid_hw[1] / side
    down = (rows + 1 > (box[1] + top) * scale_y) & (rows < (box[3] + top) * scale_y)
    across = (cols + 1 > (box[0] + left) * scale_x) & (cols < (box[2] + left) * scale_x)
    return down[:, None] & across[None]


def _images(model: Any, preprocess: Any, pictures: Sequence[Any], batch: int = 64) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        parts = (pictures[i : i + batch] for i in range(0, len(pictures), batch))
        return torch.cat(
            [model.encode_image(torch.stack([preprocess(p) for p in part]), normalize=True) for part in parts]
        )


def _texts(model: Any, tokenizer: Any, lines: Sequence[str]) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        return torch.as_tensor(model.encode_text(tokenizer(list(lines)), normalize=True))


def clip_card(score: dict[str, Any], notes: str) -> str:
    """The model card as Markdown, in the Hugging Face format."""
    head = "---\nlicense: apache-2.0\nlanguage: en\nlibrary_name: open_clip\n"
    head += "pipeline_tag: zero-shot-image-classification\n---\n"
    sizes = ", ".join(f"{size} {value:.3f}" for size, value in score["by_size"].items())
    rows = [
        ("naming a cut-out object among 64 names", score["naming"], 1 / len(NAMES)),
        ("nearest caption of a scene", score["image_to_text"], score["retrieval_chance"]),
        ("nearest scene of a caption", score["text_to_image"], score["retrieval_chance"]),
        ("gradient × activation points at the named object", score["pointing"], score["pointing_chance"]),
    ]
    table = "\n".join(f"| {what} | {value:.3f} | {chance:.3f} |" for what, value, chance in rows)
    split = f"Split `{score['split']}`, seed {score['seed']}, {score['scenes']} unseen scenes on unseen backgrounds"
    return (
        f"{head}\n{notes.strip()}\n\n## Scores\n\n{split}, {score['date']}.\n\n"
        f"| what | share | chance |\n|---|---|---|\n{table}\n\n"
        f"Naming by size: {sizes}. A random object of the scene is the named one in {score['pointing_object']:.3f}.\n"
    )


def main() -> None:
    """Score a folder and write ``scores.json`` and ``README.md`` into it; without one, print the scores of the box."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--scenes", type=int, default=200)
    given = parser.parse_args()
    score = asdict(score_clip(*load_clip(given.folder), scenes=given.scenes))
    score |= {"date": datetime.now(UTC).strftime("%Y-%m-%d")}
    if given.folder is None:
        print(score)
        return
    notes = given.folder / "notes.md"
    write_json(given.folder / "scores.json", score)
    text = clip_card(score, notes.read_text(encoding="utf-8") if notes.is_file() else f"# {given.folder.name}")
    print(atomic_write_text(given.folder / "README.md", text))


if __name__ == "__main__":
    main()
