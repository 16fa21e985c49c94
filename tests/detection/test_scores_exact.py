"""Every score against a plain computation from whole matrices, family by family; and what refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.detection.plain import BY_HAND, KINDS, PICTURE, QUESTION, head_outputs, logp, made, plainly
from vlmattn.api.detected import seen
from vlmattn.api.follow import with_answers
from vlmattn.core.errors import MapError, SpecError, UnsupportedModel
from vlmattn.core.layout import TokenKind
from vlmattn.detection import (
    SCORES,
    attention_dispersion,
    commit_depth,
    glsim,
    lookback_ratio,
    preliminary_attention,
    score_specs,
    sink_share,
    svar,
    visual_attention_ratio,
)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_whole_matrices(kind: str) -> None:
    plain, run = plainly(kind), made(kind)
    tokens = run.trace.answer_tokens[:6]
    found = seen(run, tokens)
    for name, by_hand in BY_HAND.items():
        wanted = [by_hand(plain, t) for t in tokens]
        np.testing.assert_allclose(SCORES[name].of(found), wanted, rtol=1e-5, atol=1e-5, err_msg=name)


def test_all_scores_are_compared() -> None:
    assert set(BY_HAND) == set(SCORES) - {"t_vhd", "sink_share"}


@pytest.mark.parametrize("kind", KINDS[:4])
def test_every_head_has_its_ratio(kind: str) -> None:
    plain, run = plainly(kind), made(kind)
    t = run.trace.answer_tokens[3]
    rows = plain.attention_lhnn[:, :, t - 1]
    image = rows[..., plain.image].sum(-1)
    np.testing.assert_allclose(visual_attention_ratio(run.trace, [t])[..., 0], image, atol=1e-6)
    prompt = np.isin(
        run.trace.layout.kinds, (TokenKind.SYSTEM, TokenKind.QUESTION, TokenKind.IMAGE, TokenKind.SEPARATOR)
    )
    for context, at in (("image", plain.image), ("prompt", np.flatnonzero(prompt))):
        inside, new = rows[..., at].mean(-1), rows[..., plain.answer : t].mean(-1)
        found = lookback_ratio(run.trace, [t], context=context)[..., 0]
        np.testing.assert_allclose(found, inside / (inside + new), atol=1e-6)


@pytest.mark.parametrize("kind", ["llava", "llava_next", "qwen2_5_vl", "internvl"])
def test_t_vhd_is_that_of_two_plain_passes(kind: str) -> None:
    run = made(kind)
    layout = run.trace.layout
    longer, _ = with_answers(
        run.vlm.adapter, run.vlm.encode([run.pictures], [QUESTION]), [layout.input_ids[layout.answer_start :].tolist()]
    )
    kept = ~np.isin(layout.kinds, (TokenKind.IMAGE, TokenKind.SEPARATOR))
    ids = torch.as_tensor(layout.input_ids[kept])[None]
    whole = head_outputs(run, dict(longer.inputs))
    without = head_outputs(run, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    wanted, said = [], [t for t in run.trace.answer_tokens if layout.char_span[t, 0] >= 0][:4]
    for t in said:
        total, beside = 0.0, int(kept[: t - 1].sum())
        for with_picture, alone in zip(whole[:, t - 1], without[:, beside], strict=True):
            far, energy = np.linalg.norm(with_picture - alone, axis=1), (alone**2).sum(1)
            outlier = (far > far.mean() + far.std()) & (energy > energy.mean() + energy.std())
            total += np.sort(np.where(outlier, 0, far))[-4:].sum()
        wanted.append(-total)
    found = SCORES["t_vhd"].of(seen(run, said))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llava", "llava_next", "qwen2_5_vl", "internvl"])
def test_sink_share_is_that_of_whole_matrices(kind: str) -> None:
    plain, run = plainly(kind), made(kind)
    found = run.sinks(coordinates=[0, 1, 2], tau=1.2)
    tokens = run.trace.answer_tokens[:4]
    wanted = []
    for t in tokens:
        shares = []
        for layer, is_sink in zip(found.layers, found.is_sink_ln, strict=True):
            rows = plain.attention_lhnn[run.trace.layers.index(layer), :, t - 1].mean(0)
            sinks = [j for j in plain.image if is_sink[j]]
            shares.append(rows[sinks].sum() / rows[plain.image].sum())
        wanted.append(np.mean(shares))
    assert max(wanted) > 0
    np.testing.assert_allclose(sink_share(found, run.trace, tokens), wanted, atol=1e-5)


@pytest.mark.parametrize(("places", "blob"), [([(0, 0), (1, 1)], True), ([(0, 0), (2, 2)], False)])
def test_a_blob_is_of_patches_that_touch_at_corners_too(places: list[tuple[int, int]], blob: bool) -> None:
    trace = made("llava").trace
    t = trace.answer_tokens[1]
    rows, columns = trace.rows_of([t], "predicting"), trace.image_columns(0)
    at = trace.columns[columns]
    count = int(np.ceil(len(at) / 10))
    cells = [(int(trace.layout.row[p]), int(trace.layout.col[p])) for p in at]
    others = [n for n, cell in enumerate(cells) if cell not in places]
    attention = trace.attn_lhqk.astype(np.float64)
    line = np.full(len(at), 0.01)
    line[[cells.index(cell) for cell in places]] = 0.2
    attention[:, :, rows[0], columns] = line
    assert count == 2
    inside = 0.4 / line.sum() if blob else 0.0
    rest = line[others] if blob else line
    q = rest / rest.sum()
    wanted = (1 - inside) * -(q * np.log(q)).sum() / np.log(len(q))
    found = attention_dispersion(dataclasses.replace(trace, attn_lhqk=attention), [t])
    assert found[0] == pytest.approx(wanted, abs=1e-6)


def test_a_word_is_the_mean_of_its_tokens() -> None:
    plain, run = plainly("llava"), made("llava")
    word = next(w for w in run.words() if w.text == "cup")
    wanted = [-logp(plain, t)[run.trace.layout.input_ids[t]] for t in word.tokens]
    assert len(wanted) > 1
    for over, value in (("mean", np.mean(wanted)), ("max", max(wanted)), ("first", wanted[0]), ("last", wanted[-1])):
        found = {w.text: w.scores["nll"] for w in run.detect(scores=["nll"], over_tokens=over).words}
        assert found["cup"] == pytest.approx(value, abs=1e-5)


def test_the_first_token_has_no_lookback_ratio_and_a_one_token_answer_says_so() -> None:
    run = made("llava")
    first, second = run.trace.answer_tokens[:2]
    found = lookback_ratio(run.trace, [first, second])
    assert np.isnan(found[..., 0]).all()
    assert np.isfinite(found[..., 1]).all()
    short = run.vlm.ask(PICTURE, QUESTION, answer=[int(run.trace.layout.input_ids[second])])
    with pytest.raises(MapError, match="one-token answer"):
        short.detect(scores=["lookback"])
    assert "one-token answer" in short.detect().missing["lookback"]


def test_what_was_not_kept_is_told() -> None:
    run = made("llava")
    bare = seen(run, run.trace.answer_tokens[:2])
    bare.passes.clear()
    with pytest.raises(MapError, match="states of these tokens were not kept"):
        SCORES["glsim"].of(bare)
    one = run.vlm.ask(PICTURE, QUESTION, answer="red", capture=va.CaptureSpec(top_k=0, rows="answer"))
    with pytest.raises(MapError, match="top_k=2"):
        one.detect(scores=["nll"])
    with pytest.raises(MapError, match="two next-token candidates"):
        run.vlm.ask(PICTURE, QUESTION, answer="red", capture=va.CaptureSpec(top_k=1)).detect(scores=["margin"])
    with pytest.raises(MapError, match="were not kept"):
        run.vlm.ask(PICTURE, QUESTION, answer="red", capture=va.CaptureSpec(rows="last")).detect()


def test_states_of_other_layers_are_refused() -> None:
    run = made("llava")
    states = seen(run, run.trace.answer_tokens[:2], layers=[0, 1]).states
    with pytest.raises(SpecError, match=r"layer -1 were not kept; kept are \[0, 1\]"):
        glsim(states)
    with pytest.raises(SpecError, match="share must be from 0 to 1"):
        glsim(states, share=1.5, image_layer=1, object_layer=0)
    with pytest.raises(SpecError, match="top must be from 1"):
        glsim(states, top=0, image_layer=1, object_layer=0)
    with pytest.raises(MapError, match="must have shape"):
        dataclasses.replace(states, prompt_ld=states.prompt_ld[:1])


def test_scores_layers_and_heads_that_do_not_exist_are_refused() -> None:
    run = made("llava")
    with pytest.raises(SpecError, match="scores \\['nonsense'\\] do not exist; scores are nll"):
        run.detect(scores=["nonsense"])
    with pytest.raises(SpecError, match="list of names"):
        run.detect(scores="nll")
    with pytest.raises(SpecError, match="over_tokens must be one of"):
        run.detect(over_tokens="median")
    with pytest.raises(SpecError, match=r"layers \[9\] were not kept or look at no picture"):
        svar(run.trace, run.trace.answer_tokens[:1], [9])
    with pytest.raises(SpecError, match="states of layers \\[99\\] do not exist"):
        run.detect(scores=["glsim"], layers=[99])
    with pytest.raises(SpecError, match="context must be"):
        lookback_ratio(run.trace, run.trace.answer_tokens[:2], context="text")  # type: ignore[arg-type]
    with pytest.raises(MapError, match="rows must have shape"):
        preliminary_attention(np.zeros((2, 1, 3)), [1, 2], 1)
    assert [s.name for s in score_specs(["svar", "nll", "svar"])] == ["svar", "nll"]


def test_a_family_without_patches_in_its_prompt_keeps_what_rows_give() -> None:
    run = made("mllama")
    found = run.detect()
    assert {"nll", "image_share", "lookback"} <= set(found.specs)
    assert "none of its tokens" in found.missing["glsim"]
    assert "could be taken away" in found.missing["t_vhd"]
    with pytest.raises((MapError, UnsupportedModel)):
        run.detect(scores=["glsim"])


def test_a_token_is_committed_where_it_stays_the_likeliest() -> None:
    states = seen(made("llava"), made("llava").trace.answer_tokens[:3]).states
    n = states.depth
    own = states.ids_t
    likeliest = np.repeat(own[None], n + 1, axis=0)
    likeliest[1, 0] = own[0] + 1  # likeliest at first, lost, and found again
    likeliest[n, 1] = own[1] + 1  # lost at the end
    found = commit_depth(dataclasses.replace(states, likeliest_lt=likeliest))
    np.testing.assert_allclose(found, [2 / n, (n + 1) / n, 0.0])
