"""An atlas gives what plain computations give: eager attention, full matrices, autograd, hooks before W_O."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.capture.asked import loaded, picture
from tests.tiny_models import build
from vlmattn.api import head_passes as passes
from vlmattn.api.head_scores import token_divergences, written
from vlmattn.capture import model_sites
from vlmattn.core.layout import TokenKind
from vlmattn.heads import HeadSample, spatial_entropy

FAMILIES = ("llava", "qwen2_vl", "gemma3", "internvl", "smolvlm")
SAMPLE = HeadSample(picture(), "What is left of the red spoon?", "A red cup.", ((10.0, 10.0, 50.0, 60.0),))


@cache
def model_of(kind: str) -> va.Vlm:
    return va.load(*build("llava")) if kind == "llava" else loaded(kind)


def eager(vlm: va.Vlm) -> Any:
    twin = copy.deepcopy(vlm.model)
    twin.set_attn_implementation("eager")
    return twin


class Plain:
    """One teacher-forced pass of the eager twin, with the inputs of every W_O held, or changed."""

    def __init__(self, vlm: va.Vlm, *, text_only: bool = False) -> None:
        self.vlm, self.model = vlm, eager(vlm)
        run = vlm.ask(SAMPLE.image, SAMPLE.question, answer=SAMPLE.answer)
        ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
        encoded = passes.answered(vlm, run.pictures, SAMPLE.question, ids)
        self.layout = encoded.layouts[0]
        self.inputs = dict(encoded.inputs)
        if text_only:
            kinds = self.layout.kinds
            keep = ~np.isin(kinds, [TokenKind.IMAGE, TokenKind.SEPARATOR])
            kept = torch.from_numpy(self.layout.input_ids[keep])[None]
            self.inputs = {"input_ids": kept, "attention_mask": torch.ones_like(kept)}
        self.sites = model_sites(self.model).attention
        self.held: list[torch.Tensor] = []

    def run(self, change: Any = None) -> Any:
        self.held = []
        handles = []
        for line, site in enumerate(self.sites):

            def hook(_module: Any, args: Any, line: int = line, heads: int = site.heads) -> Any:
                x = args[0]
                x = x.view(*x.shape[:2], heads, -1)
                if change is not None:
                    x = change(line, x)
                if torch.is_grad_enabled():
                    x.retain_grad()
                self.held.append(x)
                return (x.reshape(args[0].shape),)

            assert site.output_projection is not None
            handles.append(site.output_projection.register_forward_pre_hook(hook))
        try:
            return self.model(**self.inputs, use_cache=False, output_attentions=True)
        finally:
            for handle in handles:
                handle.remove()

    def answer(self, logits: torch.Tensor) -> torch.Tensor:
        logp = torch.log_softmax(logits[0].float(), dim=-1)
        return torch.stack([logp[row, int(self.layout.input_ids[row + 1])] for row in self.rows]).sum()

    @property
    def rows(self) -> list[int]:
        """Of the answer's tokens that have text, the rows that predict them."""
        return [p - 1 for p in range(self.layout.answer_start, len(self.layout)) if self.layout.char_span[p, 0] >= 0]


@cache
def atlas_of(kind: str) -> va.heads.HeadAtlas:
    names = ["visual", "mass", "entropy", "pointing", "vhd", "gradient", "ablation", "ablation_mean", "induction"]
    return model_of(kind).head_atlas([SAMPLE], scores=names, resamples=10)


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_scores_of_rows_equal_those_of_full_matrices(kind: str) -> None:
    plain, atlas = Plain(model_of(kind)), atlas_of(kind)
    matrices = [m[0].double().numpy() for m in plain.run().attentions]
    columns = plain.layout.image_positions
    first = plain.layout.answer_start - 1
    rows = plain.rows
    tiles = plain.layout.images[0].tiles
    for line, head in np.ndindex(len(matrices), len(matrices[0])):
        whole = matrices[line][head]
        row = whole[first, columns]
        assert atlas.scores["mass"][line, head] == pytest.approx(row.sum(), abs=1e-5)
        scores = []
        for r in rows:
            if not whole[r, columns].any():  # the layer's window has moved past the picture
                scores.append(0.0)
                continue
            share = whole[r, columns] / whole[r, columns].sum()
            entropy = -sum(p * math.log(p) for p in share if p > 0)
            scores.append(whole[r, columns].sum() * (1 - entropy / math.log(len(columns))))
        assert atlas.scores["visual"][line, head] == pytest.approx(np.mean(scores), abs=1e-5)
        grids = [np.zeros(tile.grid_hw) for tile in tiles]
        for at, value in zip(columns, row, strict=True):
            grids[plain.layout.tile[at]][plain.layout.row[at], plain.layout.col[at]] = value
        assert atlas.scores["entropy"][line, head] == pytest.approx(spatial_entropy(grids), abs=1e-5, nan_ok=True)
        best = int(columns[np.argmax(row)])
        tile = tiles[plain.layout.tile[best]]
        x0, y0, x1, y1 = tile.cell_box(int(plain.layout.row[best]), int(plain.layout.col[best]))
        (left, top, right, bottom) = SAMPLE.boxes[0]
        hit = x0 < right and x1 > left and y0 < bottom and y1 > top
        assert atlas.scores["pointing"][line, head] == (hit and row.any())


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_equal_those_of_plain_autograd(kind: str) -> None:
    plain, atlas = Plain(model_of(kind)), atlas_of(kind)
    with torch.enable_grad():
        score = plain.answer(plain.run().logits)
        score.backward()
    for line, x in enumerate(plain.held):
        assert x.grad is not None
        want = (x.detach() * x.grad)[0].double().sum(dim=(0, 2)).abs().numpy()
        assert atlas.scores["gradient"][line] == pytest.approx(want, abs=1e-5)
    assert atlas.scores["gradient"].max() > 1e-4


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_divergence_equals_two_plain_passes(kind: str) -> None:
    whole, alone = Plain(model_of(kind)), Plain(model_of(kind), text_only=True)
    whole.run()
    alone.run()
    kinds = whole.layout.kinds
    text = [p for p in range(len(kinds)) if kinds[p] not in (TokenKind.IMAGE, TokenKind.SEPARATOR)]
    found = []
    for row in whole.rows:
        for line, (a, b) in enumerate(zip(whole.held, alone.held, strict=True)):
            with_picture, without = a[0, row].double().numpy(), b[0, text.index(row)].double().numpy()
            far = np.sqrt(((with_picture - without) ** 2).sum(-1))
            energy = (without**2).sum(-1)
            far[(far > far.mean() + far.std()) & (energy > energy.mean() + energy.std())] = 0
            found.append((line, far))
    for line in range(len(whole.held)):
        want = np.mean([far for at, far in found if at == line], axis=0)
        assert atlas_of(kind).scores["vhd"][line] == pytest.approx(want, abs=1e-5)


