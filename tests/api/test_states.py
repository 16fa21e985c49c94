"""Token activation maps and the logit lens of runs against whole logits of a plain pass, family by family."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

import vlmattn as va
from tests.maps.test_tam import plain_filter
from tests.tiny import TINY
from tests.tiny_models import FAMILIES, build
from vlmattn.api.follow import with_answers
from vlmattn.api.vlm import Vlm
from vlmattn.capture.readout import Readout, stream_pass
from vlmattn.capture.sites import model_sites
from vlmattn.core.errors import (
    BudgetExceeded,
    CaptureError,
    MapError,
    SpecError,
    UnsupportedModel,
    WordNotFound,
)
from vlmattn.core.layout import TokenKind

PICTURE, OTHER = data.coffee()[:120, :200], data.chelsea()[:90, :90]
QUESTION, ANSWER = "Is the cup red?", "a red cup"
EXACT = ("llava", "llava_next", "qwen2_5_vl", "gemma3", "paligemma2", "idefics3", "internvl")


@lru_cache(maxsize=3)
def made(kind: str, pictures: int = 1) -> va.Run:
    vlm = Vlm(*(build(kind) if kind in FAMILIES else TINY[kind]()), name=kind)
    spread_norm(vlm.model)
    return vlm.ask([PICTURE, OTHER][:pictures], QUESTION, answer=ANSWER)


def spread_norm(model: Any) -> None:
    """Weights of a new norm are all equal, and norming twice would hardly be noticed."""
    weight = getattr(final_norm(model), "weight", None) if model_sites(model).attention[0].kind == "self" else None
    if weight is not None:
        with torch.no_grad():
            weight.copy_(torch.rand(len(weight), generator=torch.Generator().manual_seed(0)) * 2 + 0.2)


@lru_cache(maxsize=3)
def plainly(kind: str) -> tuple[Any, np.ndarray]:
    """Hidden states as transformers hands them out, and the model's logits (N, V) of the question and answer."""
    run = made(kind)
    layout, vlm = run.trace.layout, run.vlm
    ids = layout.input_ids[layout.answer_start :].tolist()
    longer, _ = with_answers(vlm.adapter, vlm.encode([run.pictures], [QUESTION]), [ids])
    with torch.no_grad():
        out = vlm.model(**longer.inputs, use_cache=False, output_hidden_states=True)
    assert longer.pad_left[0] == 0
    return out.hidden_states, out.logits[0].double().numpy()


def final_norm(model: Any) -> Any:
    decoder = model_sites(model).decoder
    return next(getattr(decoder, n) for n in ("norm", "final_layernorm", "ln_f") if hasattr(decoder, n))


def image_at(run: va.Run, image: int = 0) -> np.ndarray:
    layout = run.trace.layout
    return layout.image_positions[layout.image[layout.image_positions] == image]


def vector(run: va.Run, word: Any, *, image: int = 0, **options: Any) -> np.ndarray:
    found, layout = run.map(word, image=image, **options).patch_map, run.trace.layout
    at = image_at(run, image)
    return np.array([found.values[layout.tile[p]][layout.row[p], layout.col[p]] for p in at])


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# -- token activation --------------------------------------------------------------------------------------------------


def plain_tam(run: va.Run, z: np.ndarray, token: int) -> np.ndarray:
    """The method as its paper says it, from all logits, token by token."""
    layout = run.trace.layout
    image, ids = image_at(run), layout.input_ids
    before = [p for p in range(token) if layout.kinds[p] in (TokenKind.QUESTION, TokenKind.ANSWER)]
    a_image = np.array([max(0.0, z[p, ids[token]]) for p in image])
    a_text = np.array([max(0.0, z[p, ids[token]]) for p in before])
    used = [n for n, p in enumerate(before) if ids[p] != ids[token]]
    total = np.zeros(len(image))
    for n in used:
        weight = a_text[n] / (a_text[used].sum() + 1e-8)
        total += weight * np.array([max(0.0, z[p, ids[before[n]]]) for p in image])
    scale = (a_image @ total) / (total @ total) if total.any() else 0.0
    left = np.maximum(a_image - scale * total, 0)
    both = np.concatenate([left, a_text])
    return (left - both.min()) / (both.max() - both.min())


