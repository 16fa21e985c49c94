"""Model types of transformers' image-text-to-text mapping that are not supported, each with the reason."""

from __future__ import annotations

REFUSED: dict[str, str] = {}
