"""A service on a port or a local socket, until it is told to stop."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import SpecError
from vlmattn.core.optional import require
from vlmattn.service.app import create_app
from vlmattn.service.options import ServiceOptions

if TYPE_CHECKING:
    from vlmattn.api import Vlm


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        SpecError: the port is taken, or the host is none of this machine's.
    """
    if not 0 <= port <= 65535:
        raise SpecError(f"port must be 0 (any free one) to 65535, got {port}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(found[0], found[1])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(found[4])
        except OSError:
            made.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from error
    return made


def listen_locally(path: str | Path) -> socket.socket:
    """A local (Unix) socket that takes connections of this user alone; one that nobody listens on is replaced.

    Raises:
        SpecError: something else is there, somebody listens there, or it cannot be made.
    """
    target, made = Path(path), socket.socket(socket.AF_UNIX)
    try:
        if os.path.lexists(target):
            _check_left_over(target)
            target.unlink()
        before = os.umask(0o177)
        try:
            made.bind(str(target))
        finally:
            os.umask(before)
    except SpecError:
        made.close()
        raise
    except OSError as error:
        made.close()
        raise SpecError(f"cannot listen on {str(path)!r}: {error.strerror or error}; choose another --uds") from error
    return made


def _check_left_over(target: Path) -> None:
    if not stat.S_ISSOCK(target.lstat().st_mode):
        raise SpecError(f"cannot listen on {str(target)!r}: there is something else; choose another --uds")
    with socket.socket(socket.AF_UNIX) as asking:
        if asking.connect_ex(str(target)) == 0:
            raise SpecError(f"cannot listen on {str(target)!r}: another service does; choose another --uds")


def serve(
    model: Vlm | Callable[[], Vlm],
    options: ServiceOptions | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    uds: str | Path | None = None,
    on_start: Callable[[str], None] | None = None,
    access_log: bool = False,
) -> None:
    """Answer requests until SIGINT or SIGTERM; what is in hand then is finished first.

    Args:
        model: as for :func:`create_app`. host, port: where to listen; 0 for any free port. uds: a local socket instead.
        on_start: told the address once the model is loaded.
        access_log: write a line for every request to standard error.

    Raises:
        SpecError: the port is taken. DependencyMissing: uvicorn or FastAPI is not installed.
        ModelLoadError, UnsupportedModel: the model could not be loaded.
    """
    uvicorn: Any = require("uvicorn", extra="app")
    from vlmattn.service.connections import Server, connection_class

    options, failures = options or ServiceOptions(), list[BaseException]()

    def loaded(error: BaseException | None) -> None:
        if error is not None:
            failures.append(error)
            server.should_exit = True
        elif on_start is not None:
            on_start(_address(place))

    app = create_app(model, options, when_loaded=loaded)
    place = listen_locally(uds) if uds is not None else listen(host, port)
    config = uvicorn.Config(
        app,
        http=connection_class(options),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning" if not access_log else "info",
        access_log=access_log,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(options.timeout + options.read_timeout + options.write_timeout) + 1,
    )
    server = Server(config, app.state.desk)
    try:
        server.run(sockets=[place])
    finally:
        place.close()
        if uds is not None:
            with suppress(OSError):
                os.unlink(uds)
    if failures:
        raise failures[0]


def _address(place: socket.socket) -> str:
    name = place.getsockname()
    if place.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"http://[{name[0]}]:{name[1]}" if place.family == socket.AF_INET6 else f"http://{name[0]}:{name[1]}"


def say(text: str) -> None:
    """One line for people, on standard error."""
    print(text, file=sys.stderr, flush=True)
