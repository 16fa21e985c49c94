"""The page itself: one file, no network, no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from vlmattn.core.errors import SpecError
from vlmattn.core.files import atomic_write_text, check_can_write
from vlmattn.overlay.colours import DEFAULT
from vlmattn.report.panel import HasPanels, Panel
from vlmattn.report.payload import payload, to_script
from vlmattn.report.pictures import visible

MOST_PANELS = 24
"""Panels of one page; more take too long to open."""
_SCRIPTS = ("geometry.js", "maps.js", "draw.js", "words.js", "controls.js", "page.js")


def report_html(
    shown: HasPanels | Panel | Sequence[HasPanels | Panel], *, title: str = "", colours: str = DEFAULT, **options: Any
) -> str:
    """A report as the text of one HTML file; see :func:`write_report`."""
    panels = panels_of(shown, options)
    name = title or _title(panels)
    script, style = _script(), _file("page.css")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return Template(_file("page.html")).substitute(
        policy=policy,
        title=escape(visible(name)),
        plain=_plain(panels),
        payload=to_script(payload(panels, title=name, colours=colours)),
        style=style,
        script=script,
    )


def write_report(
    path: str | Path,
    shown: HasPanels | Panel | Sequence[HasPanels | Panel],
    *,
    title: str = "",
    colours: str = DEFAULT,
    **options: Any,
) -> Path:
    """Write one HTML file that shows where a model looked for every word; it needs no network and nothing beside it.

    Args:
        path: of the file. shown: a run or a panel, or several: they stand side by side on one colour scale.
        title: of the page; default: the question. colours: one of :data:`vlmattn.overlay.COLOUR_MAPS`.
        options: of :meth:`vlmattn.Run.panels`, for every run: ``methods``, ``heads``, ``sinks``, ``risk`` …

    Raises:
        SpecError: nothing to show, too many panels, or options for panels, which have none.
        FileError: the file cannot be written. Others as :meth:`vlmattn.Run.panels`.
    """
    check_can_write(path)
    return atomic_write_text(path, report_html(shown, title=title, colours=colours, **options))


def panels_of(shown: Any, options: dict[str, Any]) -> list[Panel]:
    """The panels of what a report is given.

    Raises:
        SpecError: see :func:`write_report`.
    """
    several = list(shown) if isinstance(shown, Sequence) else [shown]
    found: list[Panel] = []
    for one in several:
        if isinstance(one, Panel):
            if options:
                raise SpecError(f"a panel is made already, and has no option {', '.join(options)}")
            found.append(one)
        elif hasattr(one, "panels"):
            found += one.panels(**options)
        else:
            raise SpecError(f"a report is of runs or panels, got {type(one).__name__}")
    if not 1 <= len(found) <= MOST_PANELS:
        raise SpecError(f"a report shows 1 to {MOST_PANELS} panels, got {len(found)}: write several files")
    return found


def _title(panels: Sequence[Panel]) -> str:
    asked = list(dict.fromkeys("".join(text for text, _ in panel.question).strip() for panel in panels))
    return asked[0] if len(asked) == 1 and asked[0] else "Where the model looked"


def _plain(panels: Sequence[Panel]) -> str:
    """Questions and answers as text, for readers without scripts."""
    lines = []
    for panel in panels:
        question, answer = ("".join(text for text, _ in part) for part in (panel.question, panel.answer))
        lines.append(f"<dt>{escape(visible(panel.title))}: <bdi>{escape(question)}</bdi></dt>")
        lines.append(f"<dd><bdi>{escape(answer)}</bdi></dd>")
    return "".join(lines)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


@cache
def _script() -> str:
    return '"use strict";\n(() => {\n' + "\n".join(_file(name) for name in _SCRIPTS) + "})();\n"


@cache
def _file(name: str) -> str:
    return (files("vlmattn.report") / name).read_text(encoding="utf-8")
