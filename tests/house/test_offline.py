"""Tests cannot reach the network, and local sockets still work."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_internet_sockets_are_refused(method: str) -> None:
    with socket.socket() as one, pytest.raises(RuntimeError, match="tried to connect"):
        getattr(one, method)(("192.0.2.1", 80))


def test_names_are_not_looked_up() -> None:
    with pytest.raises(RuntimeError, match="tried to look up"):
        socket.create_connection(("example.invalid", 80), timeout=1)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no local sockets")
def test_local_sockets_connect(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.settimeout(5)  # a connect that did nothing must fail here, not hang
        server.bind(path)
        server.listen(1)
        client.connect(path)
        peer, _ = server.accept()
        with peer:
            client.sendall(b"x")
            assert peer.recv(1) == b"x"