@pytest.mark.parametrize("kind", EXACT)
def test_tam_is_that_of_whole_logits(kind: str) -> None:
    run, (_, z) = made(kind), plainly(kind)
    tokens = run.trace.find("red", part="answer").tokens
    wanted = np.mean([plain_tam(run, z, t) for t in tokens], axis=0)
    assert len(tokens) == 3
    assert np.allclose(vector(run, "red", method="tam", window=1), wanted, atol=1e-5)
    one = np.max([plain_tam(run, z, t) for t in tokens], axis=0)
    assert np.allclose(vector(run, "red", method="tam", window=1, over_tokens="max"), one, atol=1e-5)
    smooth = run.map("red", method="tam").patch_map.values
    for grid, rough in zip(smooth, run.map("red", method="tam", window=1).patch_map.values, strict=True):
        assert np.allclose(grid, plain_filter(rough, 3) if min(rough.shape) > 1 else grid, atol=1e-9)


def test_tam_knobs() -> None:
    run, (_, z) = made("llava"), plainly("llava")
    token = run.trace.find("red", part="answer").tokens[0]
    image, own = image_at(run), run.trace.layout.input_ids[token]
    plain = np.maximum(z[image, own], 0)
    bare = {"method": "tam", "window": 1, "over_tokens": "first"}
    assert np.allclose(vector(run, "red", causal=False, joint=False, **bare), plain, atol=1e-5)
    word = {"method": "tam", "window": 1, "joint": False}
    made_of = {prompt: vector(run, "red", prompt=prompt, **word) for prompt in ("question", "all", "none")}
    made_of["not causal"] = vector(run, "red", causal=False, **word)
    for one in made_of:
        assert made_of[one].min() >= 0
        assert not any(np.allclose(made_of[one], made_of[other]) for other in made_of if other != one)
    assert "prompt: question" in "".join(run.map("red", method="tam").patch_map.provenance.steps)
    # A word of the question is explained as well, by what was read before it.
    asked = vector(run, "cup", part="question", **bare)
    assert np.allclose(asked, plain_tam(run, z, run.trace.find("cup", part="question").tokens[0]), atol=1e-5)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("red", {"window": 2}, "window must be an odd"),
        ("red", {"window": 3.0}, "window must be an odd"),
        ("red", {"prompt": "some"}, "prompt must be one of question, all, none"),
        ("red", {"over_tokens": "sum"}, "over_tokens must be one of"),
        ("red", {"causal": 1}, "causal must be True or False"),
        ("red", {"joint": None, "layers": 1}, "layers goes with method='raw' or"),
        ("red", {"sinks": "drop"}, "reads no attention"),
    ],
)
def test_tam_options_that_cannot_be_used(what: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        made("llava").map(what, method="tam", **options)


def test_words_before_the_picture_have_no_activation_map() -> None:
    run = made("llava", 2)
    layout = run.trace.layout
    first = va.trace.Span("USER", "question", (0, 4), (int(image_at(run)[0]) - 2,))
    with pytest.raises(MapError, match="before picture 1"):
        run.map(first, method="tam", image=1)
    assert vector(run, "red", method="tam", image=1).shape == ((layout.image == 1).sum(),)


# -- the logit lens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXACT)
def test_the_lens_is_that_of_whole_logits(kind: str) -> None:
    run, (states, z) = made(kind), plainly(kind)
    at, token = image_at(run), run.trace.find("red", part="answer").tokens[0]
    own, depth = run.trace.layout.input_ids[token], len(states) - 1
    model, head = run.vlm.model, run.vlm.model.get_output_embeddings()
    cap = getattr(model_sites(model).decoder.config, "final_logit_softcapping", None)
    shares = []
    for layer in range(depth):
        with torch.no_grad():
            logits = head(final_norm(model)(states[layer][0, at])).double().numpy()
        shares.append(softmax(np.tanh(logits / cap) * cap if cap else logits)[:, own])
    shares.append(softmax(z[at])[:, own])  # transformers' last states are normed: these are the model's own logits
    for layer in range(depth + 1):
        assert np.allclose(vector(run, "red", method="logit_lens", layers=layer), shares[layer], atol=1e-5)
    assert np.allclose(vector(run, "red", method="logit_lens"), np.max(shares, axis=0), atol=1e-5)
    mean = vector(run, "red", method="logit_lens", layers=[0, -1], over_layers="mean")
    assert np.allclose(mean, (shares[0] + shares[-1]) / 2, atol=1e-5)
    assert run.internal_confidence("red") == pytest.approx(np.max(shares), abs=1e-5)
    assert run.internal_confidence("red", layers=[1]) == pytest.approx(shares[1].max(), abs=1e-5)
    words = run.patch_words(-1, top=3)
    best = np.argsort(-z[at], axis=1)[:, :3]
    assert np.allclose(words.probabilities[0], np.take_along_axis(softmax(z[at]), best, 1), atol=1e-5)


def test_norming_twice_would_be_noticed() -> None:
    run, (states, z) = made("llava"), plainly("llava")
    model, at = run.vlm.model, image_at(run)
    with torch.no_grad():
        twice = model.get_output_embeddings()(final_norm(model)(states[-1][0, at])).double().numpy()
    own = run.trace.layout.input_ids[run.trace.find("red", part="answer").tokens[0]]
    right = vector(run, "red", method="logit_lens", layers=-1)
    assert np.allclose(right, softmax(z[at])[:, own], atol=1e-5)
    assert not np.allclose(right, softmax(twice)[:, own], atol=1e-5)


def test_words_that_nobody_said_are_read_too() -> None:
    run = made("llava")
    ids = run.vlm.adapter.tokenizer(" zebra", add_special_tokens=False)["input_ids"]
    assert run.vlm.adapter.tokenizer.decode(ids[:1]) == " "
    letter = run.vlm.adapter.tokenizer("z", add_special_tokens=False)["input_ids"][0]
    _, z = plainly("llava")
    assert np.allclose(vector(run, "zebra", method="logit_lens", layers=-1), softmax(z[image_at(run)])[:, letter])
    with pytest.raises(WordNotFound):
        run.map("zebra", method="logit_lens", part="answer")
    with pytest.raises(SpecError, match="empty"):
        run.map(" ", method="logit_lens")


def test_several_sub_tokens_are_made_one_as_said() -> None:
    run, (_, z) = made("llava"), plainly("llava")
    tokens = list(run.trace.find("red", part="answer").tokens)
    ids = run.trace.layout.input_ids[tokens]
    shares = softmax(z[image_at(run)])[:, ids].mean(axis=1)
    look = run.map("red", method="logit_lens", layers=-1, over_tokens="mean")
    assert np.allclose(vector(run, "red", method="logit_lens", layers=-1, over_tokens="mean"), shares, atol=1e-6)
    assert "mean of 3 tokens" in look.patch_map.provenance.steps[-1]


@pytest.mark.parametrize("layers", [99, -99, [], 1.5, "all", True])
def test_layers_of_states_that_do_not_exist(layers: Any) -> None:
    with pytest.raises(SpecError, match="layers"):
        made("llava").map("red", method="logit_lens", layers=layers)
    with pytest.raises(SpecError, match="layers"):
        made("llava").patch_words(layers)


def test_patch_words_are_printed_and_written(tmp_path: Path) -> None:
    run = made("llava_next")
    found = run.patch_words(top=2)
    depth = model_sites(run.vlm.model).depth
    assert found.layers == tuple(range(depth + 1))
    assert found.ids.shape == found.probabilities.shape == (depth + 1, len(image_at(run)), 2)
    assert (np.diff(found.probabilities, axis=2) <= 0).all()
    told = json.loads(found.save(tmp_path / "words.json").read_text())
    assert told["words"][-1][0][0][0] == found.at(0, 0)[0][0]
    with np.load(found.save(tmp_path / "words.npz")) as arrays:
        assert np.array_equal(arrays["ids"], found.ids)
        assert arrays["words"][0, 0, 0] == found.words[int(found.ids[0, 0, 0])]
    assert found.save(tmp_path / "words.png", layer=1).stat().st_size > 1000
    assert f"layer {depth}" in str(found)
    for wrong in (lambda: found.at(99, 0), lambda: found.at(0, 0, layer=99), lambda: run.patch_words(top=0)):
        with pytest.raises(SpecError):
            wrong()
    with pytest.raises(SpecError, match="picture 3"):
        run.patch_words(image=3)


def test_sinks_are_marked_in_patch_words_and_left_out_of_maps() -> None:
    vlm = va.load("scene")
    scene = va.scene.make_scene(0)
    run = vlm.ask(scene.image, "How many objects are there?")
    assert run.patch_words(0).sinks is None
    where = run.sinks("received", alpha=1.5)
    marked = run.patch_words(0, sinks=where)
    places = {(t.row, t.col) for t in where.visual}
    assert {tuple(p[1:]) for p in marked.place[marked.sinks]} == places
    assert sum(count for _, count in marked.common(most=99)) == (~marked.sinks).sum()


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_families_whose_patches_are_no_tokens_are_refused() -> None:
    run = made("mllama")
    for call in (lambda: run.map("red", method="tam"), lambda: run.map("red", method="logit_lens"), run.patch_words):
        with pytest.raises(MapError, match=r"cross attention.*occlusion"):
            call()


class Louder(va.Steering):
    """Some change of the logits."""

    def describe(self) -> str:
        return "louder"


@pytest.mark.parametrize("kind", ["gemma3n", "hy_v4_vl"])
def test_several_residual_streams_are_refused(kind: str) -> None:
    vlm = Vlm(*TINY[kind](), name=kind)
    run = vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    for method in ("tam", "logit_lens"):
        with pytest.raises(UnsupportedModel):
            run.map("red", method=method)


def test_steered_runs_are_refused() -> None:
    run = made("llava")
    steered = run.vlm.ask(PICTURE, QUESTION, answer=ANSWER, steering=[Louder()])
    with pytest.raises(SpecError, match="without steering"):
        steered.map("red", method="tam")


def test_nan_is_one_error() -> None:
    vlm = Vlm(*build("llava"), name="broken")
    run = vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    with torch.no_grad():
        final_norm(vlm.model).weight.fill_(torch.nan)
    for method in ("tam", "logit_lens"):
        with pytest.raises((CaptureError, UnsupportedModel)):
            run.map("red", method=method)


def test_logits_changed_in_an_unknown_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = Vlm(*build("llava"), name="odd")
    run = vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    plain = vlm.model.forward

    def odd(*args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        out.logits = out.logits**3
        return out

    monkeypatch.setattr(vlm.model, "forward", odd)
    with pytest.raises(UnsupportedModel, match="not known"):
        run.map("red", method="tam")


def test_a_model_without_its_final_norm_in_sight_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = Vlm(*build("llava"), name="hidden norm")
    spread_norm(vlm.model)
    run = vlm.ask(PICTURE, QUESTION, answer=ANSWER)
    decoder = model_sites(vlm.model).decoder
    norm = decoder.norm
    decoder.norm = torch.nn.Sequential(norm)  # named a norm, and is one
    assert run.map("red", method="tam").patch_map.total > 0
    decoder.norm = norm
    monkeypatch.setattr(norm, "forward", lambda states: states * 1.0)
    assert run.map("red", method="tam").patch_map.total >= 0
    decoder.tail = decoder.norm
    del decoder.norm
    decoder.norm = lambda states: decoder.tail.weight * states
    with pytest.raises(UnsupportedModel, match="final norm"):
        run.map("red", method="tam")


def test_too_many_states_are_refused_before_anything_runs() -> None:
    vlm = made("llava").vlm
    run = vlm.ask(PICTURE, QUESTION, answer=ANSWER, capture=va.CaptureSpec(budget=1_000_000))
    object.__setattr__(run.request.capture, "budget", 100)
    with pytest.raises(BudgetExceeded, match="fewer layers"):
        run.map("red", method="logit_lens")


class Packed(torch.nn.Linear):
    """Stands for a quantised unembedding: no columns can be taken from its weights."""


@pytest.mark.parametrize(
    "scaling", [None, ("final_logit_softcapping", 2.0), ("logits_scaling", 4.0), ("logit_scale", 0.5)]
)
def test_columns_of_any_unembedding_are_those_of_all_logits(scaling: Any) -> None:
    states = torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    plain, packed = torch.nn.Linear(16, 50), Packed(16, 50)
    packed.load_state_dict(plain.state_dict())
    with torch.no_grad():
        z = plain(states)
    rules = {"final_logit_softcapping": lambda: torch.tanh(z / 2) * 2, "logits_scaling": lambda: z / 4}
    wanted = z if scaling is None else rules.get(scaling[0], lambda: z * 0.5)()
    for head in (plain, packed):
        readout = Readout(None, head, scaling)
        assert torch.allclose(readout.columns(states, [3, 49, 3]), wanted[:, [3, 49, 3]], atol=1e-6)
        read = readout.words(states, top=60, ids=[5])
        assert read.top.shape == (7, 50)
        assert torch.allclose(read.asked[:, 0], torch.softmax(wanted, -1)[:, 5], atol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("final_logit_softcapping", 3.0), ("logits_scaling", 5.0)])
def test_scaling_is_found_in_the_configuration_and_proved(
    name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = Vlm(*build("llava"), name="scaled")
    run, plain = vlm.ask(PICTURE, QUESTION, answer=ANSWER), vlm.model.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        out.logits = torch.tanh(out.logits / value) * value if "cap" in name else out.logits / value
        return out

    monkeypatch.setattr(vlm.model, "forward", scaled)
    setattr(vlm.model.config, name, value)
    encoded = vlm.encode([run.pictures], [QUESTION])
    assert stream_pass(vlm.model, encoded, []).readout.scaling == (name, value)


def test_nothing_is_left_behind() -> None:
    run = made("llava")
    modules = list(run.vlm.model.modules())

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    before = hooks()
    run.map("red", method="tam")
    with pytest.raises(SpecError):
        stream_pass(run.vlm.model, run.vlm.encode([run.pictures], [QUESTION]), [10**6])
    assert hooks() == before
