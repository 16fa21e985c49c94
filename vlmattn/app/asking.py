"""What is done with a picture and a question: asked, asked again, steered, checked. Nothing here knows of a page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from vlmattn.app.examples import scene_of
from vlmattn.core.errors import ImageError, PromptError, SpecError
from vlmattn.core.images import Picture, load_image
from vlmattn.core.words import Part, Span

if TYPE_CHECKING:
    from vlmattn.api import Checked, Refinement, Run, Vlm
    from vlmattn.app.looking import Gaze
    from vlmattn.scene import Scene
    from vlmattn.sinks import Sinks

Which = Literal["plain", "steered", "again"]
WHICH: tuple[Which, ...] = get_args(Which)
WHOLE = "all"
ASK_FIRST = "ask a question about a picture first"
MOST_TOKENS = 128


@dataclass(frozen=True)
class Picked:
    """The word that is shown: of which run, of which part, and its number among the words there; None for the whole.

    Raises:
        SpecError: a run or part that does not exist, or a number that is none.
    """

    which: Which = "plain"
    part: Part = "answer"
    number: int | None = None

    def __post_init__(self) -> None:
        if self.which not in WHICH or self.part not in ("question", "answer"):
            raise SpecError(f"a word is of plain, steered or again, and of question or answer; got {self.key!r}")
        if self.number is not None and self.number < 0:
            raise SpecError(f"words are counted from 0, got {self.number}")

    @property
    def key(self) -> str:
        """As the page names it."""
        return f"{self.which}/{self.part}/{WHOLE if self.number is None else self.number}"

    @classmethod
    def of(cls, key: object) -> Picked:
        """From :attr:`key`.

        Raises:
            SpecError: it is no such key.
        """
        parts = key.split("/") if isinstance(key, str) else []
        if len(parts) != 3 or not (parts[2] == WHOLE or (parts[2].isascii() and parts[2].isdigit())):
            raise SpecError(f"{str(key)[:80]!r} names no word")
        number = None if parts[2] == WHOLE else int(parts[2][:9])
        return cls(cast(Which, parts[0]), cast(Part, parts[1]), number)


@dataclass(frozen=True, eq=False)
class Asked:
    """Everything that one user has in front of them.

    Attributes:
        run: the plain answer. steered: the same question under ``steering``. refinement, again: the closer look, and
            its answer. checked: which words nothing supports. sinks: of the plain run. gaze: fixations to draw.
        scene: what is on the picture, of a drawn example. picked: the word that is shown.
    """

    run: Run
    steered: Run | None = None
    steering: str = ""
    refinement: Refinement | None = None
    again: Run | None = None
    checked: Checked | None = None
    sinks: Sinks | None = None
    gaze: Gaze | None = None
    scene: Scene | None = None
    picked: Picked = field(default_factory=Picked)

    @property
    def picture(self) -> Picture:
        """The upright original."""
        return cast(Picture, self.run.pictures[0])

    @property
    def runs(self) -> dict[Which, Run]:
        """The runs that there are, in the order in which they are shown."""
        found: dict[Which, Run | None] = {"plain": self.run, "steered": self.steered, "again": self.again}
        return {name: run for name, run in found.items() if run is not None}


def read_picture(source: str | Path | None, name: str | None = None) -> Picture:
    """A picture from a file; ``name``: what it is called in errors and results, default the file's own.

    Raises:
        ImageError: no picture was given, or it cannot be read.
    """
    if not source:
        raise ImageError("there is no picture yet: drop one into the field, or take an example")
    path = Path(source)
    called = name or path.name
    try:
        return replace(load_image(path), name=called)
    except ImageError as error:
        told = str(error).replace(str(path), called)
        raise ImageError(called + told.removeprefix(path.name) if told.startswith(path.name) else told) from error


def ask(vlm: Vlm, picture: Picture, question: str | None, *, steering: str = "") -> Asked:
    """The answer to a question, and with ``steering`` the one under it, too.

    Args:
        steering: as :func:`vlmattn.steering.named.steering_of` takes it; empty for none.

    Raises:
        PromptError: no question. SpecError: steering that cannot be. Others as :meth:`vlmattn.Vlm.ask`.

    Example:
        >>> import vlmattn as va
        >>> from vlmattn.app.examples import example
        >>> asked = ask(va.load("scene"), example(0).picture, example(0).question)
        >>> list(asked.runs)
        ['plain']
    """
    from vlmattn.steering.named import steering_of

    question = check_question(question)
    if steering:
        steering_of(steering)
    asked = Asked(vlm.ask(picture, question, max_new_tokens=MOST_TOKENS), scene=scene_of(picture))
    return steer(asked, steering) if steering else asked


def check_question(question: str | None) -> str:
    """The question. Raises PromptError where there is none."""
    if not question or not question.strip():
        raise PromptError("there is no question yet: write one")
    return question


def steer(asked: Asked, steering: str) -> Asked:
    """The same question once more under steering; empty text takes the steered answer away.

    Raises:
        SpecError, UnsupportedModel: steering that cannot be, or that the model does not take.
    """
    from vlmattn.steering.named import steering_of

    if not steering:
        return _without(replace(asked, steered=None, steering=""))
    method = steering_of(steering)
    run = asked.run.vlm.run(replace(asked.run.request, steering=(method,)))[0]
    return _without(replace(asked, steered=run, steering=steering))


def refine(asked: Asked, recipe: str) -> Asked:
    """The question once more on a closer look; an empty recipe takes the second look away.

    Raises:
        SpecError: no such recipe. MapError: the map is flat, or the family cannot have it.
    """
    if not recipe:
        return _without(replace(asked, refinement=None, again=None))
    found = asked.run.refine(recipe)
    return _without(replace(asked, refinement=found, again=found.ask_again()))


def check(asked: Asked) -> Asked:
    """Each word of the plain answer with the risk that it is made up: by the model's detector, or the deletion test."""
    from vlmattn.api import Check
    from vlmattn.api.checking import check_of, checked

    wanted = check_of(asked.run.vlm, Check(of="words"))
    return asked if wanted is None else replace(asked, checked=checked([asked.run], [wanted])[0].checked)


