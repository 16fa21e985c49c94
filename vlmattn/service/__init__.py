"""Answers over HTTP: ``vlmattn serve``, for pipelines that ask about pictures."""

from __future__ import annotations

from vlmattn.service.app import create_app
from vlmattn.service.options import ServiceOptions
from vlmattn.service.running import serve

__all__ = ["ServiceOptions", "create_app", "serve"]
