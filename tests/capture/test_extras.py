"""The vision tower's own attention, and what published models would cost, without running them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

import vlmattn as va
from tests.capture.decoders import decoder, layouts_of, padded_batch
from tests.tiny import TINY
from tests.tiny_models import build, tiny
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.core.errors import BudgetExceeded, CaptureError, SpecError, UnsupportedModel
from vlmattn.core.layout import plain_layout


def llava(images: int) -> tuple[Any, dict[str, torch.Tensor], list[Any]]:
    model, _ = build("llava")
    image = int(model.config.image_token_id)
    line = torch.tensor([1, 5, *[image] * 16, 6, 7, 8])
    generator = torch.Generator().manual_seed(2)
    inputs = {
        "input_ids": line.expand(images, -1).contiguous(),
        "attention_mask": torch.ones(images, len(line), dtype=torch.long),
        "pixel_values": torch.randn(images, 3, 56, 56, generator=generator),
    }
    return model, inputs, [plain_layout(line.numpy(), np.arange(2, 18)) for _ in range(images)]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["cls", "received"])
@pytest.mark.parametrize("images", [1, 2])
def test_the_towers_attention_equals_eager(kind: Any, images: int) -> None:
    model, inputs, layouts = llava(images)
    plain = model(**inputs).logits
    spec = CaptureSpec(rows="last", vision=kind)
    with Session(model, layouts, spec) as session:
        assert torch.equal(model(**inputs).logits, plain)
    tower = model.model.vision_tower
    tower.set_attn_implementation("eager")
    reference = torch.stack(tower(inputs["pixel_values"], output_attentions=True).attentions)
    for item, kept in enumerate(session.finish()):
        assert kept.vision is not None
        full = reference[:, item]
        want = full[:, :, 0] if kind == "cls" else full.mean(2)
        got = kept.vision[:, 0] if kept.vision.shape[1] == 1 else kept.vision[:, item]
        assert torch.allclose(got[..., -want.shape[-1] :], want, atol=1e-6)


@torch.no_grad()
def test_image_columns_with_gaps_are_picked_one_by_one() -> None:
    model, inputs, _ = llava(1)
    line = inputs["input_ids"][0].numpy()
    columns = np.array([2, 3, 5, 8, 9, 15])
    gaps = plain_layout(line, columns)
    with Session(model, [gaps], CaptureSpec(rows="prompt", dtype="float32")) as some:
        model(**inputs)
    with Session(model, [gaps], CaptureSpec(rows="prompt", columns="all", dtype="float32")) as every:
        model(**inputs)
    kept, full = some.finish()[0], every.finish()[0]
    assert kept.columns.tolist() == columns.tolist()
    assert torch.equal(kept.attn_lhqk, full.attn_lhqk[..., columns])


def picture(width: int, height: int) -> Any:
    return np.random.default_rng(width + height).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision"])
@pytest.mark.parametrize("kind", ["cls", "received"])
def test_each_question_of_a_batch_has_the_views_of_its_own_picture(family: str, kind: Any) -> None:
    if family == "llava_onevision" and kind == "cls":
        return
    vlm = va.load(*tiny(family))
    ask = {"capture": CaptureSpec(rows="last", vision=kind), "max_new_tokens": 1}
    items = [(picture(56, 56), "What?"), (picture(168, 168), "What?"), (picture(168, 56), "What?")]
    alone = [vlm.ask(*item, **ask).trace.vision for item in items]
    batch = [run.trace.vision for run in vlm.ask_many(items, **ask)]
    assert len({one.shape[1] for one in alone}) == (1 if family == "llava" else 3)
    for one, other in zip(alone, batch, strict=True):
        assert one.shape == other.shape
        assert np.allclose(one, other, atol=1e-5)
    beams = vlm.ask_many(items, num_beams=3, **ask)
    assert all(np.allclose(run.trace.vision, one, atol=1e-5) for run, one in zip(beams, alone, strict=True))


@torch.no_grad()
def test_a_run_of_the_tower_alone_is_not_counted() -> None:
    model, inputs, layouts = llava(2)
    spec = CaptureSpec(rows="last", vision="received")
    sessions = [Session(model, layouts, spec) for _ in range(2)]
    with sessions[0]:
        model(**inputs)
    with sessions[1]:
        model.get_image_features(inputs["pixel_values"].flip(0))
        model(**inputs)
    for one, other in zip(sessions[0].finish(), sessions[1].finish(), strict=True):
        assert torch.equal(one.vision, other.vision)


@torch.no_grad()
def test_views_that_do_not_fit_the_layouts_are_refused() -> None:
    model, inputs, layouts = llava(2)
    spec = CaptureSpec(rows="last", vision="received")
    short = replace(layouts[0].images[0], views=2)
    more = [replace(one, images=(short,)) for one in layouts]
    with Session(model, more, spec), pytest.raises(CaptureError, match="saw 2 views, but the layouts say 4"):
        model(**inputs)
    tile = replace(layouts[0].images[0].tiles[0], kind="tiles")
    unknown = replace(layouts[0].images[0], tiles=(tile,), views=None)
    with pytest.raises(CaptureError, match="views the vision tower gets of each picture is not known"):
        Session(model, [replace(one, images=(unknown,)) for one in layouts], spec)


def test_a_tower_without_a_class_token_has_no_row_for_it() -> None:
    model, _ = tiny("llava_onevision")
    with pytest.raises(SpecError, match=r"vision tower of LlavaOnevision.* has none: use 'received'"):
        Session(model, [published_layout()], CaptureSpec(rows="last", vision="cls"))


def test_kept_attention_of_the_tower_holds_no_graph() -> None:
    model, inputs, layouts = llava(1)
    with Session(model, layouts, CaptureSpec(rows="last", vision="received")) as session:
        model(**inputs)
    kept = session.finish()[0]
    assert kept.vision is not None
    assert not kept.vision.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("kind", ["value", "projected"])
def test_value_norms_of_a_model_that_is_offloaded(kind: Any) -> None:
    from accelerate import cpu_offload

    inputs, pads = padded_batch((12,))
    norms = []
    for spread in (False, True):
        model = cpu_offload(decoder("llama_gqa"), execution_device="cpu") if spread else decoder("llama_gqa")
        with Session(model, layouts_of(inputs, pads), CaptureSpec(rows="last", value_norms=kind)) as session:
            model(**inputs)
        norms.append(session.finish()[0].value_norm_lhk)
        assert {p.device.type for p in model.parameters()} == {"meta" if spread else "cpu"}
    assert torch.equal(norms[0], norms[1])


@pytest.fixture(scope="module")
def published() -> Any:
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
            patch_size=14,
        ),
        text_config=tf.LlamaConfig(vocab_size=32064),
        image_token_index=32000,
    )  # fmt: skip
    with torch.device("meta"):
        return tf.LlavaForConditionalGeneration(config)


def published_layout() -> Any:
    return plain_layout(np.arange(5 + 576 + 20), np.arange(5, 581))


@pytest.mark.parametrize(
    ("options", "mib"),
    [
        ({}, 32 * 32 * 64 * 576 * 2 / 2**20),
        ({"reduce": "mean"}, 32 * 64 * 576 * 2 / 2**20),
        ({"layers": list(range(14, 20)), "heads": [3]}, 6 * 64 * 576 * 2 / 2**20),
        ({"rows": ("after_image", "answer"), "dtype": "float32"}, 32 * 32 * (20 + 63) * 576 * 4 / 2**20),
    ],
)
def test_the_cost_of_a_7b_model_is_known_without_its_weights(
    published: Any, options: dict[str, Any], mib: float
) -> None:
    estimate = CaptureSpec(**options).estimate(published, [published_layout()], max_new_tokens=64)
    assert estimate.by_part["image columns"] / 2**20 == mib
    assert str(estimate).startswith(f"{estimate.total / 2**20:.1f} MiB (image columns")


def test_a_7b_model_over_the_budget_is_told_what_to_turn(published: Any) -> None:
    estimate = CaptureSpec(rows="prompt", columns="all").estimate(published, [published_layout()])
    with pytest.raises(BudgetExceeded, match=r"choose layers=, reduce='mean', fewer rows=, dtype='float16'"):
        estimate.check(256 << 20, free=1 << 40)
    estimate.check(0.5, free=1 << 40)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "muse_spark"])
def test_a_tower_with_windows_is_refused_before_anything_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = va.Vlm(*TINY[kind](), name=kind)
    run = vlm.ask(picture(120, 90), "What?", answer="a cat")
    assert run.tower().received_lht.shape[-1] > 0  # the way out that is named
    monkeypatch.setattr(vlm.model, "forward", lambda **_: pytest.fail("the model ran"))
    with pytest.raises(SpecError, match=r"looks in windows: leave vision= out, .* run\.tower\(\)"):
        vlm.ask(picture(120, 90), "What?", capture=CaptureSpec(vision="received"))


def test_views_of_different_sizes_are_refused_in_the_tower() -> None:
    vlm = va.Vlm(*TINY["minicpmv4_6"](), name="minicpm")
    decoder = vlm.model.get_decoder()
    handle = decoder.register_forward_pre_hook(lambda *_: pytest.fail("the language model ran"))
    with pytest.raises(CaptureError, match=r"96 tokens in one call and at 64 in another .*: leave vision= out$"):
        vlm.ask(picture(200, 120), "What?", capture=CaptureSpec(vision="received"))
    handle.remove()
    run = vlm.ask(picture(200, 120), "What?", answer="a cat")
    with pytest.raises(UnsupportedModel, match="joins patches between two of its layers"):  # so it is not advised
        run.tower()


@pytest.mark.parametrize("kind", ["vision-encoder-decoder", "florence2"])
def test_a_way_out_that_is_closed_is_not_named(kind: str) -> None:
    vlm = va.Vlm(*TINY[kind](), name=kind)
    run = vlm.ask(picture(120, 90), "What?", answer="a cat")
    with pytest.raises((SpecError, UnsupportedModel)):
        run.tower()
    with pytest.raises((SpecError, CaptureError)) as raised:
        vlm.ask(picture(120, 90), "What?", answer="a cat", capture=CaptureSpec(vision="received"))
    assert "run.tower()" not in str(raised.value)


def test_a_resampler_is_not_taken_for_a_tower_that_cannot_be_seen() -> None:
    vlm = va.Vlm(*TINY["kosmos-2.5"](), name="kosmos-2.5")
    assert [site.name for site in model_sites(vlm.model).vision] == ["image_to_text_projection.x_attn"]
    decoder = vlm.model.get_decoder()
    handle = decoder.register_forward_pre_hook(lambda *_: pytest.fail("the language model ran"))
    with pytest.raises(SpecError, match="Kosmos2_5ForConditionalGeneration has none whose attention can be seen"):
        vlm.ask(picture(120, 90), "What?", answer="a cat", capture=CaptureSpec(vision="received"))
    handle.remove()
    run = vlm.ask(picture(120, 90), "What?", answer="a cat")
    with pytest.raises(SpecError, match="has no vision tower whose attention can be seen"):
        run.tower()


def test_what_follows_the_tower_is_left_out() -> None:
    vlm = va.Vlm(*TINY["granite4_vision"](), name="granite")
    run = vlm.ask(picture(200, 120), "What?", answer="a cat", capture=CaptureSpec(vision="received"))
    tower = run.tower()
    layers, found, heads, _ = run.trace.vision.shape
    assert (layers, found) == (len(tower.layers), 5)
    by_token = run.trace.vision.transpose(0, 2, 1, 3).reshape(layers, heads, -1)
    assert np.allclose(by_token, tower.received_lht, atol=1e-6)


@torch.no_grad()
def test_a_q_former_is_left_out() -> None:
    vlm = va.Vlm(*TINY["blip-2"](), name="blip-2")
    run = vlm.ask(picture(120, 90), "What?", answer="a cat", capture=CaptureSpec(vision="received"))
    tower = vlm.model.vision_model
    tower.set_attn_implementation("eager")
    pixels = vlm.encode([vlm._pictures(picture(120, 90))], ["What?"]).inputs["pixel_values"]
    full = torch.stack(tower(pixels, output_attentions=True).attentions)[:, 0]  # (L, H, N, N)
    assert np.allclose(run.trace.vision[:, 0], full.mean(2).numpy(), atol=1e-6)