def test_a_word_has_the_divergence_of_its_tokens() -> None:
    vlm = va.load("scene")
    scene, (question, *_) = va.scene.split_item("test", 0, 0)
    run = vlm.ask(scene.image, question.text, answer="a red circle and a blue square")
    found = run.vision_divergence(k=2)
    assert list(found) == [word.label for word in run.words()]
    encoded = passes.answered(vlm, run.pictures, question.text, written(run))
    layout, whole = encoded.layouts[0], passes.passed(vlm, encoded, slopes=False).outputs
    token = run.trace.find("circle").tokens[0]
    (vhd,) = token_divergences(vlm, layout, whole)[[token - layout.answer_start]]
    assert found["circle"] == pytest.approx(sum(np.sort(line)[-2:].sum() for line in vhd))
    assert all(value > 0 for value in found.values())
    with pytest.raises(va.errors.SpecError, match="k >= 1"):
        run.vision_divergence(k=0)


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_ablations_equal_hooks_before_the_output_projection(kind: str) -> None:
    plain, atlas = Plain(model_of(kind)), atlas_of(kind)
    full = float(plain.answer(plain.run().logits))
    means = [x[0].mean(dim=0) for x in plain.held]
    for line, head in [(0, 0), (1, 2), (len(plain.sites) - 1, 3)]:
        for name, value in (("ablation", None), ("ablation_mean", means[line][head])):

            def change(at: int, x: torch.Tensor, line: int = line, head: int = head, value: Any = value) -> Any:
                x = x.clone()
                if at == line:
                    x[:, :, head] = 0 if value is None else value
                return x

            drop = full - float(plain.answer(plain.run(change).logits))
            assert atlas.scores[name][line, head] == pytest.approx(drop, abs=2e-5)
    assert np.abs(atlas.scores["ablation"]).max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "gemma3", "internvl"])
def test_induction_equals_eager_attention_on_repeated_text(kind: str) -> None:
    vlm = model_of(kind)
    model, rng, found = eager(vlm), np.random.default_rng(0), []
    for _ in range(8):
        ids, start = passes.repeated_text(vlm, rng, 16)
        assert (ids[start : start + 16] == ids[start + 16 :]).all()
        given = torch.from_numpy(ids)[None]
        out = model(input_ids=given, attention_mask=torch.ones_like(given), use_cache=False, output_attentions=True)
        rows = range(start + 16, len(ids))
        found.append([[np.mean([m[0, h, q, q - 15] for q in rows]) for h in range(m.shape[1])] for m in out.attentions])
    assert atlas_of(kind).scores["induction"] == pytest.approx(np.mean(found, axis=0), abs=1e-5)


def test_a_replaced_head_is_replaced_and_nothing_is_left_behind() -> None:
    vlm = model_of("llava")
    ask = {"answer": SAMPLE.answer, "capture": va.CaptureSpec(rows="answer", head_norms=True)}
    before = vlm.ask(SAMPLE.image, SAMPLE.question, **ask)
    change = va.steering.ReplaceHeads(((1, 2),))
    norms = vlm.ask(SAMPLE.image, SAMPLE.question, steering=[change], **ask).trace.head_norm_lhq
    assert norms is not None
    assert not norms[1, 2].any()
    assert norms[1, [0, 1, 3]] == pytest.approx(before.trace.head_norm_lhq[1, [0, 1, 3]])
    after = vlm.ask(SAMPLE.image, SAMPLE.question, **ask)
    assert np.array_equal(after.trace.scores.chosen_logp_t, before.trace.scores.chosen_logp_t)
    assert all(p.grad is None for p in vlm.model.parameters())
