"""The examples in the docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
import sys

import pytest

MODULES = (
    "api.heads",
    "core.head_preset",
    "heads.atlas",
    "heads.divergence",
    "heads.intervals",
    "heads.known",
    "heads.localization",
    "heads.patterns",
    "heads.pointing",
    "heads.samples",
    "heads.visual",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    importlib.import_module(f"vlmattn.{name}")
    result = doctest.testmod(sys.modules[f"vlmattn.{name}"])
    assert result.attempted > 0
    assert result.failed == 0