def find_sinks(asked: Asked) -> Asked:
    """The attention sinks of the plain run, found once."""
    return asked if asked.sinks is not None else replace(asked, sinks=asked.run.sinks())


def pick(asked: Asked, key: object) -> Asked:
    """Another word to show.

    Raises:
        SpecError: there is no such word.
    """
    picked = Picked.of(key)
    run = asked.runs.get(picked.which)
    if run is None or (picked.number is not None and picked.number >= len(run.words(picked.part))):
        raise SpecError("this word is no longer there: click one of those that are shown")
    return replace(asked, picked=picked)


def word_in(asked: Asked, which: Which) -> Span | None:
    """The picked word in one of the runs: itself, or in another run the word of the same number in the question, the
    same word of the answer, or else the whole answer (None)."""
    picked, run = asked.picked, asked.runs[which]
    if picked.number is None:
        return None
    own = asked.runs[picked.which].words(picked.part)[picked.number]
    if which == picked.which:
        return own
    there = run.words(picked.part)
    if picked.part == "question":
        return there[picked.number] if picked.number < len(there) else None
    same = [span for span in there if span.text.casefold() == own.text.casefold()]
    return same[min(own.occurrence, len(same)) - 1] if same else None


def _without(asked: Asked) -> Asked:
    """With the whole plain answer picked where the picked word went away with its run."""
    picked = asked.picked
    run = asked.runs.get(picked.which)
    gone = run is None or (picked.number is not None and picked.number >= len(run.words(picked.part)))
    return replace(asked, picked=Picked()) if gone else asked
