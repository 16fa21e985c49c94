"""open_clip models in the hand: how well texts fit a picture, and which patches they go with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmattn.adapters.dual import DualEncoder
from vlmattn.api.look import Look
from vlmattn.api.weights import first_line
from vlmattn.core.errors import ModelLoadError
from vlmattn.core.images import Picture, load_image
from vlmattn.display import Facts
from vlmattn.maps import dual_map


class Clip:
    """An open_clip model that can be shown pictures and told texts.

    Attributes:
        encoder: model, preprocessing, tokenizer and geometry.
    """

    def __init__(self, encoder: DualEncoder) -> None:
        self.encoder = encoder

    @property
    def name(self) -> str:
        """Of the model."""
        return self.encoder.name

    def scores(self, image: Any, texts: Sequence[str]) -> list[float]:
        """Cosine of a picture with each of T texts, -1 to 1.

        Raises:
            ImageError, PromptError: no readable picture, or a text that is empty or too long.
        """
        import torch

        with torch.inference_mode():
            seen = self.encoder.images(self.encoder.pixels([_picture(image).image]))
            said = self.encoder.texts(list(texts))
            return [float(v) for v in (said.float() @ seen[0].float()).tolist()]

    def map(self, image: Any, text: str, method: str = "gradient", *, heads: Sequence[int] | None = None) -> Look:
        """Which patches go with a text; see :func:`vlmattn.maps.dual_map`."""
        picture = _picture(image)
        return Look(dual_map(self.encoder, picture.image, text, method, heads=heads), picture)

    def describe(self) -> Facts:
        """What is known of the model, as plain values."""
        trunk = self.encoder.trunk
        told = {
            "model": self.name,
            "family": "open_clip",
            "grid_hw": list(trunk.grid_hw),
            "input_hw": list(trunk.input_hw),
            "leading_tokens": trunk.prefix,
            "pool": trunk.pool,
            "layers": len(trunk.blocks),
        }
        return Facts(told)

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()

    def __repr__(self) -> str:
        rows, cols = self.encoder.trunk.grid_hw
        return f"Clip({self.name!r}, {rows} x {cols} patches)"


def load_clip(
    source: Any = "scene-clip",
    preprocess: Any = None,
    tokenizer: Any = None,
    *,
    pretrained: str | None = None,
    device: Any = None,
    **options: Any,
) -> Clip:
    """An open_clip model, ready to be shown pictures.

    Args:
        source: ``scene-clip`` (in the box), a name that open_clip knows (``ViT-B-32``), ``hf-hub:…``, a local folder,
            or an open_clip model that you hold.
        preprocess, tokenizer: its preprocessing for evaluation and its tokenizer, when ``source`` is a model.
        pretrained: open_clip's tag of the weights (``laion2b_s34b_b79k``), for names that have several.
        device: default: the first GPU if there is one, else the CPU. options: go to open_clip's factory.

    Raises:
        ModelLoadError: nothing loadable there, or a name without weights.
        UnsupportedModel, LayoutError: no vision transformer, or preprocessing that does not belong to it.

    Example:
        >>> from vlmattn.api import load_clip
        >>> load_clip("scene-clip")
        Clip('scene-clip', 8 x 8 patches)
    """
    if not isinstance(source, (str, Path)):
        if preprocess is None or tokenizer is None:
            raise ModelLoadError(
                f"{type(source).__name__} came without its preprocessing or tokenizer: load_clip(model, preprocess,"
                " tokenizer)"
            )
        return Clip(DualEncoder(_moved(source, device, default=False), preprocess, tokenizer))
    if source == "scene-clip":
        from vlmattn.scene.clip import load_clip as load_scene_clip

        model, preprocess, tokenizer = load_scene_clip()
    else:
        model, preprocess, tokenizer = _from_open_clip(_name(source), pretrained, options)
    return Clip(DualEncoder(_moved(model, device), preprocess, tokenizer, str(source)))


def _name(source: str | Path) -> str:
    if not str(source).strip():
        raise ModelLoadError("the model's name is empty: give a name that open_clip knows, a folder, or 'scene-clip'")
    path = Path(source).expanduser()
    if isinstance(source, Path) or path.is_dir() or str(source).startswith((".", "/", "~")):
        if not (path / "open_clip_config.json").is_file():
            raise ModelLoadError(f"{path} has no open_clip_config.json: a folder of an open_clip model is expected")
        return f"local-dir:{path}"
    return str(source)


def _from_open_clip(name: str, pretrained: str | None, options: dict[str, Any]) -> tuple[Any, Any, Any]:
    import open_clip

    local = name.startswith(("local-dir:", "hf-hub:"))
    if not local and name not in open_clip.list_models():
        raise ModelLoadError(
            f"open_clip knows no model {name!r}; see open_clip.list_models(), or give hf-hub:… or a folder"
        )
    if not local and pretrained is None:
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise ModelLoadError(
            f"{name} without weights would be a random model: give pretrained=, one of {', '.join(tags) or 'a file'}"
        )
    try:
        model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=pretrained, **options)
        return model, preprocess, open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip and the hub raise anything
        raise ModelLoadError(f"{name} could not be loaded by open_clip: {first_line(error)}") from error


def _moved(model: Any, device: Any, *, default: bool = True) -> Any:
    import torch

    if device is None and not default:
        return model
    where = device if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return model.to(where)
    except (RuntimeError, AssertionError) as error:
        raise ModelLoadError(f"device {where!r} cannot be used: {first_line(error)}") from error


def _picture(image: Any) -> Picture:
    return image if isinstance(image, Picture) else load_image(image)
