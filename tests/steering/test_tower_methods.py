"""Methods that read the vision tower's class token, against the tower's whole attention matrices."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.steering.plain_contrast import QUESTIONS, alone, check_same, cut, encoded_of, log_p, picture, vlm_of
from tests.steering.plain_contrast import whole_logits as whole
from tests.steering.plain_edit import Matrices, Plain, plainly
from vlmattn.capture import CaptureSpec, Session
from vlmattn.core.errors import SpecError
from vlmattn.steering import DAMRO, PAINT, VAF

CLASSED = ("llava", "llava_next", "vipllava")


def class_rows(vlm: va.Vlm, number: int, layer: int) -> list[float]:
    """Of one prompt's picture: the class token's attention to each image token, in their order."""
    tower = copy.deepcopy(vlm.model.model.vision_tower)
    tower.set_attn_implementation("eager")
    pixels = alone(vlm, number)["pixel_values"]
    pixels = pixels[0] if pixels.dim() == 5 else pixels
    with torch.no_grad():
        seen = tower(pixel_values=pixels, output_attentions=True).attentions[layer]
    rows = seen.mean(1)[:, 0, 1:].double()  # (views, patches)
    layout = encoded_of(vlm, *QUESTIONS).layouts[number]
    side = int(rows.shape[1] ** 0.5)
    cells = vlm.adapter.tower_cells(layout.images[0])
    flat = torch.cat([torch.zeros(len(rows), 1, dtype=torch.float64), rows], 1).flatten().numpy()
    values, out, offset = cells.to_cells(flat), [], {}
    for index, tile in enumerate(layout.images[0].tiles):
        offset[index] = sum(t.grid_hw[0] * t.grid_hw[1] for t in layout.images[0].tiles[:index])
        if len(layout.images[0].tiles) == 1:
            assert tile.grid_hw == (side, side)
    for position in layout.image_positions:
        tile = layout.images[0].tiles[layout.tile[position]]
        cell = offset[layout.tile[position]] + layout.row[position] * tile.grid_hw[1] + layout.col[position]
        out.append(float(values[cell]))
    return out


def damro_rule(vlm: va.Vlm, alpha: float, beta: float, k: int) -> Any:
    clean = [alone(vlm, n) for n in range(2)]
    layouts = encoded_of(vlm, *QUESTIONS).layouts
    read = 2 if vlm.family != "vipllava" else 3

    def outliers(number: int) -> torch.Tensor:
        scores = class_rows(vlm, number, read - 1)
        ranked = sorted(range(len(scores)), key=lambda n: -scores[n])[:k]
        best = {int(layouts[number].image_positions[n]) for n in ranked}
        every = {int(n) for n in layouts[number].image_positions}
        states: list[torch.Tensor] = []
        hook = vlm.model.model.language_model.register_forward_pre_hook(
            lambda _m, _a, kwargs: states.append(kwargs["inputs_embeds"]), with_kwargs=True
        )
        with torch.no_grad():
            vlm.model(**clean[number])
        hook.remove()
        return states[0][:, [n for n in range(len(layouts[number])) if n in best or n not in every]]

    held = [outliers(n) for n in range(2)]

    def rule(number: int, written: torch.Tensor) -> torch.Tensor:
        p = log_p(whole(vlm, clean[number], written))
        words = vlm.model.get_input_embeddings()(written[None])
        with torch.no_grad():
            logits = vlm.model(inputs_embeds=torch.cat([held[number], words], 1), use_cache=False).logits[0, -1]
        o = log_p(logits.float())
        return cut((1 + alpha) * p - alpha * o, p, beta)

    return rule


@pytest.mark.parametrize("decoding", ["greedy", "beams", "samples"])
@pytest.mark.parametrize("family", CLASSED)
def test_damro(family: str, decoding: str) -> None:
    vlm = vlm_of(family)
    check_same(vlm, DAMRO(alpha=0.8, beta=0.005, k=3).for_model(vlm), damro_rule(vlm, 0.8, 0.005, 3), decoding)


@pytest.mark.parametrize("family", CLASSED)
def test_paint_raises_the_tokens_of_its_two_streams(family: str) -> None:
    # In its first layer, the kept rows with PAINT are those without it, whose logarithms are moved by the scores.
    vlm = vlm_of(family)
    read = 2 if vlm.family != "vipllava" else 3
    spec = CaptureSpec(rows="last", columns="all", dtype="float32", layers=[1])
    items = [(picture(n), q) for n, q in enumerate(QUESTIONS)]
    method = PAINT(alpha=0.6, beta=0.2, first_layer=1, layers=(1,))
    before = vlm.ask_many(items, capture=spec, max_new_tokens=2)
    after = vlm.ask_many(items, capture=spec, max_new_tokens=2, steering=[method])
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        c, d = class_rows(vlm, number, 0), class_rows(vlm, number, read - 1)
        q1, q3 = np.percentile(d, 25), np.percentile(d, 75)
        count = sum(v > q3 + 1.5 * (q3 - q1) for v in d)
        summary = sorted(range(len(d)), key=lambda n: -d[n])[:count]
        local = set(sorted(range(len(c)), key=lambda n: -c[n])[: len(c) // 4]) - set(summary)
        positions = old.trace.layout.image_positions
        a, b = (np.asarray(r.trace.attn_lhqk[0, :, 0], dtype=np.float64) for r in (old, new))
        moved = np.log(b / a)
        rest = [n for n in range(a.shape[-1]) if n not in {int(positions[j]) for j in (*local, *summary)}]
        base = moved[:, rest].mean(-1, keepdims=True)
        assert np.abs(moved[:, rest] - base).max() < 1e-4  # nothing else is moved
        assert (moved[:, [int(positions[j]) for j in local]] - base > 0).mean() > 0.9
        assert local
        up = (moved - base)[:, [int(positions[j]) for j in local]]
        assert up.max() > 1e-2


class PlainPaintAndVAF(Plain):
    """PAINT in the last row of every pass, VAF in all rows after the picture, of one line read whole."""

    def __init__(self, by: dict[int, float], image: range) -> None:
        self.by, self.image = by, image

    def scores(self, scores: torch.Tensor, at: Matrices) -> torch.Tensor:
        out = scores.clone()
        for row in range(self.image.stop, scores.shape[1]):
            for column in range(self.image.stop):
                factor = 1.3 if column in self.image else 0.7
                old = float(factor) * scores[:, row, column]
                raised = self.by.get(column, 0.0) if row >= at.prompt - 1 else 0.0
                out[:, row, column] = old + raised * old.abs()
        return out


def test_paint_together_with_another_method_equals_the_plain_computation(monkeypatch: Any) -> None:
    vlm = vlm_of("llava")
    encoded = encoded_of(vlm, *QUESTIONS)
    paint = PAINT(alpha=0.6, beta=0.2, first_layer=1).for_model(vlm)
    paint.edit_input(encoded)
    both = [paint, VAF(enhance=1.3, suppress=0.7, layers=(1, 2))]
    how = {"max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with Session(vlm.model, encoded.layouts, None, both, pad_left=encoded.pad_left), torch.no_grad():
        out = vlm.model.generate(**encoded.inputs, **how)
    twin = copy.deepcopy(vlm.model)
    twin.set_attn_implementation("eager")
    for number, (layout, pad) in enumerate(zip(encoded.layouts, encoded.pad_left, strict=True)):
        c, d = class_rows(vlm, number, 0), class_rows(vlm, number, 1)
        q1, q3 = np.percentile(d, 25), np.percentile(d, 75)
        summary = sorted(range(len(d)), key=lambda n: -d[n])[: sum(v > q3 + 1.5 * (q3 - q1) for v in d)]
        local = set(sorted(range(len(c)), key=lambda n: -c[n])[: len(c) // 4]) - set(summary)
        positions = [int(p) for p in layout.image_positions]
        by = {positions[n]: 0.6 for n in local} | {positions[n]: 0.2 for n in summary}
        plain = PlainPaintAndVAF(by, range(positions[0], positions[-1] + 1))
        clean = alone(vlm, number)
        ids = out.sequences[number : number + 1, pad:]
        given = clean | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with plainly(twin, plain, [1, 2], len(layout), monkeypatch), torch.no_grad():
            want = twin(**given, use_cache=False).logits[0]
        for step in range(3):
            error = (out.logits[step][number] - want[len(layout) - 1 + step]).abs().max()
            assert error < 1e-5 * max(1, float(want.abs().max())), (number, step, float(error))
    with Session(vlm.model, encoded.layouts, None, both[1:], pad_left=encoded.pad_left), torch.no_grad():
        other = vlm.model.generate(**encoded.inputs, **how)
    assert (other.logits[0] - out.logits[0]).abs().max() > 1e-3  # PAINT does its part


def test_towers_without_a_class_token_are_refused_before_anything_runs() -> None:
    vlm = vlm_of("llava_onevision")
    for method in (DAMRO(k=2), PAINT(first_layer=0)):
        with pytest.raises(SpecError, match="class token"):
            vlm.ask(picture(), "Who?", steering=[method])


def test_more_outliers_than_image_tokens_are_refused() -> None:
    vlm = vlm_of("llava")
    with pytest.raises(SpecError, match="k=99"):
        vlm.ask(picture(), "Who?", steering=[DAMRO(k=99)])
