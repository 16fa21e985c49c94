"""The examples of the package's docstrings run as written."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import vlmattn.gaze.scanpaths as package

MODULES = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
SHOWN = "compare dtw disc_agreement frechet hausdorff mannan multimatch recurrence scanmatch scanpath_matrix search_cdf"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.rpartition(".")[2])
def test_examples_run(module: object) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", SHOWN.split())
def test_what_users_call_first_has_an_example(name: str) -> None:
    assert ">>>" in getattr(package, name).__doc__
