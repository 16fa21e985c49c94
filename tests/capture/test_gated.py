"""Gated cross attention: on patches beside the prompt, or on latents there, composed with the perceiver's own rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

import vlmattn as va
from tests.capture.asked import QUESTIONS, Halved, loaded, picture
from tests.tiny.gated import idefics_plain
from vlmattn.capture import CaptureSpec, Session, model_sites
from vlmattn.core.errors import CaptureError, MapError, PromptError, SpecError
from vlmattn.core.layout import TokenKind

FULL = CaptureSpec(rows=("prompt", "answer"), dtype="float32", columns="all")
KEPT = replace(FULL, columns="image")
LATENTS, KEYS, CELLS = 5, 22, 16
KINDS = ("idefics", "idefics patches")


def pictures() -> list[list[Image.Image]]:
    return [[picture(0)], [picture(1), picture(2, 300)]]


@pytest.fixture(params=KINDS)
def vlm(request: pytest.FixtureRequest) -> va.Vlm:
    return loaded(request.param)


@pytest.fixture
def resampled() -> va.Vlm:
    return loaded("idefics")


class Softmaxes(TorchFunctionMode):
    """Every softmax of a perceiver's shape that the model itself takes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "softmax" and tuple(out.shape[-2:]) == (LATENTS, KEYS):
            self.found.append(out)
        return out


@contextmanager
def eagerly(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Attention weights (B, H, Q, K) that each attention module of the decoder hands out, by its name."""
    core, found = model.model, dict[str, torch.Tensor]()
    config, before = core.config, core.config._attn_implementation
    named = [(n, m) for n, m in core.named_modules() if n.endswith((".cross_attn", ".self_attn")) and "vision" not in n]
    handles = [m.register_forward_hook(lambda _m, _a, out, n=n: found.__setitem__(n, out[1])) for n, m in named]
    try:
        config._attn_implementation = "eager"
        yield found
    finally:
        config._attn_implementation = before
        for handle in handles:
            handle.remove()


@torch.no_grad()
def eager(vlm: va.Vlm, inputs: dict[str, Any]) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Weights by module, and per layer of the perceiver (views, H, latents, keys); none without one."""
    with eagerly(vlm.model) as weights, Softmaxes() as taken:
        vlm.model(**inputs, use_cache=False)
    return weights, taken.found


def wanted(
    vlm: va.Vlm, layout: Any, weights: dict[str, torch.Tensor], hops: list[torch.Tensor], item: int, layer: int
) -> torch.Tensor:
    """(H, Q, V) of one layer and prompt, on keys beside the prompt: composed patches and latents, or patches."""
    every = vlm.model.config.cross_layer_interval
    row = weights[f"gated_cross_attn_layers.{layer // every}.cross_attn"][item]
    if not hops:
        return row
    views = row.shape[-1] // LATENTS
    hop = torch.stack(hops).mean((0, 2)).view(-1, views, LATENTS, KEYS)[item]
    patches = torch.zeros(*row.shape[:2], views * KEYS)
    for view in range(len(layout.images)):
        mine = row[..., view * LATENTS : (view + 1) * LATENTS]
        patches[..., view * KEYS : (view + 1) * KEYS] = mine @ hop[view]
    return torch.cat([patches, row], dim=-1)


def test_rows_of_a_batch_with_other_numbers_of_pictures_equal_eager_attention(vlm: va.Vlm) -> None:
    compare_with_eager(vlm)


def test_queries_and_keys_without_norms_equal_eager_attention() -> None:
    vlm = va.load(*idefics_plain())
    assert not hasattr(vlm.model.model.perceiver_resampler.blocks[0][0], "q_layer_norm")
    compare_with_eager(vlm)


@torch.no_grad()
def compare_with_eager(vlm: va.Vlm) -> None:
    """Rows of a padded batch, one prompt with more pictures than the other; logits stay as they are."""
    encoded = vlm.adapter.encode(pictures(), QUESTIONS)
    assert max(encoded.pad_left) > 0
    plain = vlm.model(**encoded.inputs).logits
    with Session(vlm.model, encoded.layouts, FULL, pad_left=encoded.pad_left) as session:
        assert torch.equal(plain, vlm.model(**encoded.inputs).logits)
    weights, hops = eager(vlm, encoded.inputs)
    assert len(hops) == (2 if vlm.adapter.own_keys else 0)
    for item, kept in enumerate(session.finish()):
        layout, pad = encoded.layouts[item], encoded.pad_left[item]
        crossing = [0, 2] if vlm.adapter.own_keys else [0, 1, 2, 3]
        assert [layer for layer in kept.layers if layer not in kept.blind] == crossing
        assert bool(kept.composed) == bool(hops)
        rows, memory = kept.positions - layout.memory + pad, layout.memory
        for slot, layer in enumerate(kept.layers):
            got = kept.attn_lhqk[slot]
            if layer in kept.blind:
                want = weights[f"layers.{layer}.self_attn"][item][:, rows][..., pad:]
                assert torch.allclose(got[..., memory:], want, atol=1e-6)
                assert not got[..., :memory].any()
                continue
            want = wanted(vlm, layout, weights, hops, item, layer)[:, rows]
            assert want.shape[-1] == memory
            assert torch.allclose(got[..., :memory], want, atol=1e-6)
            assert not got[..., memory:].any()
            # Sharp enough to tell wrong rows apart, latents and patches both.
            assert want[:, -1, layout.image_positions].max() > 1.5 * want[:, -1, layout.image_positions].mean()
        assert torch.allclose(kept.mass_lhqs.sum(-1), torch.ones(()), atol=1e-5)


@torch.no_grad()
def test_words_see_the_last_picture_before_them_and_no_other(vlm: va.Vlm) -> None:
    text = "<s>Look <image> first words<image>second words"
    encoded = vlm.adapter.encode([pictures()[1]], [text], raw=True, question="second words")
    with Session(vlm.model, encoded.layouts, KEPT) as session:
        vlm.model(**encoded.inputs)
    kept, layout = session.finish()[0], encoded.layouts[0]
    places = np.flatnonzero(layout.input_ids == vlm.adapter.image_token_id)
    before = kept.positions < places[0]
    first = (kept.positions >= places[0]) & (kept.positions < places[1])
    second = kept.positions >= places[1]
    image = layout.image[kept.columns]
    seen, rows = kept.visible_lqk[0].numpy(), kept.attn_lhqk[0].numpy()
    assert before.sum() == 1 + len("Look") + 1
    assert not seen[before].any()
    for own, other, which in ((first, 1, 0), (second, 0, 1)):
        assert seen[own][:, image == which].all()
        assert not seen[own][:, image == other].any()
        assert rows[:, own][..., image == other].max() == 0
        assert rows[:, own][..., image == which].max() > 0
    assert len(kept.columns) == 2 * CELLS


def test_a_picture_has_the_map_that_it_has_alone(vlm: va.Vlm) -> None:
    many = vlm.ask_many(list(zip(pictures(), QUESTIONS, strict=True)), answers=["a", "b"], capture=KEPT)
    for run, group, question, answer in zip(many, pictures(), QUESTIONS, "ab", strict=True):
        alone = vlm.ask(group, question, answer=answer, capture=KEPT)
        one, other = (r.map(image=len(group) - 1).patch_map.values for r in (run, alone))
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(one, other, strict=True))
    with pytest.raises(MapError, match="the whole picture is hidden from these rows and layers"):
        many[1].map(image=0)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
