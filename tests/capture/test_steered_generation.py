"""Steering while a model writes: what it is shown, ragged batches on every cache, beams."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.capture.decoders import decoder, layouts_of, padded_batch
from vlmattn.capture import CaptureSpec, KeptRows, Session, Steering, Where
from vlmattn.core.layout import TokenKind

pytestmark = pytest.mark.filterwarnings("ignore:The explicitly set RoPE scaling factor.*")
SPEC = CaptureSpec(rows=("question", "answer"), columns="all", dtype="float32")
NEW = 5


class ToPicture(Steering):
    """Moves half of what goes elsewhere to the picture, where a row sees it."""

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor:
        picture = where.columns(TokenKind.IMAGE) & where.visible
        rest, share = torch.where(picture, 0.0, probs_bhrk) * 0.5, torch.where(picture, probs_bhrk, 0.0)
        total = share.sum(-1, keepdim=True)
        return torch.where(
            total > 0, rest + share + share / total.clamp_min(1e-9) * rest.sum(-1, keepdim=True), probs_bhrk
        )


class Louder(Steering):
    def edit_scores(self, scores_bhrk: torch.Tensor, where: Where) -> torch.Tensor:
        return torch.where(where.columns(TokenKind.IMAGE), scores_bhrk + 0.5 * scores_bhrk.abs(), scores_bhrk)


class Quieter(Steering):
    def scale_heads(self, where: Where) -> torch.Tensor:
        factors = torch.ones(*where.rows.shape, 4)
        factors[..., 1] = 0.3
        return factors


@torch.no_grad()
def written(model: Any, inputs: Any, layouts: Any, pads: Any, **settings: Any) -> tuple[Any, tuple[KeptRows, ...]]:
    steering = [ToPicture(), Louder(), Quieter()]
    common = {"max_new_tokens": NEW, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    with Session(model, layouts, SPEC, steering, pad_left=pads, max_new_tokens=NEW) as session:
        output = model.generate(**inputs, **common | settings)
    return output, session.finish(sequences=output.sequences)


@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("name", ["llama_gqa", "mistral_window", "gemma3_window", "gpt_oss_sinks"])
def test_a_ragged_batch_is_steered_as_each_of_it_alone(name: str, settings: dict[str, Any]) -> None:
    model = decoder(name)
    inputs, pads = padded_batch()
    layouts = layouts_of(inputs, pads)
    output, kept = written(model, inputs, layouts, pads, **settings)
    plain = model.generate(
        **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    for line, pad in enumerate(pads):
        one = {key: tensor[line : line + 1, pad:] for key, tensor in inputs.items()}
        alone, (rows,) = written(model, one, [layouts[line]], [0])
        assert torch.equal(alone.sequences[0], output.sequences[line, pad:])
        for step in range(NEW):
            assert torch.allclose(alone.logits[step][0], output.logits[step][line], atol=5e-6)
        assert torch.allclose(rows.attn_lhqk, kept[line].attn_lhqk, atol=2e-6)
        assert float((plain.logits[0][line] - output.logits[0][line]).abs().max()) > 1e-3, "the edits changed nothing"


@torch.no_grad()
def test_beams_are_steered_in_every_line() -> None:
    class Half(Steering):
        layers = (3,)

        def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> torch.Tensor:
            return probs_bhrk * 0.5

    model = decoder("llama_gqa")
    inputs, pads = padded_batch()
    with Session(model, layouts_of(inputs, pads), SPEC, [Half()], pad_left=pads, beams=3) as session:
        output = model.generate(
            **inputs, max_new_tokens=NEW, num_beams=3, do_sample=False, return_dict_in_generate=True
        )
    for kept in session.finish(output.beam_indices, sequences=output.sequences):
        behind = kept.positions >= 10
        assert torch.allclose(kept.mass_lhqs[3][:, behind].sum(-1), torch.tensor(0.5), atol=1e-5)
        assert torch.allclose(kept.mass_lhqs[2].sum(-1), torch.tensor(1.0), atol=1e-5)


# -- what steering is shown --------------------------------------------------------------------------------------------


class Look(Steering):
    rows = "all"
    layers = (0,)

    def __init__(self) -> None:
        self.seen: list[Where] = []

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Where) -> None:
        assert where.visible.shape[-2:] == probs_bhrk.shape[-2:]
        real = (where.rows >= 0)[:, None, :, None]  # rows of padding are filler
        assert float((probs_bhrk * (real & ~where.visible)).max()) == 0.0
        assert float(probs_bhrk[(real & where.visible).expand_as(probs_bhrk)].min()) > 0
        self.seen.append(where)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("name", ["llama_gqa", "mistral_window"])
def test_columns_that_are_not_written_yet_have_no_kind(name: str, settings: dict[str, Any]) -> None:
    model, look = decoder(name), Look()
    inputs, pads = padded_batch((12, 10))
    with Session(model, layouts_of(inputs, pads), None, [look], pad_left=pads):
        model.generate(**inputs, max_new_tokens=4, do_sample=False, **settings)
    answers = [(where.column_kinds == TokenKind.ANSWER).sum(1).tolist() for where in look.seen]
    assert answers == [[0, 0], [1, 1], [2, 2], [3, 3]]
    for step, where in enumerate(look.seen):
        places = torch.arange(where.column_kinds.shape[1]) + where.first_column
        there = (places[None] >= torch.tensor(pads)[:, None]) & (places < 12 + step)[None]
        assert torch.equal(where.column_kinds >= 0, there)


@torch.no_grad()
@pytest.mark.parametrize(("name", "window"), [("llama_gqa", 99), ("mistral_window", 9)])
def test_each_row_is_told_what_it_sees(name: str, window: int) -> None:
    model, look = decoder(name), Look()
    inputs, pads = padded_batch((23, 17))
    with Session(model, layouts_of(inputs, pads), None, [look], pad_left=pads):
        model(**inputs)
    row, column = torch.arange(23)[:, None], torch.arange(23)[None]
    for line, pad in enumerate(pads):
        want = (column <= row) & (column > row - window) & (column >= pad)
        assert torch.equal(look.seen[0].visible[line, 0, pad:], want[pad:])
