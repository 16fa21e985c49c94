"""``vlmattn app``: how it fails, and that it leaves nothing behind."""

from __future__ import annotations

import socket
import sys
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
        (["--port", "70000"], "--port"),
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


def test_others_are_let_in_with_a_caution(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kept: dict[str, Any] = {}

    class Silent:
        url = "http://127.0.0.1:1"

        def __init__(self, models: Models, **given: Any) -> None:
            kept.update(given, models=models.names)

        def __enter__(self) -> Silent:
            return self

        def __exit__(self, *left: object) -> None:
            kept["closed"] = True

        def wait(self) -> None:
            kept["waited"] = True

        def public_url(self) -> str:
            return "https://somewhere"

    monkeypatch.setattr("vlmattn.app.Server", Silent)
    for arguments, cautioned in ([], False), (["--host", "0.0.0.0"], True), (["--share"], True):
        code, err = told(["app", *arguments], capsys)
        assert code == 0
        assert ("caution: others can reach this page" in err) is cautioned
        assert kept["models"] == ("scene",)
        assert kept["closed"]
        assert kept["waited"]
    assert (kept["host"], kept["port"], kept["share"]) == ("127.0.0.1", 7860, True)
