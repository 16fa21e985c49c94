"""One model for all tests of the app."""

from __future__ import annotations

from typing import Any

import pytest

import vlmattn as va


@pytest.fixture(scope="session")
def vlm() -> Any:
    return va.load("scene")
