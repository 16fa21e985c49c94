"""From the body of a request to a picture and what is asked about it."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vlmattn.core.images import Picture, load_image
from vlmattn.service.errors import Refused
from vlmattn.service.options import ServiceOptions
from vlmattn.service.schema import Asked, asked_model, json_model

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Kinds of pictures that are read; others are refused before any of their own code runs."""
NUMBERS = "-?[0-9]{1,4}(,-?[0-9]{1,4})*"
_NUMBERED = ("layers", "heads")
"""Fields that are names or numbers; numbers are written '1,3,-1' in a form."""
_SHOWN = 5


@dataclass(frozen=True)
class Received:
    """A request as it came: its fields, and the picture's file."""

    asked: Asked
    file: bytes


@dataclass(frozen=True)
class Wanted:
    """A request that can be run."""

    asked: Any
    picture: Picture


async def receive(request: Request, options: ServiceOptions) -> Received | bytes:
    """The fields of a multipart request, or the body of a JSON request, which is parsed in :func:`wanted_of`.

    Raises:
        Refused: another kind of body, or one that cannot be read.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "encoding_unsupported", "compressed bodies are not read: send it without Content-Encoding")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await request.body()
    if kind == "multipart/form-data":
        return await _multipart(request, options)
    raise Refused(
        415,
        "content_type_unsupported",
        f"send multipart/form-data or application/json, got {kind or 'no Content-Type'}",
    )


def wanted_of(received: Received | bytes, options: ServiceOptions) -> Wanted:
    """Check the fields and decode the picture; to be called outside the event loop.

    Raises:
        Refused: fields that are missing or wrong, base64 that is none, a file that is no picture, or too large a one.
        ImageError: a damaged picture.
    """
    if isinstance(received, bytes):
        received = _from_json(received, options)
    return Wanted(received.asked, _picture(received.file, options.max_pixels))


# -- JSON --------------------------------------------------------------------------------------------------------------


def _from_json(body: bytes, options: ServiceOptions) -> Received:
    try:
        asked: Any = json_model(options).model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _invalid(error) from None
    try:
        file = base64.b64decode(asked.image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(
            400,
            "base64_broken",
            f"image is not base64: {error}; addresses and paths are never read",
            fields=[("image", "not base64")],
        ) from None
    return Received(asked, file)


def _invalid(error: ValidationError) -> Refused:
    wrong = error.errors(include_url=False, include_input=False, include_context=False)
    if any(one["type"] == "json_invalid" for one in wrong):
        return Refused(400, "json_broken", f"the body is not JSON: {wrong[0]['msg']}")
    fields = [(".".join(str(part) for part in one["loc"]) or "body", one["msg"]) for one in wrong]
    told = "; ".join(f"{name}: {text}" for name, text in fields[:_SHOWN])
    more = f"; and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
    return Refused(422, "invalid_request", f"{told}{more}", fields=fields[:100])


# -- multipart ---------------------------------------------------------------------------------------------------------


class _InMemory(MultiPartParser):
    """Pictures of users are not written to disk."""

    spool_max_size = 2**31


async def _multipart(request: Request, options: ServiceOptions) -> Received:
    most = options.max_words + 300
    parser = _InMemory(request.headers, request.stream(), max_files=2, max_fields=most, max_part_size=2**16)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, "multipart_broken", f"the body is not multipart: {error.message}") from None
    except (KeyError, UnicodeDecodeError, LookupError) as error:
        raise Refused(400, "multipart_broken", f"the body is not multipart: {type(error).__name__}") from None
    try:
        file = await _file_of(form)
        try:
            kind = asked_model(options)
            asked = kind.model_validate(_fields(form, kind), strict=True)
        except ValidationError as error:
            raise _invalid(error) from None
    finally:
        await form.close()
    return Received(asked, file)


async def _file_of(form: FormData) -> bytes:
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) != 1 or files[0][0] != "image":
        names = ", ".join(name for name, _ in files) or "none"
        wrong = f"one file named 'image' is expected, got {names}"
        raise Refused(422, "invalid_request", f"image: {wrong}", fields=[("image", wrong)])
    return await files[0][1].read()


def _fields(form: FormData, kind: type[Asked]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dict.fromkeys(form.keys()):
        values = [value for value in form.getlist(name) if isinstance(value, str)]
        if name == "words" or len(values) > 1:
            found[name] = values
        elif values:
            field = kind.model_fields.get(name)
            found[name] = _read(values[0], name, None if field is None else field.annotation)
    return found


def _read(text: str, name: str, kind: Any) -> Any:
    """What a part of a form says; text that says nothing of the field's kind stays text, and is refused as such."""
    if kind is bool:
        return {"true": True, "false": False}.get(text, text)
    if name in _NUMBERED and re.fullmatch(NUMBERS, text):
        return [int(number) for number in text.split(",")]
    return int(text) if kind is int and re.fullmatch("-?[0-9]{1,9}", text) else text


# -- the picture -------------------------------------------------------------------------------------------------------


def _picture(file: bytes, max_pixels: int) -> Picture:
    _check_header(file, max_pixels)
    return load_image(_Upload(file), max_pixels=max_pixels)


class _Upload(io.BytesIO):
    name = "image"


def _check_header(file: bytes, max_pixels: int) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(file), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise _too_large("more", max_pixels) from None
    except UnidentifiedImageError:
        raise Refused(
            415,
            "picture_unknown",
            f"image is not a picture of a known format ({len(file)} bytes): send {', '.join(FORMATS)}",
        ) from None
    except Exception:  # noqa: BLE001 (whatever is wrong with it, load_image says it better)
        return
    if width * height > max_pixels:
        raise _too_large(f"{width}x{height} = {width * height:,}", max_pixels)


def _too_large(size: str, max_pixels: int) -> Refused:
    return Refused(
        413, "picture_too_large", f"the picture has {size} pixels, over the limit of {max_pixels:,}: scale it down"
    )
