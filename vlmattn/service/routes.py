"""The paths of a service."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from vlmattn.service.desk import Desk
from vlmattn.service.errors import Refused
from vlmattn.service.guard import Guard, refusal, retry_after
from vlmattn.service.metrics import CONTENT_TYPE
from vlmattn.service.openapi import ASK_DOC, answers, described, document
from vlmattn.service.reading import Wanted
from vlmattn.service.schema import Health, ModelTold
from vlmattn.service.telling import answer_of, drawing_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vlmattn.service.asking import Found

router = APIRouter()
_PICTURES = ("image/png", "image/webp")


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


@router.post("/v1/ask", operation_id="ask", summary="Ask about a picture", **ASK_DOC)
@router.post("/ask", include_in_schema=False)
async def ask(request: Request) -> Response:
    """Ask about one picture: the answer, and where the model looked for every word of it."""
    kind = preferred(request.headers.get("accept", ""))

    def prepare(wanted: Wanted) -> None:
        if kind is not None:
            wanted.asked.overlay = kind.removeprefix("image/")

    def tell(found: Found) -> Response:
        if kind is not None:
            return Response(drawing_of(found), media_type=kind)
        return _json(answer_of(found))

    return await _desk(request).answer(request, prepare, tell)


@router.get("/v1/model", operation_id="model", response_model=ModelTold, responses=answers(401, 405, 500, 503))
def model(request: Request) -> Response:
    """The model, what can be asked of it, and the service's limits."""
    return _json(described(_desk(request)))


@router.get("/healthz", operation_id="healthz", response_model=Health, responses=answers(405))
async def healthz() -> Response:
    """Whether the process answers."""
    return _json(Health(status="alive"))


@router.get(
    "/readyz",
    operation_id="readyz",
    response_model=Health,
    responses={
        **answers(405),
        503: {"model": Health, "description": "The model is not loaded, or it is shutting down."},
    },
)
async def readyz(request: Request) -> Response:
    """Whether the model is loaded and requests are taken."""
    state: Any = _desk(request).state
    found = _json(Health(status=state))
    if state != "ready":
        found.status_code = 503
        found.headers.update(retry_after(5))
    return found


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **answers(401, 405)},
)
async def metrics(request: Request) -> Response:
    """Counts and times for Prometheus."""
    return Response(_desk(request).metrics.text(), media_type=CONTENT_TYPE)


def preferred(accept: str) -> str | None:
    """The kind of picture that a client would rather have than JSON; None for JSON."""
    wishes = []
    for place, part in enumerate(accept.lower().split(",")):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [text.removeprefix("q=") for text in parameters if text.startswith("q=")]
        try:
            weight = float(weights[0]) if weights else 1.0
        except ValueError:
            weight = 0.0
        if weight > 0 and name in (*_PICTURES, "application/json", "application/*", "*/*"):
            wishes.append((-weight, place, name))
    first = min(wishes)[2] if wishes else None
    return first if first in _PICTURES else None


def _json(told: Any) -> Response:
    return Response(told.model_dump_json(), media_type="application/json")


# -- errors ------------------------------------------------------------------------------------------------------------


async def _plain(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself: paths and methods that do not exist."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = {
        404: ("not_found", "there is no such path"),
        405: ("method_not_allowed", "the path does not know this method"),
    }
    code, text = told.get(status, ("bad_request", str(getattr(error, "detail", ""))))
    headers = getattr(error, "headers", None)
    _desk(request).metrics.refused(code)
    return refusal(Refused(status, code, text, headers=headers))


def assembled(desk: Desk) -> FastAPI:
    """The application of a desk."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        desk.start()
        yield
        desk.stop()

    app = FastAPI(title="vlmattn", docs_url=None, redoc_url=None, lifespan=life, redirect_slashes=False)
    app.state.desk = desk
    app.include_router(router)
    app.openapi = lambda: document(app, desk)  # type: ignore[method-assign]
    app.add_exception_handler(HTTPException, _plain)
    app.add_middleware(Guard, desk=desk)
    if desk.options.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(desk.options.allow_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app
