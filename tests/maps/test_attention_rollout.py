"""Rollout of the decoder against products of whole eager matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.capture.decoders import SHARING, decoder, eager_twin
from tests.maps.eager_pass import EagerPass, close, eager_pass
from vlmattn.capture import door
from vlmattn.capture.whole import WholePass
from vlmattn.core.errors import SpecError
from vlmattn.maps.attention_rollout import attention_rollout

DECODERS = (
    "llama_gqa", "llama_mha", "mistral_window", "gemma2_softcap", "gemma3_window", "gpt_oss_sinks", "deepseek_mla",
    "cohere2_window", "llama4_chunked", *SHARING,
)  # fmt: skip
TOKENS, ROWS = 29, [5, 21, 28]


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 97, (1, TOKENS), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def both(name: str) -> tuple[WholePass, EagerPass]:
    model = decoder(name)
    return WholePass(model).run(inputs()), eager_pass(eager_twin(model), inputs())


@pytest.mark.parametrize("name", DECODERS)
def test_rollout_is_the_product_of_whole_matrices(name: str) -> None:
    found, wanted = both(name)
    plain = attention_rollout(found, ROWS)
    close(plain, wanted.rollout()[ROWS])
    for options, told in [
        ({"start_layer": 2}, {"start": 2}),
        ({"residual": 0.0}, {"residual": 0.0}),
        ({"residual": 0.8, "heads": [3, 1]}, {"residual": 0.8, "heads": [3, 1]}),
        ({"without_first": True}, {"without_first": True}),
    ]:
        other = attention_rollout(found, ROWS, **options)  # type: ignore[arg-type]
        close(other, wanted.rollout(**told)[ROWS])  # type: ignore[arg-type]
        assert np.abs(other - plain).max() > 1e-3
        np.testing.assert_allclose(other.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(plain.sum(1), 1, atol=1e-5)
    assert all((plain[n, row + 1 :] == 0).all() for n, row in enumerate(ROWS))


def test_the_first_token_is_left_out_of_every_row_but_its_own() -> None:
    found = attention_rollout(both("llama_gqa")[0], [0, 9], without_first=True)
    assert found[0, 0] == 1
    assert found[1, 0] == 0


def test_columns_are_left_out_layer_by_layer() -> None:
    found, wanted = both("gpt_oss_sinks")
    without = np.zeros((4, TOKENS), dtype=bool)
    without[0, [0, 7]] = without[2, [0, 21]] = True
    whole = np.eye(TOKENS)
    for layer, out in enumerate(without):
        mixed = np.where(out & ~np.eye(TOKENS, dtype=bool), 0, wanted.attention_lhqk[layer].mean(0))
        whole = (mixed / mixed.sum(-1, keepdims=True) + np.eye(TOKENS)) / 2 @ whole
    close(attention_rollout(found, ROWS, without_ln=without), whole[ROWS])
    for wrong in (without[:2], without.astype(float)):
        with pytest.raises(SpecError, match="without_ln"):
            attention_rollout(found, ROWS, without_ln=wrong)


def test_half_and_half_is_the_normalised_sum_with_the_identity() -> None:
    """rownorm(A + I) is half A, half I, where rows of A add up to 1."""
    found, wanted = both("llama_mha")
    whole = np.eye(TOKENS)
    for attention in wanted.attention_lhqk:
        summed = attention.mean(0) + np.eye(TOKENS)
        whole = summed / summed.sum(-1, keepdims=True) @ whole
    close(attention_rollout(found, ROWS), whole[ROWS])


def test_several_rows_share_one_pass_and_are_those_of_one() -> None:
    model = decoder("gemma3_window")
    runs = []
    counting = model.register_forward_hook(lambda *_: runs.append(1))
    found = WholePass(model).run(inputs())
    together = attention_rollout(found, ROWS)
    for row, line in zip(ROWS, together, strict=True):
        close(attention_rollout(found, [row])[0], line, 1e-6)
    counting.remove()
    assert len(runs) == 1


def test_a_wrong_mask_would_be_seen() -> None:
    found, wanted = both("mistral_window")
    call = found.layers[1].call
    call.mask = torch.ones((1, 1, TOKENS, TOKENS), dtype=torch.bool).tril()
    with pytest.raises(AssertionError):
        close(attention_rollout(found, ROWS), wanted.rollout()[ROWS])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual": 1.0}, "residual"),
        ({"residual": -0.1}, "residual"),
        ({"residual": float("nan")}, "residual"),
        ({"start_layer": 4}, "start_layer 4"),
        ({"heads": [7]}, "heads"),
        ({"heads": []}, "heads"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    found = WholePass(decoder("llama_gqa")).run(inputs())
    with pytest.raises(SpecError, match=message):
        attention_rollout(found, ROWS, **options)
    for rows in ([], [TOKENS], [-1]):
        with pytest.raises(SpecError, match="rows"):
            attention_rollout(found, rows)
    assert not door.is_open()


def test_a_chosen_layer_that_is_missing_below_is_told() -> None:
    found = WholePass(decoder("llama_gqa"), [2, 3]).run(inputs())
    with pytest.raises(SpecError, match="start_layer 0 was not held"):
        attention_rollout(found, ROWS)
    assert attention_rollout(found, ROWS, start_layer=2).shape == (3, TOKENS)