def test_generated_rows_equal_those_of_the_given_answer(vlm: va.Vlm, options: dict[str, Any]) -> None:
    items = list(zip(pictures(), QUESTIONS, strict=True))
    written = vlm.ask_many(items, max_new_tokens=4, capture=KEPT, **options)
    ids = [run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist() for run in written]
    given = vlm.ask_many(items, answers=ids, capture=KEPT)
    for one, other in zip(written, given, strict=True):
        assert np.allclose(one.trace.attn_lhqk, other.trace.attn_lhqk, atol=1e-5)
        assert np.array_equal(one.trace.visible_lqk, other.trace.visible_lqk)


def test_maps_leave_out_self_attention_and_say_that_they_are_composed(resampled: va.Vlm) -> None:
    run = resampled.ask(picture(), QUESTIONS[0], answer="no", capture=FULL)
    look = run.map("spoon").patch_map
    assert look.provenance.layers == "layers 0, 2 of 4 (2 others look at no picture)"
    assert [step for step in look.provenance.steps if step.startswith("composed of two hops")] == [
        "composed of two hops: attention to 5 queries per view, times the queries' own attention to its patches (mean "
        "over 2 layers and all heads of the resampler)"
    ]
    with pytest.raises(SpecError, match=r"layers 1 look at no picture.*choose among layers 0, 2"):
        run.map("spoon", layers=[1])
    with pytest.raises(SpecError, match="value norms belong to the resampler's queries"):
        run.map("spoon", method="value")


def test_queries_are_kept_beside_the_prompt(resampled: va.Vlm) -> None:
    one, two = resampled.adapter.encode(pictures(), QUESTIONS).layouts
    assert (one.resampled, one.memory, one.beside) == (2 * KEYS, 2 * (KEYS + LATENTS), 2 * LATENTS)
    assert one.latent_positions.tolist() == list(range(2 * KEYS, 2 * KEYS + LATENTS))
    assert two.latent_positions.tolist() == list(range(2 * KEYS, 2 * (KEYS + LATENTS)))
    assert (one.kinds[one.memory :] != TokenKind.LATENT).all()
    patches = loaded("idefics patches")
    layout = patches.adapter.encode([[picture()]], QUESTIONS[:1]).layouts[0]
    assert (layout.resampled, layout.memory, layout.beside) == (0, CELLS + 1, CELLS + 1)


