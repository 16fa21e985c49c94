"""What the page's events call: actions, with whatever goes wrong told in one line, and everything drawn anew."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from vlmattn.app import asking, looking, markup, showing
from vlmattn.app.asking import ASK_FIRST, Asked
from vlmattn.app.choices import MapChoice, head_choices, methods_of, taken_by
from vlmattn.app.examples import example
from vlmattn.app.knobs import steering_text
from vlmattn.app.models import Models
from vlmattn.core.errors import SpecError, VlmattnError

_CONTROLS = 9
"""How many controls a :class:`MapChoice` is made of."""


class Handlers:
    """The actions of one page. ``folder``: files to download are written in it."""

    def __init__(self, models: Models, folder: Path) -> None:
        self._models, self._folder = models, folder

    # -- at the model --------------------------------------------------------------------------------------------------

    def ask(self, asked: Asked | None, *given: Any) -> list[Any]:
        """Ask the question about the picture."""
        model, picture, question, on, method, preset, more, *values = given[_CONTROLS:]

        def made() -> Asked:
            text = steering_text(method, preset or "", values, more) if on else ""
            path, name = picture or (None, None)
            seen = asking.read_picture(path, name)
            asked_for = asking.check_question(question)
            return asking.ask(self._models.get(model), seen, asked_for, steering=text)

        return self._done(asked, given, made)

    def pick(self, event: gr.EventData, asked: Asked | None, *given: Any) -> list[Any]:
        """Show the map of another word."""
        return self._done(asked, given, lambda: asking.pick(_there(asked), getattr(event, "pick", None)))

    def steer(self, asked: Asked | None, *given: Any) -> list[Any]:
        """Steering on or off."""
        on, *settings = given[_CONTROLS:]
        if asked is None:  # it will be on when the question is asked
            return [gr.skip()] * 5
        return self._steered(asked, given, settings if on else None)

    def steer_again(self, asked: Asked | None, *given: Any) -> list[Any]:
        """Answer under the settings as they are now."""
        return self._steered(asked, given, list(given[_CONTROLS:]))

    def _steered(self, asked: Asked | None, given: tuple[Any, ...], settings: list[Any] | None) -> list[Any]:
        def made() -> Asked:
            if settings is None:
                return asking.steer(_there(asked), "")
            method, preset, more, *values = settings
            return asking.steer(_there(asked), steering_text(method, preset or "", values, more))

        return self._done(asked, given, made)

    def refine(self, asked: Asked | None, *given: Any) -> list[Any]:
        """A second look by a recipe."""
        return self._done(asked, given, lambda: asking.refine(_there(asked), given[_CONTROLS]))

    def unrefine(self, asked: Asked | None, *given: Any) -> list[Any]:
        """Take the second look away."""
        return self._done(asked, given, lambda: asking.refine(_there(asked), ""))

    def check(self, asked: Asked | None, *given: Any) -> list[Any]:
        """The risk of every word."""
        return self._done(asked, given, lambda: asking.check(_there(asked)))

    def synthetic(self, asked: Asked | None, *given: Any) -> list[Any]:
        """Draw synthetic observers."""
        return self._done(asked, given, lambda: looking.synthetic(_there(asked), given[_CONTROLS]))

    def table(self, asked: Asked | None, *given: Any) -> list[Any]:
        """Draw the fixations of a table."""
        path, unit, named, *columns = given[_CONTROLS:]
        said = dict(zip(looking.COLUMNS, (c or "" for c in columns), strict=True))
        return self._done(asked, given, lambda: looking.from_table(_there(asked), path, said, unit, named or ""))

    def no_gaze(self, asked: Asked | None, *given: Any) -> list[Any]:
        """Take the fixations away."""
        return self._done(asked, given, lambda: looking.no_gaze(_there(asked)))

    def show(self, asked: Asked | None, *given: Any) -> list[Any]:
        """The same word with other choices; nothing before there is a question."""
        return [gr.skip()] * 5 if asked is None else self._done(asked, given, lambda: asked)

    def _done(self, asked: Asked | None, given: tuple[Any, ...], action: Callable[[], Asked]) -> list[Any]:
        """State, message, words, maps and facts after an action; where it fails, everything but the message stays."""
        new, wrong = _tried(action)
        if new is None:
            return [gr.skip(), markup.alert(wrong), gr.skip(), gr.skip(), gr.skip()]
        drawn, wrong = _tried(lambda: _view(new, given))
        if drawn is None:
            return [new, markup.alert(wrong), markup.sentences(new), "", markup.facts(new)]
        new, shown = drawn
        return [new, markup.alert(""), markup.sentences(new), markup.pictures(shown), markup.facts(new)]

    # -- files ---------------------------------------------------------------------------------------------------------

    def overlay(self, asked: Asked | None, *given: Any) -> list[Any]:
        """A file of what is shown."""
        return self._file(lambda to: showing.save_overlay(_there(asked), _choice(given), to))

    def numbers(self, asked: Asked | None, *given: Any) -> list[Any]:
        """A file of the numbers."""
        return self._file(lambda to: showing.save_numbers(_there(asked), _choice(given), to))

    def report(self, asked: Asked | None, *given: Any) -> list[Any]:
        """A file with the report."""
        return self._file(lambda to: showing.save_report(_there(asked), to))

    def _file(self, write: Callable[[Path], Path]) -> list[Any]:
        def made() -> str:
            folder = self._folder / secrets.token_hex(16)
            folder.mkdir(parents=True)
            return str(write(folder))

        path, wrong = _tried(made)
        if path is None:
            return [markup.alert(wrong), gr.update(value=None)]
        return [markup.alert(""), gr.update(value=path)]

    # -- controls ------------------------------------------------------------------------------------------------------

    def read(self, picture: Any) -> list[Any]:
        """Whether an uploaded picture can be read; one that cannot is taken out again."""
        path, name = picture or (None, None)
        seen, wrong = _tried(lambda: asking.read_picture(path, name))
        # Values, no updates: those would make the field anew, as one that reads pictures by itself.
        return [markup.alert(wrong), path if seen is not None else None]

    def example(self, event: gr.EventData) -> list[Any]:
        """Picture and question of an example."""
        one, _ = _tried(lambda: example(getattr(event, "example", None)))
        if one is None:
            return [None, ""]
        target = self._folder / "examples" / one.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            one.picture.image.save(target.with_suffix(".png"))
        return [str(target.with_suffix(".png")), one.question]

    def fitting(self, method: str, layers: str, heads: str) -> list[Any]:
        """Layers and heads, emptied where a method does not take them."""
        return [
            gr.update(interactive=name in taken_by(method), value=value if name in taken_by(method) else "")
            for name, value in (("layers", layers), ("heads", heads))
        ]

    def methods(self, asked: Asked | None, method: str) -> Any:
        """The methods that the model has."""
        if asked is None:
            return gr.skip()
        there = list(methods_of(asked.run))
        return gr.update(choices=there, value=method if method in there else there[0])

    def model(self, name: str) -> list[Any]:
        """Another model: loaded now, so that what is wrong with it is told at once."""
        vlm, wrong = _tried(lambda: self._models.get(name))
        if vlm is None:
            return [markup.alert(wrong), gr.skip()]
        return [markup.alert(""), gr.update(choices=head_choices(vlm), value="")]

    def header(self, path: str | None) -> list[Any]:
        """The columns of a table, with those that have usual names chosen."""
        there, wrong = _tried(lambda: looking.header_of(path))
        if there is None:
            return [markup.alert(wrong), *(gr.update(choices=[""], value="") for _ in looking.COLUMNS)]
        likely = looking.guessed(there)
        return [markup.alert(""), *(gr.update(choices=["", *there], value=likely[c]) for c in looking.COLUMNS)]


def _tried(action: Callable[[], Any]) -> tuple[Any, str]:
    """What an action gives, or None and what went wrong in one line."""
    try:
        return action(), ""
    except VlmattnError as error:
        return None, markup.one_line(error)
    except Exception as error:
        log = logging.getLogger(__name__)
        log.error("%s: %s", type(error).__name__, error, exc_info=bool(os.environ.get("VLMATTN_TRACEBACK")))
        return None, f"this did not work: {type(error).__name__}: {markup.one_line(error)}"[:500]


def _there(asked: Asked | None) -> Asked:
    if asked is None:
        raise SpecError(ASK_FIRST)
    return asked


def _choice(given: tuple[Any, ...]) -> MapChoice:
    return MapChoice(*given[:_CONTROLS])


def _view(asked: Asked, given: tuple[Any, ...]) -> tuple[Asked, showing.View]:
    """What is shown, with sinks looked for where they are to be marked."""
    choice = _choice(given)
    if choice.mark_sinks:
        asked = asking.find_sinks(asked)
    return asked, showing.view(asked, choice)
