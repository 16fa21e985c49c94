"""Which families there are, who may add one, and what is said about models that none serves."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tiny_models import FAMILIES, build, tiny
from vlmattn.adapters import Adapter, FamilySpec, adapter_for, families, register, registry
from vlmattn.core.errors import SpecError, UnsupportedModel


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the registry, thrown away after the test."""
    families()
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    monkeypatch.setattr(registry, "_LOADED", set(registry._LOADED))


def spec(**changes: Any) -> FamilySpec:
    fields: dict[str, Any] = {
        "name": "other",
        "model_types": ("other_vlm",),
        "processors": ("LlavaProcessor",),
        "image_processors": ("CLIPImageProcessor",),
        "towers": ("clip_vision_model",),
        "geometry": ("base",),
    }
    return FamilySpec(**(fields | changes))


def test_families_are_listed_by_name() -> None:
    names = [s.name for s in families()]
    assert names == sorted(names)
    assert set(FAMILIES) <= set(names)
    assert all(s.geometry and s.processors and s.image_processors for s in families())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_finds_its_adapter(family: str) -> None:
    adapter = adapter_for(*tiny(family))
    assert adapter.spec.name == family
    assert family in repr(adapter)


def config(**fields: Any) -> Any:
    return SimpleNamespace(config=SimpleNamespace(**fields))


@pytest.mark.parametrize(
    ("model", "processor", "match"),
    [
        (object(), None, "not a transformers model"),
        (config(model_type="llama"), None, "'llama' is a text-only model.*Supported: .*llava"),
        (config(model_type="qwen9_vl", vision_config=object()), None, r"'qwen9_vl' is not supported.*llava_onevision"),
        (config(model_type="llava", vision_config=object()), None, "no processor was given.*LlavaProcessor"),
        (config(model_type="llava", vision_config=object()), object(), "llava needs a LlavaProcessor, got object"),
    ],
)
def test_models_that_cannot_be_served(model: Any, processor: Any, match: str) -> None:
    with pytest.raises(UnsupportedModel, match=match):
        adapter_for(model, processor)


def test_a_bare_tokenizer_is_not_a_processor() -> None:
    model, processor = tiny("llava")
    with pytest.raises(UnsupportedModel, match=r"got (PreTrainedTokenizerFast|TokenizersBackend)"):
        adapter_for(model, processor.tokenizer)


def test_an_image_processor_of_unknown_geometry_is_refused() -> None:
    from transformers import ViTImageProcessor

    from vlmattn.core.errors import LayoutError

    model, processor = build("llava")
    processor.image_processor = ViTImageProcessor()
    with pytest.raises(LayoutError, match="ViTImageProcessor is not known"):
        adapter_for(model, processor)


@pytest.mark.usefixtures("own_registry")
def test_others_may_add_a_family() -> None:
    @register(spec())
    class Other(Adapter):
        pass

    assert "other" in [s.name for s in families()]
    assert registry._FAMILIES["other"][1] is Other


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(
    "changes", [{"model_types": ("llava",)}, {"name": "llava"}, {"model_types": ("x", "vipllava")}]
)
def test_nobody_overrides_a_family_silently(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="already served by family"):
        register(spec(**changes))(Adapter)
    register(spec(**changes), override=True)(Adapter)
    served = [s for s in families() if set(s.model_types) & set(changes.get("model_types", ("other_vlm",)))]
    assert len(served) == 1


@pytest.mark.usefixtures("own_registry")
def test_a_broken_package_is_named_and_the_rest_works(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [s.name for s in families()]
    assert set(FAMILIES) <= set(before)

    def load() -> None:
        raise ImportError("no module named nowhere")

    point = SimpleNamespace(name="broken", value="nowhere:Adapter", load=load)
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: [point] if group == registry.GROUP else [])
    with pytest.warns(UserWarning, match=r"adapter 'broken' \(nowhere:Adapter\) could not be loaded: no module"):
        names = [s.name for s in families()]
    assert names == before
    assert [s.name for s in families()] == before


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"name": ""}, "needs a name"),
        ({"model_types": ()}, "at least one model type"),
        ({"strategy": "none"}, "strategy must be"),
        ({"prompt": "{question}"}, "must hold"),
    ],
)
def test_bad_specs(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        spec(**changes)


def test_importing_adapters_and_grid_imports_no_torch() -> None:
    code = (
        "import sys, vlmattn.adapters, vlmattn.grid; vlmattn.adapters.families();"
        "sys.exit(', '.join({'torch', 'transformers'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
