"""Circuits and pursuit equal plain computations from weights and hooks."""

from __future__ import annotations

import doctest
import importlib
import sys
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.capture.asked import loaded as tiny_of
from tests.heads.by_hand import FAMILIES, by_hand, loaded, picture, run_of
from vlmattn.api import head_circuits, pursue_heads
from vlmattn.api.circuits import head_contributions, unembedding
from vlmattn.api.knockout import _request
from vlmattn.capture import model_sites
from vlmattn.core.errors import InputError, SpecError, UnsupportedModel
from vlmattn.heads import HeadPursuit, PursuedHead, eigenvalue_shares, matching_pursuit
from vlmattn.heads.circuits import highest_pairs
from vlmattn.steering import ScaleHeads

IDS = [40, 41, 55, 60, 61, 72, 80, 90, 91, 92, 93, 99]


def plain_parts(vlm: Any, layer: int) -> tuple[Any, Any, Any, Any]:
    """(q, k, v of every token (n, H, D), W_O (d, H, D)) from weights by name."""
    model = vlm.model.model.language_model
    block = model.layers[layer]
    attention = block.self_attn
    states = model.embed_tokens(torch.tensor(IDS))  # Gemma's own embedding scales
    if type(model).__name__ == "Gemma3TextModel" and not hasattr(model.embed_tokens, "embed_scale"):
        states = states * model.config.hidden_size**0.5
    states = block.input_layernorm(states)
    dim = attention.head_dim
    parts = [p(states).view(len(IDS), -1, dim) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
    if hasattr(attention, "q_norm"):
        parts[:2] = [attention.q_norm(parts[0]), attention.k_norm(parts[1])]
    heads = parts[0].shape[1]
    keys, values = (p.repeat_interleave(heads // p.shape[1], 1) for p in parts[1:])
    out = attention.o_proj.weight.view(attention.o_proj.weight.shape[0], heads, dim)
    return parts[0] * attention.scaling, keys, values, out


@pytest.mark.parametrize("family", ["llava", "llava_onevision", "qwen3_vl", "gemma3", "qwen2_vl"])
@torch.no_grad()
def test_circuits_equal_products_of_weights(family: str) -> None:
    vlm = loaded(family) if family in FAMILIES else tiny_of(family)
    found = head_circuits(vlm, IDS, pairs=len(IDS) ** 2, chunk=5)
    names = [vlm.adapter.tokenizer.decode(i) for i in IDS]
    rows = vlm.model.get_output_embeddings().weight[IDS]
    for site in model_sites(vlm.model).attention:
        q, k, v, out = plain_parts(vlm, site.layer_idx)
        for head in range(q.shape[1]):
            one = found.of(site.layer_idx, head)
            qk = q[:, head] @ k[:, head].T
            ov = v[:, head] @ (rows @ out[:, head]).T
            for pairs, whole in ((one.qk, qk), (one.ov, ov)):
                order = whole.flatten().sort(descending=True).values.numpy()
                assert np.allclose([p.value for p in pairs], order, rtol=1e-5, atol=1e-5 * np.abs(order).max())
                best = divmod(int(whole.argmax()), len(IDS))
                assert (pairs[0].source, pairs[0].other) == (names[best[0]], names[best[1]])
            values = np.linalg.eigvals(ov.double().numpy())  # tokens x tokens, as in the paper
            assert one.copying == pytest.approx(values.real.sum() / np.abs(values).sum(), abs=1e-4)
            assert one.ov_diagonal == pytest.approx(
                float((ov.argmax(1) == torch.arange(len(IDS))).float().mean()), abs=1e-6
            )
            assert one.qk_diagonal == pytest.approx(
                float((qk.argmax(1) == torch.arange(len(IDS))).float().mean()), abs=1e-6
            )


@torch.no_grad()
def test_fused_projections_need_no_names() -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, Phi3Config

    from tests.tiny_models import tiny

    model, processor = tiny("llava")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = Phi3Config(**sizes, num_key_value_heads=2, vocab_size=model.config.text_config.vocab_size, pad_token_id=0)
    config = LlavaConfig(
        text_config=text,
        vision_config=model.config.vision_config,
        image_token_index=model.config.image_token_index,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        vision_feature_layer=-2,
    )
    torch.manual_seed(0)
    vlm = va.load(LlavaForConditionalGeneration(config).eval(), processor)
    found = head_circuits(vlm, IDS, pairs=1)
    block = vlm.model.model.language_model.layers[1]
    states = block.input_layernorm(vlm.model.get_input_embeddings()(torch.tensor(IDS)))
    q, k, v = block.self_attn.qkv_proj(states).split([64, 32, 32], -1)
    for head in range(4):
        key = k[:, head // 2 * 16 : head // 2 * 16 + 16]
        want = float((q[:, head * 16 : head * 16 + 16] @ key.T).max()) / 4
        assert found.of(1, head).qk[0].value == pytest.approx(want, rel=1e-5)
        out = block.self_attn.o_proj.weight[:, head * 16 : head * 16 + 16]
        ov = v[:, head // 2 * 16 : head // 2 * 16 + 16] @ (vlm.model.get_output_embeddings().weight[IDS] @ out).T
        assert found.of(1, head).ov[0].value == pytest.approx(float(ov.max()), rel=1e-5)


def test_a_whole_vocabulary_in_parts_equals_it_at_once() -> None:
    vlm = loaded("llava")
    parts, whole = head_circuits(vlm, chunk=37, layers=[1]), head_circuits(vlm, chunk=4096, layers=[1])
    assert parts.tokens == len(vlm.adapter.tokenizer)
    for one, other in zip(parts.heads, whole.heads, strict=True):
        assert one.copying == pytest.approx(other.copying, abs=1e-5)
        assert [str(p) for p in one.ov] == [str(p) for p in other.ov]


@torch.no_grad()
def test_a_planted_copying_head_is_found() -> None:
    from tests.tiny_models import build

    model, processor = build("llava")
    vlm = va.load(model, processor)
    block, rows = model.model.language_model.layers[1], model.get_output_embeddings().weight[IDS]
    before = head_circuits(vlm, IDS, layers=[1]).of(1, 0).copying
    values = block.self_attn.v_proj(block.input_layernorm(model.get_input_embeddings()(torch.tensor(IDS))))[:, :16]
    # What is written for a token has the logits that its values have with those of all: OV = v v^T.
    block.self_attn.o_proj.weight[:, :16] = torch.linalg.lstsq(rows, values).solution
    assert before < 0.9
    assert head_circuits(vlm, IDS, layers=[1]).of(1, 0).copying > 0.99


def test_shares_and_pairs_of_small_matrices() -> None:
    assert eigenvalue_shares(np.diag([1.0, 1.0])) == (1.0, 1.0)
    assert eigenvalue_shares(np.array([[0.0, 1.0], [-1.0, 0.0]]))[0] == pytest.approx(0, abs=1e-12)
    assert np.isnan(eigenvalue_shares(np.zeros((2, 2)))[0])
    assert highest_pairs(np.array([[1.0, 5.0], [5.0, 2.0]]), 3) == [(0, 1, 5.0), (1, 0, 5.0), (1, 1, 2.0)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokens": []}, "a list of words"),
        ({"tokens": "red"}, "a list of words"),
        ({"tokens": ["spoons and forks"]}, "tokens of this vocabulary"),
        ({"tokens": [10**7]}, "does not exist"),
        ({"tokens": [40, 40]}, "one and the same"),
        ({"layers": [9]}, "no such attention"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_bad_circuits_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        head_circuits(loaded("llava"), **options)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_weights_are_read_and_a_quantised_unembedding_is_refused() -> None:
    from tests.tiny_models import build

    model, processor = build("llava")
    decoder = model.model.language_model
    torch.ao.quantization.quantize_dynamic(decoder, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)
    vlm = va.load(model, processor)
    found, plain = head_circuits(vlm, IDS), head_circuits(loaded("llava"), IDS)
    for one, other in zip(found.heads, plain.heads, strict=True):
        assert one.copying == pytest.approx(other.copying, abs=0.1)  # int8 weights, and inputs rounded to as many steps
    held = head_contributions(vlm, [_request((picture(), "Is it?"))], model_sites(model).attention)
    assert all(np.isfinite(rows).all() and np.abs(rows).max() > 0 for rows in held.values())
    model.lm_head = torch.ao.quantization.quantize_dynamic(
        torch.nn.Sequential(model.lm_head), {torch.nn.Linear}, dtype=torch.qint8
    )[0]
    with pytest.raises(UnsupportedModel, match="no unembedding"):
        head_circuits(vlm, IDS)


def test_models_that_look_at_no_tokens_of_their_own_are_refused() -> None:
    with pytest.raises(SpecError, match="keys beside the decoder"):
        head_circuits(tiny_of("florence2"), IDS)


# -- head pursuit ------------------------------------------------------------------------------------------------------


def plain_pursuit(written: Any, words: Any, steps: int, normalise: bool) -> tuple[list[int], list[float]]:
    """The definition, word by word."""
    chosen: list[int] = []
    shares, rest = [], written.copy()
    for _ in range(steps):
        fits = []
        for row in words:
            atom = row / np.sqrt((row**2).sum()) if normalise else row
            fits.append(sum(abs(float(r @ atom)) for r in rest))
        for done in chosen:
            fits[done] = -1
        chosen.append(int(np.argmax(fits)))
        basis = words[chosen]
        rest = written - written @ np.linalg.pinv(basis) @ basis
        shares.append(1 - (rest**2).sum() / (written**2).sum())
    return chosen, shares


@pytest.mark.parametrize("normalise", [True, False])
def test_pursuit_equals_its_definition(normalise: bool) -> None:
    rng = np.random.default_rng(3)
    words = rng.normal(size=(40, 12)) * rng.uniform(0.2, 3, size=(40, 1))
    written = rng.normal(size=(6, 12))
    found = matching_pursuit(written, words, 5, normalise=normalise)
    atoms, shares = plain_pursuit(written, words, 5, normalise)
    assert found.atoms.tolist() == atoms
    assert np.allclose(found.shares, shares, atol=1e-10)
    assert (np.diff(found.shares) >= 0).all()


def test_planted_words_are_found_and_explain_all() -> None:
    rng = np.random.default_rng(0)
    words = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    written = rng.normal(size=(5, 2)) @ words[[3, 11]]
    found = matching_pursuit(written, words, 6)
    assert sorted(found.atoms.tolist()) == [3, 11]
    assert found.share == pytest.approx(1)
    assert np.allclose(found.weights_ns @ words[found.atoms], written)
    assert matching_pursuit(written * 0, words).share == 0


@pytest.mark.parametrize("family", [*FAMILIES, "qwen3_vl", "gemma3"])
@torch.no_grad()
def test_contributions_equal_hooked_outputs_and_one_step_is_the_logit_lens(family: str) -> None:
    vlm = loaded(family) if family in FAMILIES else tiny_of(family)
    site = model_sites(vlm.model).attention[-1]
    held: list[torch.Tensor] = []
    projection = site.module.o_proj
    hook = projection.register_forward_hook(lambda _m, args, out: held.append((args[0][0, -1], out[0, -1])))
    vlm.ask(picture(), "Is it?", max_new_tokens=1)
    hook.remove()
    mixed, whole = held[0]
    rows = head_contributions(vlm, [_request((picture(), "Is it?"))], [site])
    width = mixed.shape[0] // site.heads
    for head in range(site.heads):
        alone = torch.zeros_like(mixed)
        alone[head * width : (head + 1) * width] = mixed[head * width : (head + 1) * width]
        plain = torch.nn.functional.linear(alone, projection.weight)
        assert np.allclose(rows[site.layer_idx, head][0], plain.numpy(), atol=1e-5)
        found = matching_pursuit(rows[site.layer_idx, head], unembedding(vlm).numpy(), 1, normalise=False)
        lens = vlm.model.get_output_embeddings()(plain)
        assert int(found.atoms[0]) == int(lens.abs().argmax())
    total = sum(rows[site.layer_idx, head][0] for head in range(site.heads))
    bias = projection.bias.numpy() if projection.bias is not None else 0
    assert np.allclose(total + bias, whole.numpy(), atol=1e-4)


def test_heads_are_pursued_ranked_and_scaled() -> None:
    vlm = loaded("llava")
    samples = [(picture(n), "Is it?") for n in range(3)]
    found = pursue_heads(vlm, samples, IDS, steps=2)
    assert len(found.heads) == 12
    shares = [one.share for one in found.best(12)]
    assert shares == sorted(shares, reverse=True)
    assert set(found.heads[0].token_ids) <= set(IDS)
    assert found.to_dict()["samples"] == 3
    assert "explained" in found.table()
    plain = vlm.ask(picture(), "Is it?", answer=[50])
    same = vlm.ask(picture(), "Is it?", answer=[50], steering=[ScaleHeads(found.pairs(4), 1)])
    other = vlm.ask(picture(), "Is it?", answer=[50], steering=[ScaleHeads(found.pairs(4), -1.0)])
    assert same.trace.scores.chosen_logp_t[0] == plain.trace.scores.chosen_logp_t[0]
    assert abs(other.trace.scores.chosen_logp_t[0] - plain.trace.scores.chosen_logp_t[0]) > 1e-4


@torch.no_grad()
def test_scaling_equals_scaled_columns_of_the_projection() -> None:
    from tests.tiny_models import build

    run = run_of("llava")
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    steered = run.vlm.ask(picture(), run.question, answer=ids, steering=[ScaleHeads([(1, 2), (2, 0)], 5.0)])
    model, processor = build("llava")
    for layer, head in ((1, 2), (2, 0)):
        model.model.language_model.layers[layer].self_attn.o_proj.weight[:, head * 16 : head * 16 + 16] *= 5
    plain = va.load(model, processor).ask(picture(), run.question, answer=ids)
    assert np.allclose(plain.trace.scores.chosen_logp_t, steered.trace.scores.chosen_logp_t, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ScaleHeads([], 1),
        lambda: ScaleHeads([(0, 0), (0, 0)], 1),
        lambda: ScaleHeads([(0, 0)], float("nan")),
        lambda: ScaleHeads(3, 1),  # type: ignore[arg-type]
        lambda: loaded("llava").ask(picture(), "?", answer=[50], steering=[ScaleHeads([(0, 99)], 0)]),
        lambda: loaded("llava").ask(picture(), "?", answer=[50], steering=[ScaleHeads([(99, 0)], 0)]),
        lambda: matching_pursuit(np.zeros((2, 3)), np.zeros((2, 4))),
        lambda: matching_pursuit(np.full((2, 3), np.nan), np.ones((2, 3))),
        lambda: matching_pursuit(np.ones((2, 3)), np.ones((2, 3)), 0),
        lambda: matching_pursuit(np.ones((1, 3)), np.ones((2, 3)), centre=True),
        lambda: HeadPursuit((PursuedHead(0, 0, (), (), ()),), 1).best(2),
        lambda: pursue_heads(loaded("llava"), []),
    ],
)
def test_what_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(InputError):
        make()


MODULES = (
    "api.circuits", "api.knockout", "api.reading", "heads.circuits", "heads.joint", "heads.knockout", "heads.pursuit",
    "heads.reasoning", "steering.knock_out", "steering.scale_heads",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    importlib.import_module(f"vlmattn.{name}")
    result = doctest.testmod(sys.modules[f"vlmattn.{name}"])
    assert result.attempted > 0
    assert result.failed == 0


def test_a_plain_computation_gives_the_models_own_logits() -> None:
    run = run_of("llava")
    with by_hand(run) as (logits, _):
        start = run.trace.layout.answer_start
        ids = run.trace.layout.input_ids[start:]
        logp = torch.log_softmax(logits[start - 1 : -1], -1)[range(len(ids)), ids].numpy()
    assert np.allclose(run.trace.scores.chosen_logp_t, logp, atol=1e-4)
