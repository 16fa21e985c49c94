"""The examples in the docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("grid.locate", "grid.patch_map", "grid.pixel_map", "grid.project", "adapters.canvas", "adapters.registry")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"vlmattn.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
