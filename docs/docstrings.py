"""Docstrings as mkdocstrings reads them: examples are examples, and no pair of brackets is a link by accident."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension


class Docstrings(Extension):
    """Changes docstrings before they become pages."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Calls the section of doctests what its parser calls it."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
