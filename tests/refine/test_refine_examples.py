"""The examples in the docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
import sys

import pytest

MODULES = (
    "maps.gradient",
    "refine.complexity",
    "refine.places",
    "refine.recipes",
    "refine.refined",
    "refine.search",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    importlib.import_module(f"vlmattn.{name}")
    # A function of the same name hides the module behind the package's attribute.
    result = doctest.testmod(sys.modules[f"vlmattn.{name}"])
    assert result.attempted > 0
    assert result.failed == 0
