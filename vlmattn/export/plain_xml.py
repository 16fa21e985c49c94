"""XML that every reader takes: characters that XML cannot say are replaced."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

_ALLOWED = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def allowed(text: str) -> str:
    """The text with U+FFFD in place of characters that XML 1.0 cannot hold."""
    return _ALLOWED.sub("\ufffd", text)


def indented(root: ET.Element, *, declared: bool = True) -> str:
    """The document as text, indented; with its declaration, unless its reader takes text without."""
    ET.indent(root)
    head = '<?xml version="1.0" encoding="utf-8"?>\n' if declared else ""
    return f"{head}{ET.tostring(root, encoding='unicode')}\n"
