"""Docstrings as mkdocstrings reads them: examples are examples, and each argument has a line of its own."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

# Sections of several entries, of which some share a line: "alpha: strength. beta: least probability."
SECTION = re.compile(
    r"^(?P<indent> *)(?P<title>Args|Attributes|Raises):\n(?P<body>(?:(?P=indent) +\S.*\n?)+)", re.MULTILINE
)
NEXT = {
    "Raises": re.compile(r"(?<=[.;]) (?=[A-Z]\w+(?:, [A-Z]\w+)*: )"),
    "": re.compile(r"(?<=[.;]) (?=[a-z_]\w*(?:, [a-z_]\w*)*: )"),
}


def entries(title: str, body: str) -> list[str]:
    """The entries of a section, each on one line."""
    lines = body.splitlines()
    base = min(len(line) - len(line.lstrip()) for line in lines)
    whole: list[str] = []
    for line in lines:
        if whole and len(line) - len(line.lstrip()) > base:
            whole[-1] += " " + line.strip()
        else:
            whole.append(line.strip())
    return [part for one in whole for part in NEXT.get(title, NEXT[""]).split(one)]


def rewritten(docstring: str) -> str:
    """A docstring with an entry a line, and its doctests in a section of examples."""

    def spread(match: re.Match[str]) -> str:
        indent = match["indent"] + "    "
        body = "\n".join(indent + one for one in entries(match["title"], match["body"]))
        return f"{match['indent']}{match['title']}:\n{body}\n"

    return re.sub(r"^( *)Example:$", r"\1Examples:", SECTION.sub(spread, docstring), flags=re.MULTILINE)


class Docstrings(Extension):
    """Changes docstrings before they become pages."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrites the docstring of an object that has one."""
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value)
