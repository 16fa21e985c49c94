"""A model type that nobody declared is guessed and proved, or refused with what to write."""

from __future__ import annotations

import re
from typing import Any

import pytest

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
