"""``scene-clip``: a small open_clip model of scenes and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmattn.core.errors import ModelLoadError
from vlmattn.core.files import write_json

IMAGE_SIDE = 112
CONTEXT = 40
GREY = 116
"""What oblong pictures are padded with."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_tokenizer() -> Any:
    """The scene model's tokens, between beginning and end, padded on the right."""
    from tokenizers.processors import TemplateProcessing

    from vlmattn.scene.build import make_tokenizer

    tokenizer = make_tokenizer()
    ends = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.padding_side, tokenizer.model_max_length = "right", CONTEXT
    return tokenizer


def clip_config(tokenizer: Any) -> dict[str, Any]:
    """What ``open_clip_config.json`` says: 1.6 million parameters, 64 patches, a sigmoid loss's bias."""
    model = {
        "embed_dim": 128,
        "init_logit_scale": 2.3,
        "init_logit_bias": -8.0,
        "vision_cfg": {
            "image_size": IMAGE_SIDE,
            "patch_size": 14,
            "width": 128,
            "layers": 4,
            "head_width": 32,
            "mlp_ratio": 3.0,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "scene-clip",
            "width": 128,
            "heads": 4,
            "layers": 3,
            "mlp_ratio": 3.0,
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
            "pad_id": tokenizer.pad_token_id,
        },
    }
    preprocess = {
        "mean": list(_MEAN),
        "std": list(_STD),
        "interpolation": "bicubic",
        "resize_mode": "longest",
        "fill_color": GREY,
    }
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def make_clip(folder: Path) -> Any:
    """An untrained model, made by open_clip's factory from a configuration written to ``folder``."""
    import open_clip

    tokenizer = clip_tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    write_json(folder / "open_clip_config.json", clip_config(tokenizer))
    return open_clip.create_model(f"local-dir:{folder}")


def load_clip(folder: str | Path | None = None) -> tuple[Any, Any, Any]:
    """Model (float32), preprocessing and tokenizer, as open_clip's own factory loads them.

    Args:
        folder: default: the one in the box.

    Raises:
        ModelLoadError: nothing loadable there.

    Example:
        >>> from vlmattn.scene.clip import load_clip
        >>> model, preprocess, tokenizer = load_clip()
        >>> tokenizer(["a red circle"]).shape[0]
        1
    """
    import open_clip
    from safetensors import SafetensorError

    from vlmattn.scene.box import scene_model_folder

    place = Path(folder) if folder is not None else scene_model_folder("scene-clip")
    if not (place / "open_clip_model.safetensors").is_file():
        raise ModelLoadError(f"{place} holds no open_clip model: open_clip_model.safetensors is missing")
    try:
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{place}")
        return model.float().eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{place}")
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelLoadError(f"{place} could not be loaded by open_clip: {error}") from error
