"""A model type that nobody declared is guessed and proved, or refused with what to write."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.tiny import TINY
from tests.tiny_models import build
from vlmattn.adapters import adapter_for, registry
from vlmattn.adapters.derived import Derived, derivable, derive
from vlmattn.core.errors import UnsupportedModel


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.families()
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    monkeypatch.setattr(registry, "_LOADED", set(registry._LOADED))


def undeclared(*names: str) -> None:
    for name in names:
        del registry._FAMILIES[name]


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen3_vl", "glm4v"])
def test_a_grid_that_follows_the_picture_is_derived(kind: str) -> None:
    model, processor = TINY[kind]()
    declared = adapter_for(model, processor)
    undeclared(declared.spec.name)
    found = adapter_for(model, processor)
    assert isinstance(found, Derived)
    assert found.plan((333, 777)).layout == declared.plan((333, 777)).layout


@pytest.mark.parametrize("options", [{}, {"do_pad": True}, {"tower": "siglip"}])
def test_one_fixed_view_is_derived(options: dict[str, Any]) -> None:
    model, processor = build("llava", **options)
    declared = adapter_for(model, processor)
    undeclared(*[f.name for f in registry.families() if "llava" in f.model_types])
    found = adapter_for(model, processor)
    assert isinstance(found, Derived)
    assert found.plan((90, 60)).layout == declared.plan((90, 60)).layout


def test_what_the_guess_gets_wrong_is_refused_with_an_adapter_to_write() -> None:
    model, processor = build("llava_next")
    undeclared("llava_next")
    with pytest.raises(UnsupportedModel, match="none could be derived") as refused:
        adapter_for(model, processor)
    told = str(refused.value)
    assert "check_adapter(model, processor)" in told
    example = re.search(r"\n\n(from .*?)\n\nand prove", told, flags=re.DOTALL)
    assert example is not None
    assert len(example[1].splitlines()) <= 15
    names: dict[str, Any] = {}
    exec(example[1], names)
    assert registry._FAMILIES["mine"][1] is names["Mine"]
    assert registry._FAMILIES["mine"][0].model_types == ("llava_next",)


def test_a_wrong_merge_size_is_found_by_the_proof() -> None:
    model, processor = TINY["qwen2_vl"]()
    processor.image_processor.merge_size = 4
    with pytest.raises(UnsupportedModel, match="none could be derived"):
        derive(model, processor)


@pytest.mark.parametrize("kind", ["glm5_next", "kimi_k25"])
def test_a_guess_that_fits_in_number_and_not_in_place_is_found_by_painting(kind: str) -> None:
    """Their processors pad where the guess stretches: as many tokens, elsewhere."""
    model, processor = TINY[kind]()
    undeclared(adapter_for(model, processor).spec.name)
    with pytest.raises(UnsupportedModel, match=r"none could be derived .*BREAKS THE CONTRACT[\s\S]*painting"):
        adapter_for(model, processor)


def test_what_gives_nothing_to_guess_from() -> None:
    model, processor = build("llava")
    assert derivable(model.config)
    assert not derivable(model.config.text_config)
    model.config.vision_config.patch_size = None
    with pytest.raises(UnsupportedModel, match="none could be derived"):
        derive(model, processor)


def _padded(picture: Image.Image) -> Image.Image:
    """In the middle of a grey square."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), (96, 96, 96))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _cropped(picture: Image.Image) -> Image.Image:
    x, y = picture.width // 6, picture.height // 6
    return picture.crop((x, y, picture.width - x, picture.height - y))


Rule = Callable[[Image.Image, int], Image.Image]
OWN_RULES: dict[str, Rule] = {
    "square": lambda p, _: _mirrored(p) if p.width == p.height and p.width > 64 else p,
    "wide": lambda p, _: _padded(p) if 1 < p.width / p.height < 2 and p.width < 1000 else p,
    "tall": lambda p, _: _padded(p) if 1 < p.height / p.width < 2 else p,
    "thin": lambda p, _: _padded(p) if max(p.size) > 4 * min(p.size) else p,
    "tiny": lambda p, _: _mirrored(p) if max(p.size) < 28 else p,
    "large": lambda p, _: _cropped(p) if p.width * p.height > 1_000_000 else p,
    "several": lambda p, count: _padded(p) if count > 1 else p,
}
"""What a processor may do with pictures of one kind only, with as many tokens as the guess says."""


def with_own_rule(processor: Any, rule: Rule) -> None:
    """Let a processor treat pictures by a rule that its settings do not tell."""
    plain = type(processor)

    class Own(plain):  # type: ignore[misc, valid-type]
        def __call__(self, images: Any = None, **options: Any) -> Any:
            groups = images if isinstance(images[0], list) else [images]
            return super().__call__(images=[[rule(p, len(g)) for p in g] for g in groups], **options)

    processor.__class__ = Own


@pytest.mark.parametrize("shape", sorted(OWN_RULES))
@pytest.mark.parametrize("kind", ["qwen2_vl", "llava"])
def test_a_rule_for_pictures_of_one_shape_is_found_by_painting(kind: str, shape: str) -> None:
    model, processor = TINY["qwen2_vl"]() if kind == "qwen2_vl" else build("llava")
    with_own_rule(processor, OWN_RULES[shape])
    with pytest.raises(UnsupportedModel) as refused:
        derive(model, processor)
    failed = re.findall(r"FAIL (.*?) \(", str(refused.value))
    assert failed, str(refused.value)
    assert set(failed) <= {
        "a painted spot changes the token that the geometry names",
        "pictures of one prompt have places of their own",
    }
