"""Models spread over devices, off-loaded, in shorter types and quantised: asked and verified as the plain one."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vlmattn as va
from tests.tiny_models import build
from vlmattn.core.errors import ModelLoadError

QUESTION = "Is the red cup left of the red spoon?"
FULL = va.CaptureSpec(rows=("prompt", "answer"), dtype="float32")
PARTS = {
    "model.vision_tower": "cpu",
    "model.multi_modal_projector": "cpu",
    "model.language_model.embed_tokens": "cpu",
    "model.language_model.layers.0": "cpu",
    "model.language_model.layers.1": "disk",
    "model.language_model.layers.2": "disk",
    "model.language_model.norm": "cpu",
    "model.language_model.rotary_emb": "cpu",
    "lm_head": "cpu",
}
FIRST = ("model.language_model.embed_tokens", "model.vision_tower", "lm_head")


def picture() -> Any:
    return np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)


def ask(vlm: va.Vlm) -> va.Run:
    return vlm.ask(picture(), QUESTION, max_new_tokens=4, capture=FULL, suppress_tokens=[vlm.adapter.image_token_id])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("spread") / "tiny-llava"
    model, processor = build("llava")
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


@lru_cache(maxsize=1)
def plain() -> va.Run:
    return ask(va.load(*build("llava")))


def offloaded(how: str) -> Callable[[Path], Any]:
    import accelerate

    make = {
        "cpu": lambda model, place: accelerate.cpu_offload(model, execution_device="cpu"),
        "disk": lambda model, place: accelerate.disk_offload(model, place, execution_device="cpu"),
        "parts": lambda model, place: accelerate.dispatch_model(model, PARTS, main_device="cpu", offload_dir=place),
    }[how]
    return lambda place: make(build("llava")[0], place)


SPREAD: dict[str, Callable[[Path, Path], va.Vlm]] = {
    "one device": lambda f, t: va.load(f, device_map={"": "cpu"}),
    "by itself": lambda f, t: va.load(f, device_map="auto"),
    "layers on disk": lambda f, t: va.load(f, device_map=PARTS, offload_folder=str(t / "off")),
    "first and last on disk": lambda f, t: va.load(
        f, device_map=PARTS | dict.fromkeys(FIRST, "disk"), offload_folder=str(t / "off")
    ),
    "held on the CPU": lambda f, t: va.load(offloaded("cpu")(t / "off"), build("llava")[1]),
    "held on disk": lambda f, t: va.load(offloaded("disk")(t / "off"), build("llava")[1]),
    "held in parts": lambda f, t: va.load(offloaded("parts")(t / "off"), build("llava")[1]),
}


@pytest.mark.parametrize("how", SPREAD)
def test_spread_models_give_what_the_plain_one_gives(how: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "off").mkdir()
    vlm = SPREAD[how](folder, tmp_path)
    away = [name for name, weight in vlm.model.named_parameters() if weight.is_meta]
    assert bool(away) == ("disk" in how or "held" in how)
    run, want = ask(vlm), plain()
    assert run.answer == want.answer
    assert np.array_equal(run.trace.attn_lhqk, want.trace.attn_lhqk)
    for method in ("raw", "value", "relative"):
        looks = [one.map("cup", method=method, layers=[1, 2]).patch_map.values[0] for one in (run, want)]
        assert np.allclose(*looks, atol=1e-6), method
    for method in ("rollout", "flow", "gradient", "relevancy"):
        values = [one.map(0, method=method).patch_map.values[0] for one in (run, want)]
        assert np.allclose(*values, rtol=1e-4, atol=1e-7), method
        assert values[0].max() > 0
    proof = vlm.verify(max_new_tokens=2)
    assert proof.largest_logit_difference == 0
    assert proof.row_error is not None
    assert proof.row_error < 1e-5
    assert [name for name, weight in vlm.model.named_parameters() if weight.is_meta] == away
    assert str(vlm.device) == vlm.describe()["device"] == "cpu"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu"}, "spread over devices, or its weights are held elsewhere .* leave out device"),
        ({"dtype": "bfloat16"}, "held elsewhere between calls, so it cannot become bfloat16: leave out dtype"),
    ],
)
@pytest.mark.parametrize("how", ["cpu", "parts"])
def test_spread_models_stay_where_and_what_they_are(
    how: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        va.load(offloaded(how)(tmp_path), build("llava")[1], **options)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("sequantial", "found sequantial"), ({"": "cuda:77"}, "could not be loaded"), ({"": "zork"}, "zork")],
)
def test_device_maps_that_cannot_be_used(wanted: Any, message: str, folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=message) as told:
        va.load(folder, device_map=wanted)
    assert "\n" not in str(told.value)


def eager_rows(vlm: va.Vlm, run: va.Run) -> Any:
    """(L, H, N, N) eager attention of the model itself over a run's prompt and answer, all but the last token."""
    encoded = vlm.encode([vlm._pictures(picture())], [QUESTION])
    ids = torch.as_tensor(run.trace.layout.input_ids[None, :-1])
    inputs = encoded.inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        seen = vlm.model(**inputs, output_attentions=True, use_cache=False).attentions
    return torch.stack([layer[0] for layer in seen]).float().numpy()


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float16", 2**-10), ("bfloat16", 2**-7)])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_rows_of_shorter_types_are_those_of_eager_in_the_same_type(
    dtype: str, bound: float, kernel: str, folder: Path
) -> None:
    vlm = va.load(folder, dtype=dtype, attn_implementation=kernel)
    run = ask(vlm)
    assert (str(vlm.dtype), vlm.describe()["attention"]) == (f"torch.{dtype}", kernel)
    assert run.trace.provenance.dtype == dtype
    eager = va.load(folder, dtype=dtype, attn_implementation="eager")
    full = eager_rows(eager, run)
    image = run.trace.layout.image_positions
    want = full[:, :, run.trace.positions][..., image]
    error = np.abs(run.trace.attn_lhqk - want).max()
    assert error <= bound
    assert np.abs(run.trace.attn_lhqk[:, :, 1:] - want[:, :, :-1]).max() > 4 * bound  # the bound tells rows apart
    proof = vlm.verify(max_new_tokens=2)
    assert proof.largest_logit_difference == 0
    assert proof.row_share <= 1
    looks = [one.map("cup").patch_map.values[0] for one in (run, plain())]
    assert np.allclose(*looks, atol=2 * bound)


