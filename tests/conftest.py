"""One thread, no network, no display: the same for every test."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(os.environ.get("VLMATTN_SHARED", Path(__file__).resolve().parents[2] / "shared"))


class NetworkUsed(RuntimeError):
    """A test tried to reach the network."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        if self.family == getattr(socket, "AF_UNIX", None):
            return
        raise NetworkUsed(f"a test tried to connect to {address!r}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def golden() -> Path:
    """The folder of reference data; tests that need it are skipped where it is absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip(f"reference data not found at {folder}; set VLMATTN_SHARED")
    return folder
