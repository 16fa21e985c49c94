"""What rounding explains is allowed when rows are verified, however large the scores, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_models import build
from vlmattn.api.verify import Verification
from vlmattn.api.vlm import Vlm
from vlmattn.capture import rounding, session
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.rounding import ScoreRounding, rounding_between
from vlmattn.core.errors import VerificationFailed


def tiny(dtype: torch.dtype = torch.float32, sharper: float = 1.0) -> Vlm:
    model, processor = build("llava")
    for name, weight in model.named_parameters():
        if "language_model" in name and "q_proj.weight" in name:
            weight.data.mul_(sharper)
    return Vlm(model.to(dtype), processor, name="tiny")


@pytest.mark.parametrize("sharper", [1.0, 10.0, 100.0])
def test_large_scores_are_allowed_their_rounding(sharper: float) -> None:
    proof = tiny(sharper=sharper).verify(max_new_tokens=1)
    assert proof.row_error is not None
    assert 0 < proof.row_share <= 1
    assert proof.score_size > 2 * sharper
    assert proof.head_size == 16
    assert f"{proof.row_share:.1%} of what rounding explains" in str(proof)
    if sharper == 100:
        assert proof.row_error > 1e-5, "no longer a case that a fixed bound gets wrong"


def scaled(by: float) -> Callable[..., Any]:
    return lambda plain, *given: plain(*given) * by


def one_more_key(plain: Any, call: AttentionCall, rows: Any) -> Any:
    mask = plain(call, rows)
    return None if mask is None else torch.cat([mask[..., 1:], mask[..., -1:]], dim=-1)


WRONG: dict[str, tuple[str, Callable[..., Any]]] = {
    "a scale off by 0.2 %": ("row_scores", scaled(1.002)),
    "a scale off by 20 %": ("row_scores", scaled(1.2)),
    "a key too many is seen": ("row_mask", one_more_key),
    "nothing is masked": ("row_mask", lambda plain, *given: None),
    "heads in another order": ("row_probabilities", lambda plain, *given: plain(*given).roll(1, dims=1)),
    "rows one too late": ("row_probabilities", lambda plain, *given: plain(*given).roll(1, dims=2)),
    "keys one too late": ("row_probabilities", lambda plain, *given: plain(*given).roll(1, dims=3)),
    "rows that sum to 0.9999": ("row_probabilities", scaled(0.9999)),
    "no numbers": ("row_scores", scaled(float("nan"))),
}
FINE = ("a scale off by 0.2 %", "rows that sum to 0.9999")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_wrong_rows_are_found(wrong: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    name, change = WRONG[wrong]
    plain = getattr(session, name)
    for module in (session, rounding):  # a wrong score misleads the bound, too
        if hasattr(module, name):
            monkeypatch.setattr(module, name, lambda *given: change(plain, *given))
    if wrong in FINE and dtype == torch.bfloat16:
        assert tiny(dtype).verify(max_new_tokens=1).passed  # less than eager attention itself is rounded by
        return
    with pytest.raises(VerificationFailed, match="times what rounding explains"):
        tiny(dtype).verify(max_new_tokens=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.1, 1.0, 8.0])
def test_the_bound_holds_and_is_no_bound_of_everything(size: float, dtype: torch.dtype) -> None:
    """Probabilities of random scores in a shorter type, each step rounded, against those in float64."""
    torch.manual_seed(0)
    query, key = (torch.randn(1, 2, 40, 32).mul(size).to(dtype) for _ in range(2))
    scores = torch.matmul(query, key.transpose(2, 3)) * 32**-0.5
    rounded = torch.softmax(scores, dim=-1, dtype=torch.float32).to(dtype)[0].double()
    exact = torch.softmax(query.double() @ key.double().transpose(2, 3) * 32**-0.5, dim=-1)[0]
    module = torch.nn.Identity()
    options = {"scaling": 32**-0.5, "softcap": None, "position_bias": None}
    call = AttentionCall("eager", module, query, key, key, None, options)
    bound = rounding_between(call, call)
    allowed = bound.allowed(exact.float(), torch.arange(40))
    assert ((rounded - exact).abs() <= allowed).all()
    assert float((rounded - exact).abs().max()) > 1e-4 * float(allowed.max())
    assert (allowed[exact < 1e-30] < 1e-4).all()  # a key that is not seen cannot be seen by rounding


def test_a_bound_is_told_by_the_odds() -> None:
    bound = ScoreRounding(torch.tensor([[0.3]]), 1.0, 4, torch.float32)
    rows = torch.tensor([[[0.2, 0.5, 0.3, 0.0]]])
    allowed = bound.allowed(rows, torch.tensor([0]))[0, 0].numpy()
    odds = np.array([0.25, 1.0, 3 / 7, 0.0])
    up, down = (o / (1 + o) for o in (odds * np.exp(0.6), odds * np.exp(-0.6)))
    want = np.maximum(up - rows[0, 0].numpy(), rows[0, 0].numpy() - down)
    assert np.allclose(allowed, want, atol=1e-5)


def test_without_eager_nothing_is_said_of_rows() -> None:
    proof = tiny().verify(max_new_tokens=1, eager=False)
    assert (proof.row_error, proof.passed) == (None, True)
    assert "rows equal" not in str(proof)
    assert not Verification(True, 0.0, 0.0, 1, (0,), (), 1e-3, 1e-5, float("nan")).passed