def test_steering_reaches_cross_attention(vlm: va.Vlm) -> None:
    spec = replace(KEPT, rows=("question", "answer"))
    plain = vlm.ask(picture(), QUESTIONS[0], answer="no", capture=spec).trace
    steered = vlm.ask(picture(), QUESTIONS[0], answer="no", capture=spec, steering=[Halved(0)]).trace
    assert np.allclose(steered.attn_lhqk[0], plain.attn_lhqk[0] * 0.5, atol=1e-6)
    assert not np.allclose(steered.attn_lhqk[2], plain.attn_lhqk[2], atol=1e-6)


@torch.no_grad()
def test_the_tower_that_a_decoder_runs_itself_is_seen(vlm: va.Vlm) -> None:
    encoded = vlm.adapter.encode([[picture()]], QUESTIONS[:1])
    with Session(vlm.model, encoded.layouts, replace(KEPT, vision="cls")) as session:
        out = vlm.model.generate(**encoded.inputs, max_new_tokens=3, do_sample=False)
    kept = session.finish(sequences=out)[0]
    taken: list[torch.Tensor] = []
    config = vlm.model.config.vision_config
    modules = [layer.self_attn for layer in vlm.model.model.vision_model.encoder.layers]
    handles = [m.register_forward_hook(lambda _m, _a, out: taken.append(out[1])) for m in modules]
    before, config._attn_implementation = config._attn_implementation, "eager"
    try:
        vlm.model(**encoded.inputs)
    finally:
        config._attn_implementation = before
        for handle in handles:
            handle.remove()
    assert torch.allclose(kept.vision, torch.stack(taken)[:, :, :, 0], atol=1e-6)
    assert not session._before._tower
    assert not session._before._hops
    run = vlm.ask([picture(), picture(1)], QUESTIONS[0], answer="no", capture=KEPT)
    assert [step.shape for step in run.vision_map("class", image=1).patch_map.values] == [(4, 4)]


def test_an_answer_may_hold_tokens_that_were_added_to_the_vocabulary(resampled: va.Vlm) -> None:
    end = resampled.processor.tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    run = resampled.ask(picture(), QUESTIONS[0], answer=[50, end], capture=KEPT)
    assert run.trace.layout.input_ids[-2:].tolist() == [50, end]
    with pytest.raises(PromptError, match=f"token ids from 0 to {end}; got"):
        resampled.ask(picture(), QUESTIONS[0], answer=[end + 1], capture=KEPT)


def test_every_attention_of_the_decoder_is_covered(vlm: va.Vlm) -> None:
    sites = model_sites(vlm.model)
    sites.check_all_seen()
    assert len(sites.vision) == 2
    assert len(sites.own_readers) == (2 if vlm.adapter.own_keys else 0)
    assert not [name for name in ("vision", "perceiver") if any(name in site.name for site in sites.attention)]


def test_what_the_processor_would_fetch_is_refused(resampled: va.Vlm) -> None:
    with pytest.raises(PromptError, match=r"the processor would fetch 'https://example.com/a.png' as a picture"):
        resampled.adapter.encode([[picture()]], ["<s>https://example.com/a.png<image>"], raw=True)
    layout = resampled.adapter.encode([[picture()]], ["See https://example.com/a.png here"]).layouts[0]
    assert layout.text[slice(*layout.question_span)] == "See https://example.com/a.png here"


def test_spaces_beside_pictures_are_dropped_as_the_processor_does(resampled: va.Vlm) -> None:
    for text in ("<s> a <image> <image>  b c ", "a<image><image>b c"):
        layout = resampled.adapter.encode([pictures()[1]], [text], raw=True, question="b c").layouts[0]
        told = resampled.processor.tokenizer.decode(layout.input_ids[layout.memory :])
        around = "<fake_token_around_image>"
        assert told == f"<s>a{around}<image>{around}<image>{around}b c"
        words = [layout.text[a:b] for a, b in layout.char_span[layout.kinds == TokenKind.QUESTION]]
        assert "".join(words) == "b c"


@torch.no_grad()
def test_a_perceiver_that_did_not_run_is_told(resampled: va.Vlm) -> None:
    encoded = resampled.adapter.encode([[picture()]], QUESTIONS[:1])
    core = resampled.model.model
    states = core.vision_model(pixel_values=encoded.inputs["pixel_values"].flatten(0, 1)).last_hidden_state
    given = {k: v for k, v in encoded.inputs.items() if k != "pixel_values"}
    with Session(resampled.model, encoded.layouts, KEPT) as session:
        resampled.model(**given, perceiver_embeddings=core.perceiver_resampler(states))
    with pytest.raises(CaptureError, match="the resampler did not run inside the capture"):
        session.finish()
