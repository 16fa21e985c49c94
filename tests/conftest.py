"""One thread, no network, the same seeds: for every test."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(os.environ.get("VLMATTN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


class NetworkUsed(RuntimeError):
    """A test tried to reach the network."""


def _local_only(method: str) -> Any:
    original = getattr(socket.socket, method)

    def checked(self: socket.socket, address: Any) -> Any:
        if self.family == getattr(socket, "AF_UNIX", None):
            return original(self, address)
        raise NetworkUsed(f"a test tried to connect to {address!r}")

    return checked


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: object, *rest: object, **named: object) -> None:
        raise NetworkUsed(f"a test tried to look up {host!r}")

    for method in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, method, _local_only(method))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def _same_seeds_and_one_thread() -> None:
    # Only where a library is there already: many tests need neither, and importing torch takes seconds.
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def golden() -> Path:
    """The folder of reference data; tests that need it are skipped where it is absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"reference data not found at {folder}; set VLMATTN_SHARED")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium of the system; tests that need it are skipped where there is none.

    It ends with its file: while it runs, no other test of the process can begin an event loop.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    place = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if place is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield opened
        opened.close()
