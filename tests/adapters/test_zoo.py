"""Every family keeps the contract, and its rows are those of eager attention."""

from __future__ import annotations

import pytest

from tests.tiny import TINY
from vlmattn.adapters import check_adapter
from vlmattn.api.vlm import Vlm


@pytest.mark.parametrize("kind", sorted(TINY))
def test_every_family_keeps_the_contract(kind: str) -> None:
    model, processor = TINY[kind]()
    report = check_adapter(model, processor, raises=False)
    assert report.ok, str(report)
    assert report.checks[-1].cases >= 15
    verified = Vlm(model, processor, name=kind).verify()
    assert verified.row_error is not None, "eager attention was not run"
