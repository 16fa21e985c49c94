"""Maps of open_clip models: exact against attention in the open, on every kind of head, at the right place."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlmattn as va
from vlmattn.adapters.dual import DualEncoder
from vlmattn.capture.functional import attention_in_the_open
from vlmattn.core.errors import (
    CaptureError,
    ImageError,
    LayoutError,
    ModelLoadError,
    PromptError,
    SpecError,
    UnsupportedModel,
)
from vlmattn.maps import DUAL_METHODS, dual_map
from vlmattn.scene import make_scene

TEXT = {"context_length": 12, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1}
VIEW = {"image_size": 48, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
KINDS: dict[str, dict[str, Any]] = {
    "tok": VIEW,
    "avg": VIEW | {"pool_type": "avg"},
    "norm after the pool": VIEW | {"final_ln_after_pool": True},
    "attention pool": VIEW | {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2},
    "average of an attention pool": VIEW
    | {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2, "pool_type": "avg"},
    "parallel pools": VIEW | {"attentional_pool": "parallel", "attn_pooler_queries": 5, "attn_pooler_heads": 2},
    "queries and keys normed": VIEW | {"block_type": "custom", "qk_norm": True},
    "timm tok": {"global_pool": "token"},
    "timm avg": {"global_pool": "avg"},
    "timm attention pool": {"global_pool": "map", "class_token": False},
}


def tokenize(texts: list[str]) -> torch.Tensor:
    ids = torch.zeros(len(texts), 12, dtype=torch.long)
    for row, text in enumerate(texts):
        said = [1, *(2 + ord(c) % 290 for c in text)][:11]
        ids[row, : len(said) + 1] = torch.tensor([*said, 299])
    return ids


def timm_tower(**kind: Any) -> Any:
    from open_clip.timm_model import TimmModel
    from timm.models.vision_transformer import VisionTransformer

    tower = TimmModel("vit_tiny_patch16_224", 24, proj="linear")
    sizes = {"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    tower.trunk, tower.head = VisionTransformer(**sizes, **kind), torch.nn.Linear(32, 24)
    return tower


@lru_cache(maxsize=16)
def encoder(kind: str, mode: str = "shortest") -> DualEncoder:
    from open_clip.model import CLIP
    from open_clip.transform import image_transform

    torch.manual_seed(0)
    if "timm" in kind:
        model = CLIP(24, VIEW, TEXT)
        model.visual = timm_tower(**KINDS[kind])
    else:
        model = CLIP(32 if kind == "parallel pools" else 24, KINDS[kind], TEXT)
    with torch.no_grad():
        for name, weight in model.visual.named_parameters():
            if "in_proj_weight" in name or "qkv.weight" in name:
                weight.mul_(3)
    return DualEncoder(model.eval(), image_transform(48, is_train=False, resize_mode=mode), tokenize, kind)


def picture(wh: tuple[int, int] = (90, 60), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (wh[1], wh[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_in_the_open_changes_rounding_only(kind: str) -> None:
    found = encoder(kind)
    pixels = found.pixels([picture()])
    with torch.no_grad():
        plain = found.images(pixels)
        with attention_in_the_open(found.model.visual) as seen:
            opened = found.images(pixels)
    assert torch.allclose(plain, opened, atol=1e-5)
    assert all(torch.allclose(p.sum(-1), torch.ones(()), atol=1e-5) for p in seen.values())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in found.model.modules())


def explicit(kind: str, gradient_of: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(H, Q, N) of the layer that the embedding is read from, by torch's own slow path, and its gradient."""
    found = encoder(kind)
    visual = found.model.visual
    kept: list[torch.Tensor] = []
    if "timm" in kind:
        module = visual.trunk.attn_pool if "pool" in kind else visual.trunk.blocks[-1].attn
        module.fused_attn = False
        drop = torch.nn.Identity() if "pool" in kind else module.attn_drop
        if "pool" in kind:
            softmax = torch.Tensor.softmax
            inside: list[bool] = []
            handles = [
                module.register_forward_pre_hook(lambda *_: inside.append(True)),
                module.register_forward_hook(lambda *_: inside.clear()),
            ]

            def noted(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
                out = softmax(self, *args, **kwargs)
                if inside:
                    kept.append(out)
                return out

            torch.Tensor.softmax = noted  # type: ignore[method-assign]
        else:
            handles = [drop.register_forward_hook(lambda _m, _i, out: kept.append(out))]
    elif "normed" in kind:
        module = visual.transformer.resblocks[-1].attn
        module.use_fsdpa = False
        bmm = torch.bmm
        torch.bmm = torch.matmul
        handles = [module.attn_drop.register_forward_hook(lambda _m, _i, out: kept.append(out))]
    else:
        pool = {"parallel pools": "attn_pool_contrastive"}.get(kind, "attn_pool")
        module = (
            getattr(visual, pool).attn
            if "pool" in kind and "after" not in kind
            else visual.transformer.resblocks[-1].attn
        )
        forward = module.forward

        def weighted(q: Any, k: Any, v: Any, **_: Any) -> tuple[torch.Tensor, None]:
            out, weights = forward(q, k, v, need_weights=True, average_attn_weights=False)
            kept.append(weights)
            return out, None

        module.forward = weighted
        handles = []
    try:
        pixels = found.pixels([picture()]).requires_grad_(True)
        embedded = found.images(pixels)
        slope = None
        if gradient_of is not None:
            source = kept[-1]._base if "timm" not in kind and "normed" not in kind else kept[-1]
            slope = torch.autograd.grad((embedded[0] * gradient_of).sum(), source)[0].view(kept[-1].shape)[0]
        return kept[-1][0].detach(), slope
    finally:
        for handle in handles:
            handle.remove()
        if "timm" in kind:
            module.fused_attn = True
            if "pool" in kind:
                torch.Tensor.softmax = softmax  # type: ignore[method-assign]
        elif "normed" in kind:
            module.use_fsdpa = True
            torch.bmm = bmm
        else:
            del module.forward


def read(kind: str, rows: torch.Tensor) -> torch.Tensor:
    if kind in ("avg", "timm avg"):
        return rows[1:].mean(0)
    if kind == "average of an attention pool":
        return rows[1:].mean(0)
    return rows[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_row_is_that_of_plain_attention(kind: str) -> None:
    found = encoder(kind)
    rows, _ = explicit(kind)
    want = read(kind, rows.mean(0))[-found.layout((90, 60)).cells :].numpy()
    got = dual_map(found, picture(), "a cat", "attention")
    assert np.allclose(got.values[0].ravel(), want, atol=1e-6)
    assert 0.3 < got.total < 1.0001
    first = dual_map(found, picture(), "a cat", "attention", heads=[1])
    assert np.allclose(first.values[0].ravel(), read(kind, rows[1])[-want.size :].numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_plain_attention(kind: str) -> None:
    found = encoder(kind)
    with torch.no_grad():
        said = found.texts(["a cat"])[0]
    rows, slope = explicit(kind, said)
    assert slope is not None
    want = (rows * slope).clamp(min=0).mean(0).sum(0)[-found.layout((90, 60)).cells :].numpy()
    got = dual_map(found, picture(), "a cat", "gradient")
    assert want.max() > 0
    assert np.allclose(got.values[0].ravel(), want, atol=1e-6 * want.max() + 1e-9, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_similarity_is_the_head_on_one_patch(kind: str) -> None:
    """A picture of one patch over and over has, without positions, the embedding of that patch alone."""
    found = encoder(kind)
    got = dual_map(found, picture(), "a cat", "similarity")
    assert got.values[0].shape == found.trunk.grid_hw
    assert np.abs(got.values[0]).max() <= 1
    tokens = torch.randn(1, 1, 32)
    with torch.no_grad():
        alone = found.each_alone(tokens)[0, 0]
        visual = found.model.visual
        many = tokens.expand(1, 7, -1)
        if "timm" in kind:
            whole = visual.head(visual.trunk.forward_head(many))[0]
        else:
            whole = (visual._pool(many)[0] @ visual.proj)[0]
    assert torch.allclose(alone, torch.nn.functional.normalize(whole, dim=-1), atol=1e-5)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("wh", [(48, 48), (90, 60), (61, 97), (333, 777), (400, 100), (31, 20)])
def test_a_painted_spot_changes_the_patch_that_the_geometry_names(mode: str, wh: tuple[int, int]) -> None:
    found = encoder("tok", mode)
    layout = found.layout(wh)
    grey = np.full((wh[1], wh[0], 3), 96, dtype=np.uint8)
    painted = 0
    with torch.no_grad():
        plain = found.model.visual.conv1(found.pixels([Image.fromarray(grey)]))
        for row, col in [(0, 0), (5, 5), (0, 5), (5, 0), (2, 3), (3, 1)]:
            x0, y0, x1, y1 = layout.tiles[0].cell_box(row, col)
            dx, dy = 0.15 * (x1 - x0), 0.15 * (y1 - y0)
            box = [int(np.ceil(x0 + dx)), int(np.ceil(y0 + dy)), int(x1 - dx), int(y1 - dy)]
            box = [max(box[0], 0), max(box[1], 0), min(box[2], wh[0]), min(box[3], wh[1])]
            if box[2] <= box[0] or box[3] <= box[1]:
                continue
            spotted = grey.copy()
            spotted[box[1] : box[3], box[0] : box[2]] = 255
            change = (found.model.visual.conv1(found.pixels([Image.fromarray(spotted)])) - plain).abs().sum(1)[0]
            assert np.unravel_index(int(change.argmax()), change.shape) == (row, col)
            painted += 1
    assert painted >= 2


def test_the_model_in_the_box_points_at_what_is_named() -> None:
    clip = va.load_clip()
    hits, chances = [], []
    for seed in range(30):
        scene = make_scene(1000 + seed)
        for item in scene.objects[:2]:
            x, y = clip.map(scene.image, f"a {item.name}").peak_xy
            x0, y0, x1, y1 = item.box_xyxy
            hits.append(x0 <= x < x1 and y0 <= y < y1)
            chances.append((x1 - x0) * (y1 - y0) / (scene.image_wh[0] * scene.image_wh[1]))
    assert np.mean(hits) >= 0.8
    assert np.mean(hits) >= 3 * np.mean(chances)


def test_scores_prefer_what_is_there() -> None:
    clip = va.load_clip()
    right = 0
    for seed in range(20):
        scene = make_scene(2000 + seed)
        absent = next(n for n in ("red circle", "blue heart", "cyan ring") if n not in scene.names)
        there, other = clip.scores(scene.image, [f"a {scene.objects[0].name}", f"a {absent}"])
        right += there > other
    assert right >= 19
    assert clip.describe()["grid_hw"] == [8, 8]


def test_every_method_says_what_it_is(tmp_path: Any) -> None:
    clip = va.load_clip()
    for method in DUAL_METHODS:
        look = clip.map(make_scene(0).image, "a red circle", method)
        assert look.patch_map.provenance.unit
        assert look.patch_map.provenance.model == "scene-clip"
        assert look.save(tmp_path / f"{method}.png").is_file()


def test_what_cannot_be_is_refused() -> None:
    found = encoder("tok")
    with pytest.raises(SpecError, match="method must be one of"):
        dual_map(found, picture(), "a", "rollout")
    with pytest.raises(SpecError, match="has no heads"):
        dual_map(found, picture(), "a", "similarity", heads=[0])
    with pytest.raises(SpecError, match="heads must be among 0 to 1"):
        dual_map(found, picture(), "a", heads=[2])
    with pytest.raises(PromptError, match="longer than the model's 12 tokens"):
        dual_map(found, picture(), "a text that is too long")
    with pytest.raises(PromptError, match="none of them empty"):
        found.texts([" "])
    with pytest.raises(ImageError, match="mode RGB"):
        found.pixels([picture().convert("L")])


def test_other_models_are_refused() -> None:
    from open_clip.model import CLIP
    from open_clip.transform import image_transform
    from torchvision.transforms import Compose, RandomCrop

    with pytest.raises(UnsupportedModel, match="no open_clip model"):
        DualEncoder(torch.nn.Linear(1, 1), None, None)
    resnet = CLIP(24, {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 8}, TEXT)
    with pytest.raises(UnsupportedModel, match="no vision transformer"):
        DualEncoder(resnet, None, None)
    cascade = CLIP(24, VIEW | {"attentional_pool": "cascade", "attn_pooler_heads": 2}, TEXT)
    with pytest.raises(UnsupportedModel, match="cascaded"):
        DualEncoder(cascade, None, None)
    model = encoder("tok").model
    with pytest.raises(LayoutError, match="belongs to another model"):
        DualEncoder(model, image_transform(56, is_train=False), tokenize)
    with pytest.raises(LayoutError, match="step RandomCrop is not known"):
        DualEncoder(model, Compose([RandomCrop(48)]), tokenize)
    with pytest.raises(LayoutError, match="no list of steps"):
        DualEncoder(model, len, tokenize)
    with pytest.raises(CaptureError, match="no attention of Linear"), attention_in_the_open(torch.nn.Linear(1, 1)):
        pass


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        ("", {}, "name is empty"),
        ("/nowhere", {}, "has no open_clip_config.json"),
        ("ViT-Z-99", {}, "knows no model"),
        ("ViT-B-32", {}, "would be a random model: give pretrained="),
        (object(), {}, "without its preprocessing"),
    ],
)
def test_loading_says_what_is_missing(source: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ModelLoadError, match=match):
        va.load_clip(source, **options)


def test_a_model_in_the_hand_and_in_a_folder(tmp_path: Any) -> None:
    from vlmattn.scene import scene_model_folder

    held = encoder("tok")
    clip = va.load_clip(held.model, held.preprocess, held.tokenizer)
    assert "6 x 6 patches" in repr(clip)
    one, two = va.load_clip(scene_model_folder("scene-clip")), va.load_clip("scene-clip")
    scene = make_scene(3)
    assert one.scores(scene.image, ["a red circle"]) == two.scores(scene.image, ["a red circle"])
