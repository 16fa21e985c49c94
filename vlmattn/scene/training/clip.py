"""Trains ``scene-clip``: pictures of scenes and of their regions against what is true of them.

Every text of a batch that is true of a picture is a positive (SigLIP's sigmoid loss, Zhai et al., 2023): a scene goes
with its caption and with the names of all its objects, a region with the name of its object, with and without its size.
The vision tower starts from that of ``scene``, which has learned to say what lies on every patch; the rest starts from
nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from vlmattn.core.errors import ModelError
from vlmattn.core.files import replace_folder
from vlmattn.scene.clip import GREY, IMAGE_SIDE, clip_tokenizer, make_clip
from vlmattn.scene.generator import Scene, SceneRule, make_scene
from vlmattn.scene.objects import SceneObject
from vlmattn.scene.phrasings import with_article
from vlmattn.scene.questions import ask
from vlmattn.scene.training.export import note
from vlmattn.scene.training.loop import Loop
from vlmattn.scene.training.objectives import MEAN, STD
from vlmattn.scene.training.recipes import ClipRecipe


class ClipObjective(nn.Module):
    """Sigmoid loss over all pairs of pictures and texts.

    Args:
        model: an open_clip model with a logit bias.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor, true: torch.Tensor) -> dict[str, torch.Tensor]:
        """``pixels``: (B, H, W, 3) uint8. ``ids``: (T, C). ``true``: (B, T) 1 where a text is true of a picture."""
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        scaled = (scaled - scaled.new_tensor(MEAN).view(1, 3, 1, 1)) / scaled.new_tensor(STD).view(1, 3, 1, 1)
        seen, said, scale, *bias = self.model(scaled, ids)
        logits = scale * seen @ said.T + bias[0]
        signs = 2 * true - 1
        each = -F.logsigmoid(signs * logits)
        # As many positives as negatives in weight, per picture.
        weights = true / true.sum(1, keepdim=True).clamp(min=1) + 3 * (1 - true) / (1 - true).sum(1, keepdim=True)
        return {"contrast": (each * weights).sum(1).mean()}


class ClipBatches:
    """Half scenes, half regions; the texts that are true of any of them, and some that are true of none.

    Args:
        recipe: sizes.
    """

    def __init__(self, recipe: ClipRecipe) -> None:
        self.recipe, self.tokenizer = recipe, clip_tokenizer()

    def __call__(self, rng: np.random.Generator, step: int) -> tuple[object, ...]:
        """Pixels, token ids and which text is true of which picture."""
        pictures, texts = [], []
        for number in range(self.recipe.stage.pictures):
            scene = make_scene(rng, SceneRule())
            if number % 2:
                item = scene.objects[rng.integers(len(scene.objects))]
                pictures.append(region(rng, scene, item))
                texts.append(said_of(item))
            else:
                pictures.append(squared(scene.image))
                caption = ask(rng, "caption", scene)
                names = [with_article(n) for n in sorted(scene.names)]
                texts.append([*names, *([caption.answer] if caption else [])])
        lines = list(dict.fromkeys(text for true in texts for text in true))
        true = torch.tensor([[float(line in own) for line in lines] for own in texts])
        ids = self.tokenizer(lines, return_tensors="pt", padding="max_length", truncation=True, max_length=40)
        return torch.from_numpy(np.stack(pictures)), ids["input_ids"], true


def said_of(item: SceneObject) -> list[str]:
    """What is true of a region: the object's name, and the name with its size."""
    return [with_article(item.name), with_article(f"{item.size} {item.name}")]


def region(rng: np.random.Generator, scene: Scene, item: SceneObject) -> NDArray[np.uint8]:
    """(112, 112, 3) square round an object, up to twice as wide, off-centre by chance; grey beyond the picture."""
    side = round(item.side * rng.uniform(1.1, 2.0))
    slack = side - item.side
    left = item.box_xyxy[0] - round(slack * rng.random())
    top = item.box_xyxy[1] - round(slack * rng.random())
    return squared(scene.image, (left, top, left + side, top + side))


def squared(image: Image.Image, box: tuple[int, int, int, int] | None = None) -> NDArray[np.uint8]:
    """(112, 112, 3) of a part of a picture, padded to a square with grey and scaled."""
    left, top, right, bottom = box or (0, 0, *image.size)
    side = max(right - left, bottom - top)
    canvas = Image.new("RGB", (side, side), (GREY, GREY, GREY))
    dx, dy = (side - (right - left)) // 2, (side - (bottom - top)) // 2
    canvas.paste(image, (dx - left, dy - top))
    return np.asarray(canvas.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BICUBIC))


def train_clip(folder: Path, recipe: ClipRecipe, seed: int, base: Path, *, cpu: bool = False) -> None:
    """The one stage, on this process, from the vision tower of the model in ``base``; goes on from a checkpoint."""
    torch.manual_seed(seed)
    with TemporaryDirectory() as place:
        model = make_clip(Path(place))
    start_vision(model.visual, base)
    loop = Loop(folder, seed, cpu=cpu)
    loop.run(recipe.stage, 3, ClipObjective(model), ClipBatches(recipe))


def start_vision(visual: nn.Module, base: Path) -> None:
    """Give an open_clip vision tower the weights of a scene model's tower, all but last norm and projection."""
    from safetensors.torch import load_file

    held = {
        name.removeprefix("vision_tower."): weight.float()
        for name, weight in load_file(base / "model.safetensors").items()
        if name.startswith("vision_tower.")
    }
    weights = {
        "class_embedding": held["embeddings.class_embedding"],
        "positional_embedding": held["embeddings.position_embedding.weight"],
        "conv1.weight": held["embeddings.patch_embedding.weight"],
        "ln_pre.weight": held["pre_layrnorm.weight"],
        "ln_pre.bias": held["pre_layrnorm.bias"],
    }
    layers = {int(name.split(".")[2]) for name in held if name.startswith("encoder.layers.")}
    for layer in layers:
        theirs, ours = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for end in ("weight", "bias"):
            weights |= {f"{ours}{b}.{end}": held[f"{theirs}{a}.{end}"] for a, b in _SAME.items()}
            joined = torch.cat([held[f"{theirs}self_attn.{part}_proj.{end}"] for part in "qkv"])
            weights[f"{ours}attn.in_proj_{end}"] = joined
    missing, unexpected = visual.load_state_dict(weights, strict=False)
    if unexpected or set(missing) != {"proj", "ln_post.weight", "ln_post.bias"}:
        raise ModelError(f"{base} has another vision tower: {[*unexpected, *missing]} do not match")


_SAME = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
"""What transformers and open_clip call the same part of a layer."""


def export_clip(checkpoint: Path, folder: Path) -> Path:
    """Configuration, tokenizer and weights (float16) of a finished training, as open_clip loads a local folder."""
    from safetensors.torch import load_file, save_file

    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    make_clip(fresh)
    held = load_file(checkpoint / "weights.safetensors")
    save_file(
        {k.removeprefix("model."): v.half().contiguous() for k, v in held.items()},
        fresh / "open_clip_model.safetensors",
    )
    note(checkpoint, fresh)
    replace_folder(fresh, folder)
    return folder
