"""A table as plain text; see :mod:`vlmattn.display.plain`."""

from __future__ import annotations

from vlmattn.display.plain import plain_table as table

__all__ = ["table"]
