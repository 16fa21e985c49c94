"""The server of the page: on this machine alone unless told otherwise, without a request to anywhere else."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vlmattn.app.models import Models
from vlmattn.core.errors import SpecError
from vlmattn.core.optional import require

HOST, PORT = "127.0.0.1", 7860
MOST_UPLOADED = "64mb"
_MOST_USERS, _MOST_WAITING = 64, 32
_LOCAL = ("127.0.0.1", "localhost", "::1")
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "True"}


class Server:
    """A running app; a context that starts it and closes it.

    Args:
        models: to choose from; the first is loaded before anything is served. host, port: where; port 0: any free one.
        share: also at a public address, through a tunnel of Gradio's.

    Raises:
        DependencyMissing: Gradio is not installed. SpecError: the address cannot be had. Others as
            :meth:`Models.get`.
    """

    def __init__(self, models: Models, *, host: str = HOST, port: int = PORT, share: bool = False) -> None:
        self._held = ExitStack()
        with ExitStack() as held:
            self._socket = bound(host, port)
            held.callback(self._socket.close)
            os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
            require("gradio", extra="app")
            self.host, self.port, self._share = host, int(self._socket.getsockname()[1]), share
            models.get()
            self.folder = Path(tempfile.mkdtemp(prefix="vlmattn-app-"))
            held.callback(shutil.rmtree, self.folder, ignore_errors=True)
            held.enter_context(_settings(self.folder))
            self._server = _server(models, self.folder, local=is_local(host) and not share)
            self._held = held.pop_all()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where to open the page."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> Server:
        """Serve in a thread of its own; returns once the page can be opened."""
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not self._server.started:
            self._thread.join(0.02)
        return self

    def public_url(self) -> str:
        """The address of the tunnel, which is opened.

        Raises:
            SpecError: it cannot be opened.
        """
        from gradio.networking import setup_tunnel

        try:
            return str(setup_tunnel("127.0.0.1", self.port, secrets.token_urlsafe(32), None, None))
        except Exception as error:
            raise SpecError(f"no public address can be had: {error}; leave out --share") from error

    def wait(self) -> None:
        """Until it is interrupted or ended by SIGTERM."""
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, lambda *_: setattr(self._server, "should_exit", True))
            self._held.callback(signal.signal, signal.SIGTERM, before)
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Stop, and remove everything that was uploaded or written."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(10)
        self._held.close()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *left: object) -> None:
        self.close()


def serve(models: Models, *, host: str = HOST, port: int = PORT) -> None:
    """Serve the app until interrupted; see :class:`Server`."""
    with Server(models, host=host, port=port) as server:
        server.wait()


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        SpecError: the port is taken or none, or the host is no address of this machine.
    """
    if not 0 <= port <= 65535:
        raise SpecError(f"a port is a number from 0 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        reason = "is taken: choose another with --port, or 0 for any free one"
        if getattr(error, "errno", None) in (98, 48, 10048):  # EADDRINUSE of Linux, macOS and Windows
            raise SpecError(f"port {port} of {host} {reason}") from error
        raise SpecError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
    return made


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    return host in _LOCAL


@contextmanager
def _settings(folder: Path) -> Iterator[None]:
    """Gradio told to send nothing and to keep its files in ``folder``; what was set before comes back."""
    wanted = _QUIET | {"GRADIO_TEMP_DIR": str(folder)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _server(models: Models, folder: Path, *, local: bool) -> Any:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from vlmattn.app.page import CSS, build

    page = build(models, folder)
    page.queue(max_size=_MOST_WAITING, default_concurrency_limit=4, api_open=False)
    page.state_session_capacity = _MOST_USERS
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if local:  # no other site can reach it by a name of its own that leads here
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    theme = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    served = gr.mount_gradio_app(
        app, page, path="/", css=CSS, theme=theme, footer_links=[], run_history=False, ssr_mode=False,
        show_error=False, max_file_size=MOST_UPLOADED, enable_monitoring=False, mcp_server=False, pwa=False,
    )  # fmt: skip
    return uvicorn.Server(uvicorn.Config(served, log_level="warning", timeout_graceful_shutdown=2, lifespan="on"))
