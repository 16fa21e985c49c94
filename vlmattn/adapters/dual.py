"""open_clip models: a vision transformer and a text tower that meet in one embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vlmattn.adapters.canvas import Canvas
from vlmattn.core.errors import ImageError, LayoutError, PromptError, UnsupportedModel
from vlmattn.core.layout import ImageLayout, Tile

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_KEEP_PLACES = ("MaybeConvertMode", "MaybeToTensor", "ToTensor", "PILToTensor", "ConvertImageDtype", "Normalize")


@dataclass(frozen=True)
class VisionTrunk:
    """The vision transformer of an open_clip model.

    Attributes:
        blocks: its layers. prefix: tokens before the patches. grid_hw: rows and columns of patches. input_hw: pixels.
        pool: ``tok`` (the first token is read), ``avg`` (the mean of patches) or ``attention`` (a pooling module).
        pooler: name of the pooling module below the visual tower; empty without one.
        queries: which queries of the pooling module are read: ``first``, ``rest`` or ``all``.
    """

    blocks: Any
    prefix: int
    grid_hw: tuple[int, int]
    input_hw: tuple[int, int]
    pool: str
    pooler: str = ""
    queries: str = "first"


class DualEncoder:
    """An open_clip model with its preprocessing and tokenizer, and where its patches lie.

    Args:
        model: as open_clip's factory makes it; it is used in eval mode. preprocess: its preprocessing for evaluation.
        tokenizer: gives (T, C) ids of texts. name: what it is called.

    Raises:
        UnsupportedModel: its vision tower is no vision transformer that is known here.
        LayoutError: the preprocessing makes another size than the tower takes, or does something unknown.
    """

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, name: str = "") -> None:
        self.model, self.preprocess, self.tokenizer = model.eval(), preprocess, tokenizer
        self.name = name or type(model).__name__
        self.trunk = trunk_of(model)
        self.layout((640, 480))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def layout(self, image_wh: tuple[int, int]) -> ImageLayout:
        """The one grid of a picture of ``image_wh`` pixels."""
        canvas = prepared(self.preprocess, image_wh)
        height, width = self.trunk.input_hw
        if canvas.wh != (width, height):
            raise LayoutError(
                f"a picture of {image_wh[0]} x {image_wh[1]} is prepared as {canvas.wh[0]} x {canvas.wh[1]} pixels, but"
                f" the vision tower takes {width} x {height}: this preprocessing belongs to another model"
            )
        rows, cols = self.trunk.grid_hw
        patch = height // rows
        if patch != width // cols:
            raise LayoutError(f"patches must be square, got {height // rows} x {width // cols} pixels")
        grid_hw, box = canvas.grid(patch)
        if grid_hw != self.trunk.grid_hw:
            raise LayoutError(f"{width} x {height} pixels hold {grid_hw} patches, the tower has {self.trunk.grid_hw}")
        return ImageLayout(image_wh, (Tile("base", grid_hw, box),), 1)

    def pixels(self, images: Sequence[Image]) -> torch.Tensor:
        """(B, 3, H, W) of pictures in mode RGB."""
        import torch

        for number, image in enumerate(images):
            if getattr(image, "mode", None) != "RGB":
                raise ImageError(f"picture {number} must be a PIL image in mode RGB, got {type(image).__name__}")
        weight = next(self.model.visual.parameters())
        return torch.stack([self.preprocess(image) for image in images]).to(self.device, weight.dtype)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(T, D) normalised embeddings.

        Raises:
            PromptError: no text, or one that is cut off at the model's context length.
        """
        if not texts or any(not isinstance(t, str) or not t.strip() for t in texts):
            raise PromptError("texts must be one or more sentences or words, and none of them empty")
        ids = self.tokenizer(list(texts))
        longer = self.tokenizer([f"{t} it" for t in texts])
        cut = [t for t, same in zip(texts, (ids == longer).all(dim=1).tolist(), strict=True) if same]
        if cut:
            raise PromptError(f"the text is longer than the model's {ids.shape[1]} tokens and would be cut: {cut[0]!r}")
        return self.model.encode_text(ids.to(self.device), normalize=True)

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, D) normalised embeddings."""
        return self.model.encode_image(pixels, normalize=True)

    def each_alone(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, P, D) normalised: what the model's head makes of each of (B, P, W) patch tokens if there were no others.

        A head that leaves out the first token, or averages, or attends, gives the same for one token put twice.
        """
        import torch

        batch, count, width = tokens.shape
        twice = tokens.reshape(-1, 1, width).expand(-1, 2, -1)
        visual = self.model.visual
        if hasattr(visual, "trunk"):
            padded = torch.cat([twice[:, :1].expand(-1, max(self.trunk.prefix - 1, 0), -1), twice], dim=1)
            made = visual.head(visual.trunk.forward_head(padded))
        else:
            made = visual._pool(twice)[0]
            made = made if visual.proj is None else made @ visual.proj
        return torch.nn.functional.normalize(made, dim=-1).view(batch, count, -1)

    def __repr__(self) -> str:
        rows, cols = self.trunk.grid_hw
        return f"{type(self).__name__}({self.name!r}, {rows} x {cols} patches, pool={self.trunk.pool!r})"


