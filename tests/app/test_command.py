"""``vlmattn app``: how it fails, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmattn.app import Models
from vlmattn.app.serving import Server, bound, is_local
from vlmattn.cli import main
from vlmattn.core.errors import DependencyMissing, SpecError


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    return done.value.code, capsys.readouterr().err


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, err = told(["app", "--port", str(port), "--model", "no/such-model"], capsys)
    assert code == 2
    assert err == f"vlmattn: port {port} of 127.0.0.1 is taken: choose another with --port, or 0 for any free one\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "70000 is not in the range"),
        (["--host", "192.0.2.7", "--port", "0"], "cannot listen at 192.0.2.7:0"),
        (["--port", "0", "--model", "scene", "--model", "scene"], "each once"),
        (["--port", "0", "--model", "scenery"], "scenery"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    code, err = told(["app", *arguments], capsys)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_gradio_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, err = told(["app", "--port", "0"], capsys)
    assert code == 2
    assert "pip install 'vlmattn[app]'" in err
    assert err.count("\n") == 1
    with pytest.raises(DependencyMissing):
        Server(Models(["scene"], lambda name: pytest.fail("the model was loaded")), port=0)


def test_addresses() -> None:
    assert is_local("127.0.0.1")
    assert is_local("localhost")
    assert not is_local("0.0.0.0")
    with pytest.raises(SpecError, match="0 to 65535"):
        bound("127.0.0.1", -1)
    with bound("127.0.0.1", 0) as one:
        assert one.getsockname()[1] > 0


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_it_serves_until_it_is_told_to_end_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "vlmattn", "app", "--port", "0", "--host", "0.0.0.0"]
    settings = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings) as served:
        assert served.stdout is not None
        assert served.stderr is not None
        line = served.stdout.readline()
        assert line.startswith("vlmattn app: http://127.0.0.1:")
        assert [p.name[:12] for p in tmp_path.iterdir()] == ["vlmattn-app-"]
        served.send_signal(signal.SIGTERM)
        assert served.wait(30) == 0
        assert served.stderr.read() == (
            "vlmattn: caution: others can reach this page, use the model and upload pictures; there is no login\n"
        )
    assert list(tmp_path.iterdir()) == []
