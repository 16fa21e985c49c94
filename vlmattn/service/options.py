"""What a service allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any

from vlmattn.core.errors import FileError, SpecError

_LEAST_TOKEN = 16
_MOST_TOKEN_FILE = 4096


def _whole(low: int, high: int) -> Callable[[Any], str]:
    def wrong(value: Any) -> str:
        fine = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if fine else f"a whole number from {low:,} to {high:,}"

    return wrong


def _seconds(low: float, high: float) -> Callable[[Any], str]:
    def wrong(value: Any) -> str:
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        return "" if number and low <= value <= high else f"a number of seconds from {low:g} to {high:g}"

    return wrong


_RULES: dict[str, Callable[[Any], str]] = {
    "max_body": _whole(1024, 2**30),
    "max_pixels": _whole(1, 178_956_970),
    "max_requests": _whole(1, 100_000),
    "timeout": _seconds(0.1, 86_400),
    "read_timeout": _seconds(0.1, 3600),
    "write_timeout": _seconds(0.1, 3600),
    "max_words": _whole(1, 1000),
    "max_new_tokens": _whole(1, 100_000),
    "batch_size": _whole(1, 1024),
    "batch_wait": _seconds(0, 10),
    "threads": _whole(1, 256),
}


@dataclass(frozen=True)
class ServiceOptions:
    """Limits of a service; every one of them is told by ``GET /v1/model``.

    Attributes:
        max_body: of a request, in bytes. max_pixels: of a picture; larger ones are refused before they are decoded.
        max_requests: in hand at once: being read, waiting, running or being written; further ones get 429. All of them
            together hold at most this times (``max_body`` + 3 × ``max_pixels``) bytes.
        timeout: seconds from the last byte of a request to its answer, waiting included.
        read_timeout: seconds for a request to arrive whole; its headers have as long. write_timeout: seconds that a
            client may leave what was sent to it unread.
        max_words: of one request. max_new_tokens: the most that a request may ask for.
        batch_size: how many waiting requests of equal settings run together. batch_wait: seconds to wait for them.
        threads: that decode and draw pictures.
        token: what every request has to bear, except those for health; None for no check.
        allow_origins: web origins whose pages may ask, such as ``https://example.org``.

    Raises:
        SpecError: names the option and what it can be.
    """

    max_body: int = 20 * 2**20
    max_pixels: int = 40_000_000
    max_requests: int = 32
    timeout: float = 60.0
    read_timeout: float = 20.0
    write_timeout: float = 20.0
    max_words: int = 32
    max_new_tokens: int = 256
    batch_size: int = 1
    batch_wait: float = 0.0
    threads: int = 2
    token: str | None = field(default=None, repr=False)
    allow_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            wanted = rule(getattr(self, name))
            if wanted:
                raise SpecError(f"{name} must be {wanted}, got {getattr(self, name)!r}")
        if self.token is not None:
            check_token(self.token)
        object.__setattr__(self, "allow_origins", tuple(self.allow_origins))
        for origin in self.allow_origins:
            _check_origin(origin)

    def told(self) -> dict[str, Any]:
        """The limits as plain values; no token."""
        hidden = ("token", "allow_origins")
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in hidden}


def check_token(token: Any) -> None:
    """Raises SpecError for a token that is short, or that a header cannot carry."""
    fine = isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token
    if not fine or len(token) < _LEAST_TOKEN:
        raise SpecError(f"a token must have at least {_LEAST_TOKEN} visible ASCII characters and no space")


def _check_origin(origin: Any) -> None:
    scheme, found, host = str(origin).partition("://")
    if origin != "*" and not (scheme in ("http", "https") and found and host and not set(host) & set("/?# ")):
        raise SpecError(f"an origin is written https://example.org, without a path, or '*' for all; got {origin!r}")


def read_token(path: str | Path) -> str:
    """The token in a file: its only line.

    Raises:
        FileError: it cannot be read. SpecError: what is in it cannot be a token.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_TOKEN_FILE)
    except OSError as error:
        raise FileError(f"the token file {str(path)!r} cannot be read: {error.strerror or error}") from error
    token = content.decode("ascii", "replace").strip()
    try:
        check_token(token)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    return token
