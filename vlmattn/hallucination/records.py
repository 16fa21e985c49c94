"""Rows of a benchmark's files: :mod:`vlmattn.core.records`, under the name that benchmarks know."""

from __future__ import annotations

from vlmattn.core.records import Row, field, find_images, listed, read_object, read_rows, read_text, unique

__all__ = ["Row", "field", "find_images", "listed", "read_object", "read_rows", "read_text", "unique"]
