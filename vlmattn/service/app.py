"""The application, for any ASGI server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vlmattn.core.optional import require
from vlmattn.service.options import ServiceOptions

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vlmattn.api import Vlm


def create_app(
    model: Vlm | Callable[[], Vlm],
    options: ServiceOptions | None = None,
    *,
    when_loaded: Callable[[BaseException | None], None] | None = None,
) -> FastAPI:
    """An ASGI application that answers questions about pictures; its paths are in ``docs/service.md``.

    Args:
        model: a :class:`vlmattn.Vlm`, or a function that loads one: it is called in the thread that will run the model,
            while the application already answers ``/healthz``. options: its limits.
        when_loaded: told None once that function has loaded the model, or what went wrong; called in its thread.

    Raises:
        DependencyMissing: FastAPI or python-multipart is not installed.

    Example:
        >>> import vlmattn as va
        >>> from vlmattn.service import create_app
        >>> create_app(lambda: va.load("scene")).title
        'vlmattn'
    """
    needed: Any = require("fastapi", extra="app"), require("python_multipart", extra="app")
    del needed
    from vlmattn.service.desk import Desk
    from vlmattn.service.routes import assembled

    return assembled(Desk(model, options or ServiceOptions(), when_loaded))