def trunk_of(model: Any) -> VisionTrunk:
    """The vision transformer of an open_clip model.

    Raises:
        UnsupportedModel: no vision tower, or one that is no vision transformer with a known head.
    """
    visual = getattr(model, "visual", None)
    if visual is None or not callable(getattr(model, "encode_text", None)):
        raise UnsupportedModel(f"{type(model).__name__} is no open_clip model: it lacks visual or encode_text")
    if hasattr(visual, "conv1") and hasattr(visual, "transformer"):
        return _open_clip_trunk(visual)
    if hasattr(getattr(visual, "trunk", None), "blocks") and hasattr(visual.trunk, "patch_embed"):
        return _timm_trunk(visual)
    raise UnsupportedModel(
        f"vision tower {type(visual).__name__} is not supported: it is no vision transformer, so it has no patches"
    )


def _open_clip_trunk(visual: Any) -> VisionTrunk:
    common = (visual.transformer.resblocks, 1, _pair(visual.grid_size), _pair(visual.image_size))
    if visual.attn_pool is None:
        if visual.pool_type not in ("tok", "avg"):
            raise UnsupportedModel(f"pool_type {visual.pool_type!r} gives no embedding of the whole picture")
        return VisionTrunk(*common, visual.pool_type)
    if visual.attn_pool_contrastive is not None:
        if visual.attn_pool_type != "parallel":
            raise UnsupportedModel("cascaded attention pooling reads patches through another pool: not supported")
        return VisionTrunk(*common, "attention", "attn_pool_contrastive.attn", "first")
    read = {"tok": "first", "avg": "rest"}.get(visual.pool_type)
    if read is None:
        raise UnsupportedModel(f"attention pooling with pool_type {visual.pool_type!r} gives no single embedding")
    return VisionTrunk(*common, "attention", "attn_pool.attn", read)


def _timm_trunk(visual: Any) -> VisionTrunk:
    trunk = visual.trunk
    embed = trunk.patch_embed
    common = (trunk.blocks, int(trunk.num_prefix_tokens), _pair(embed.grid_size), _pair(embed.img_size))
    pool = str(getattr(trunk, "global_pool", ""))
    if getattr(trunk, "attn_pool", None) is not None:
        return VisionTrunk(
            *common, "attention", "trunk.attn_pool", "first" if trunk.attn_pool.pool == "token" else "all"
        )
    if pool not in ("token", "avg") or (pool == "avg" and common[1] > 1):
        raise UnsupportedModel(f"pooling {pool!r} of a timm tower with {common[1]} leading tokens is not supported")
    return VisionTrunk(*common, "tok" if pool == "token" else "avg")


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def prepared(preprocess: Any, image_wh: tuple[int, int]) -> Canvas:
    """Where the pixels that open_clip's preprocessing makes lie in a picture of ``image_wh`` pixels.

    Raises:
        LayoutError: a step whose geometry is not known here.
    """
    canvas = Canvas.of(image_wh)
    steps = getattr(preprocess, "transforms", None)
    if steps is None:
        raise LayoutError(f"preprocessing {type(preprocess).__name__} is no list of steps: its geometry is not known")
    for step in steps:
        canvas = _after(step, canvas)
    return canvas


def _after(step: Any, canvas: Canvas) -> Canvas:
    name = type(step).__name__
    if name == "Resize":
        return canvas.resized(*_resized(canvas.wh, step.size))
    if name == "ResizeKeepRatio":
        height, width = step.get_params(SimpleNamespace(size=canvas.wh), step.size, step.longest)
        return canvas.resized(width, height)
    if name in ("CenterCrop", "CenterCropOrPad"):
        height, width = _pair(step.size)
        return canvas.window(_offset(canvas.wh[0], width), _offset(canvas.wh[1], height), width, height)
    if name in _KEEP_PLACES or getattr(step, "__name__", "").startswith("_convert"):
        return canvas
    raise LayoutError(f"preprocessing step {name} is not known: where it puts pixels cannot be said")


def _resized(wh: tuple[int, int], size: Any) -> tuple[int, int]:
    # torchvision: a number is the shorter side, the other is rounded down; a pair is height and width.
    if not isinstance(size, int) and len(size) == 2:
        return int(size[1]), int(size[0])
    edge = int(size if isinstance(size, int) else size[0])
    long = int(edge * max(wh) / min(wh))
    return (edge, long) if wh[0] <= wh[1] else (long, edge)


def _offset(size: int, crop: int) -> int:
    # Where a centre crop begins; negative where the picture is padded, the odd pixel behind it.
    return -((crop - size) // 2) if crop > size else round((size - crop) / 2)