def dynamic_int8(model: Any, *, only: str = "") -> Any:
    part = model.get_submodule(only)
    small = torch.ao.quantization.quantize_dynamic(part, {nn.Linear}, dtype=torch.qint8, inplace=bool(only))
    return model if only else small


def float_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of dynamically quantised layers, made float again."""
    layers = {name: part for name, part in model.named_modules() if callable(getattr(part, "weight", None))}
    return {f"{name}.weight": part.weight().dequantize() for name, part in layers.items()}


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("only", ["", "model.language_model"])
def test_dynamic_int8_is_asked_as_it_is(only: str) -> None:
    model, processor = build("llava")
    model.set_attn_implementation("eager")
    vlm = va.load(dynamic_int8(model, only=only), processor)
    run = ask(vlm)
    shift = np.abs(run.trace.attn_lhqk - plain().trace.attn_lhqk).max()
    assert 1e-4 < shift < 0.1  # another model than the plain one, and not far from it
    proof = vlm.verify(max_new_tokens=2)
    assert proof.largest_logit_difference == 0
    assert proof.row_error is not None
    assert proof.row_error < 1e-6
    assert run.map("cup").peak_xy
    floats, _ = build("llava")
    floats.load_state_dict(float_weights(vlm.model), strict=False)
    want = ask(va.load(floats, processor)).map("cup", method="value").patch_map.values[0]
    assert np.allclose(run.map("cup", method="value").patch_map.values[0], want, rtol=0.05)


@pytest.mark.filterwarnings("ignore")
def test_torchao_int8_weights_are_asked_mapped_and_loaded(folder: Path) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    transformers = pytest.importorskip("transformers")
    model, processor = build("llava")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    run = ask(va.load(model, processor))
    settings = transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())
    loaded = va.load(folder, quantization_config=settings, dtype="float32")
    assert loaded.model.is_quantized
    for one in (run, ask(loaded)):
        shift = np.abs(one.trace.attn_lhqk - plain().trace.attn_lhqk).max()
        assert 1e-4 < shift < 0.1
        # The same model with its weights made float again: what the rounded weights say, exactly.
        again, _ = build("llava")
        state = {
            name: weight.dequantize() if type(weight) is not nn.Parameter else weight
            for name, weight in one.vlm.model.named_parameters()
        }
        again.load_state_dict(state, strict=False)
        want = ask(va.load(again, processor))
        assert np.allclose(one.trace.attn_lhqk, want.trace.attn_lhqk, atol=1e-4)
        values = [each.map("cup", method="value").patch_map.values[0] for each in (one, want)]
        assert np.allclose(*values, rtol=1e-3)
        assert one.vlm.verify(max_new_tokens=2).largest_logit_difference == 0
    with pytest.raises(ModelLoadError, match="quantised, so it cannot become bfloat16"):
        va.load(loaded.model, processor, dtype="bfloat16")


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes_that_is_not_there_is_named(bits: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BitsAndBytesConfig
    from transformers.quantizers import quantizer_bnb_4bit, quantizer_bnb_8bit

    for quantizer in (quantizer_bnb_4bit, quantizer_bnb_8bit):
        monkeypatch.setattr(quantizer, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(ModelLoadError, match="requires bitsandbytes"):
        va.load(folder, quantization_config=BitsAndBytesConfig(**{f"load_in_{bits}bit": True}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes_weights_are_loaded_asked_and_mapped(bits: int, folder: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="of the extra 'test'")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, bnb_4bit_compute_dtype=torch.float32)
    vlm = va.load(folder, quantization_config=settings, dtype="float32")
    assert "bitsandbytes" in type(vlm.model.model.language_model.layers[0].self_attn.q_proj).__module__
    run = ask(vlm)
    # The same model with its weights made float again: exact for 4 bits, while 8 bits round what comes in as well.
    weights = {name: weight.float() for name, weight in _dequantized(vlm.model).state_dict().items()}
    again, processor = build("llava")
    again.load_state_dict(weights, strict=False)
    want = ask(va.load(again, processor))
    assert 1e-4 < np.abs(run.trace.attn_lhqk - plain().trace.attn_lhqk).max() < 0.3
    assert np.abs(run.trace.attn_lhqk - want.trace.attn_lhqk).max() < (1e-4 if bits == 4 else 0.05)
    assert vlm.verify(max_new_tokens=2).largest_logit_difference == 0
    values = [one.map("cup", method="value").patch_map.values[0] for one in (run, want)]
    assert np.allclose(*values, rtol=1e-3 if bits == 4 else 0.05)


def _dequantized(model: Any) -> Any:
    import copy

    return copy.deepcopy(model).dequantize()


@pytest.mark.parametrize("device", [None, "cpu"])
def test_what_is_quantised_while_it_loads_goes_to_its_device_at_once(
    device: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmattn.api import loading

    given: dict[str, Any] = {}

    def load_weights(place: str, told: str, wanted: dict[str, Any]) -> Any:
        given.update(wanted)
        return build("llava")[0]

    monkeypatch.setattr(loading, "load_weights", load_weights)
    settings = {"quant_method": "mine"}
    va.load(folder, quantization_config=settings, device=device)
    assert given["quantization_config"] is settings
    assert given["device_map"] == {"": device or ("cuda" if torch.cuda.is_available() else "cpu")}
    given.clear()
    va.load(folder, device=device)
    assert "device_map" not in given
