"""What a request is refused with: one schema, one line of text."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from vlmattn.core.errors import (
    BudgetExceeded,
    DependencyMissing,
    ImageError,
    InputError,
    MapError,
    PromptError,
    SpecError,
    UnsupportedModel,
    VlmattnError,
    WordNotFound,
)

log = logging.getLogger("vlmattn.service")

STATUSES: dict[int, str] = {
    400: "The body cannot be read: broken JSON, base64 or multipart, or it ended early.",
    401: "The bearer token is missing or wrong.",
    403: "A web page of an origin that is not allowed asked.",
    404: "There is no such path.",
    405: "The path does not know this method.",
    408: "The request did not arrive in time.",
    413: "The body has too many bytes, or the picture too many pixels.",
    415: "Neither JSON nor multipart, a content encoding, or a file that is no picture of a known format.",
    422: "A field is missing, unknown or out of range, or cannot be used with this model, picture or answer.",
    429: "Too many requests are in hand: try again after the seconds that Retry-After tells.",
    500: "The service or its model failed.",
    501: "The service lacks a library that this needs.",
    503: "The model is still being loaded, or the service is being shut down.",
    504: "The answer was not ready in time; the run was given up.",
}
"""What each status means."""

_KNOWN: tuple[tuple[type[VlmattnError], int, str], ...] = (
    (WordNotFound, 422, "word_not_found"),
    (ImageError, 422, "picture_unusable"),
    (PromptError, 422, "question_unusable"),
    (SpecError, 422, "option_unusable"),
    (InputError, 422, "input_unusable"),
    (BudgetExceeded, 422, "over_budget"),
    (MapError, 422, "no_map"),
    (UnsupportedModel, 422, "not_with_this_model"),
    (DependencyMissing, 501, "library_missing"),
    (VlmattnError, 500, "model_failed"),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_LONGEST = 2000


class ClientGone(Exception):
    """Whoever asked has left."""


class Refused(Exception):
    """A request that gets an error for an answer.

    Attributes:
        status: of HTTP. code: a word for programs. message: one line for people. fields: what is wrong with which
            field. headers: to send beside.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, one_line(message)
        self.fields = tuple((one_line(name), one_line(text)) for name, text in fields)
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, object]:
        """The body of the answer."""
        told = [{"field": name, "message": text} for name, text in self.fields]
        return {"error": self.code, "message": self.message, "fields": told}


def one_line(text: object) -> str:
    """Text on one line that JSON and logs can carry whatever was in it."""
    flat = _CONTROL.sub(" ", str(text)).encode("utf-8", "replace").decode("utf-8")
    flat = " ".join(flat.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"


def refusal_of(error: BaseException) -> Refused:
    """What an error is told as: this library's own with their text, any other without a word of what it says."""
    if isinstance(error, Refused):
        return error
    for kind, status, code in _KNOWN:
        if isinstance(error, kind):
            return Refused(status, code, str(error) or type(error).__name__)
    return Refused(500, "internal_error", "the service failed; its log says why")
