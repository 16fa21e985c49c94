"""The OpenAPI document: every body, every answer, every error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from vlmattn.maps import PRESETS
from vlmattn.service.errors import STATUSES
from vlmattn.service.options import ServiceOptions
from vlmattn.service.reading import NUMBERS
from vlmattn.service.schema import Answer, Error, ModelTold, asked_model, json_model

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vlmattn.service.desk import Desk

_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
_PICTURE = {"schema": {"type": "string", "contentMediaType": "image/png"}}
_ASK_STATUSES = (400, 401, 403, 405, 408, 413, 415, 422, 429, 500, 501, 503, 504)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors of a path, for its document."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {"model": Error, "description": STATUSES[status]}
        if status in (429, 503):
            found[status]["headers"] = _RETRY
    return found


ASK_DOC: dict[str, Any] = {
    "response_model": Answer,
    "responses": {
        200: {
            "description": "The answer; or, with `Accept: image/png` or `image/webp`, the drawing itself.",
            "content": {
                "image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}},
                "image/webp": {"schema": {"type": "string", "contentMediaType": "image/webp"}},
            },
        },
        **answers(*_ASK_STATUSES),
    },
}


def document(app: FastAPI, desk: Desk) -> dict[str, Any]:
    """The whole document; bodies, limits and security as the service's options are."""
    if app.openapi_schema is None:
        import vlmattn

        found = get_openapi(
            title="vlmattn",
            version=vlmattn.__version__,
            summary="Where a vision-language model looks.",
            description="Ask about a picture. Out come the answer and, for every word of it, where the model looked.",
            routes=app.routes,
        )
        _add_bodies(found, desk.options)
        if desk.options.token is not None:
            _add_security(found)
        app.openapi_schema = found
    return app.openapi_schema


def _add_bodies(found: dict[str, Any], options: ServiceOptions) -> None:
    found["components"]["schemas"] |= {"AskJson": _schema(json_model(options)), "AskForm": _form(options)}
    found["paths"]["/v1/ask"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/AskJson"}},
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/AskForm"}},
        },
    }


def _schema(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return found


def _form(options: ServiceOptions) -> dict[str, Any]:
    form = _schema(asked_model(options))
    parts = {name: _without_null(part) for name, part in form["properties"].items()}
    told = "; numbers are written 1,3,-1."
    parts["layers"] = {
        "type": "string",
        "pattern": f"^({'|'.join(PRESETS)}|{NUMBERS})$",
        "description": parts["layers"]["description"].rstrip(".") + told,
    }
    parts["heads"] = {
        "type": "string",
        "minLength": 1,
        "maxLength": 100,
        "description": parts["heads"]["description"].rstrip(".") + told,
    }
    parts["image"] = {
        "type": "string",
        "format": "picture",
        "contentMediaType": "application/octet-stream",
        "description": "The picture's file: PNG, JPEG, WebP, GIF, BMP or TIFF.",
    }
    return form | {"title": "AskForm", "properties": parts, "required": ["image", *form.get("required", ())]}


def _without_null(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a form is there or not; it cannot be null."""
    kinds = [kind for kind in part.get("anyOf", ()) if kind.get("type") != "null"]
    if not kinds or len(kinds) == len(part["anyOf"]):
        return part
    rest = {name: value for name, value in part.items() if name not in ("anyOf", "default")}
    return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def _add_security(found: dict[str, Any]) -> None:
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in found["paths"].items():
        for operation in methods.values():
            operation["security"] = [] if path in ("/healthz", "/readyz") else [{"token": []}]


def described(desk: Desk) -> ModelTold:
    """The model of a desk, what can be asked of it, and the limits.

    Raises:
        Refused: it is not loaded yet.
    """
    from vlmattn.core.provenance import METHODS
    from vlmattn.maps import HEAD_PRESETS, NORMALISATIONS
    from vlmattn.refine import RECIPES

    vlm = desk.vlm
    return ModelTold(
        model=vlm.describe(),
        detector=None if vlm.detector is None else vlm.detector.told,
        methods=list(METHODS),
        normalisations=list(NORMALISATIONS),
        layer_presets=list(PRESETS),
        head_presets=list(dict.fromkeys((*vlm.known_heads(), *HEAD_PRESETS))),
        recipes=list(RECIPES),
        limits=desk.options.told(),
    )
