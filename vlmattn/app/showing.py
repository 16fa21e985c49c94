"""Maps of the picked word on the pictures, side by side on one colour scale, with everything that is marked on them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vlmattn.app.asking import ASK_FIRST, Asked, Which, word_in
from vlmattn.app.choices import MapChoice
from vlmattn.app.looking import MOST_PATHS, gaze_scores
from vlmattn.core.errors import MapError, SpecError, VlmattnError
from vlmattn.core.files import atomic_write_text

if TYPE_CHECKING:
    from vlmattn.api import Look, Run
    from vlmattn.overlay import Overlay

_OTHERS = ((120, 220, 120), (240, 130, 200), (250, 140, 90))
TITLES: dict[Which, str] = {"plain": "plain", "steered": "steered", "again": "second look"}


@dataclass(frozen=True, eq=False)
class Panel:
    """One map of a view.

    Attributes:
        which: of which run. title, answer: above it. look, overlay: the map, and the picture with it; None where there
            is none, as ``note`` says. note: what else is to be known. scores: against fixations, NSS and AUC.
    """

    which: Which
    title: str
    answer: str
    look: Look | None = None
    overlay: Overlay | None = None
    note: str = ""
    scores: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class View:
    """Panels with one colour scale. ``scale``: values of the first and last colour; None where nothing was drawn."""

    panels: tuple[Panel, ...]
    choice: MapChoice
    scale: tuple[float, float] | None = None


def view(asked: Asked, choice: MapChoice) -> View:
    """The picked word's map of every run.

    Raises:
        SpecError, MapError and others as :meth:`vlmattn.Run.map`, for the plain run; what other runs lack is said in
            their panels.
    """
    from vlmattn.overlay.heat import scale_of

    if asked is None:
        raise SpecError(ASK_FIRST)
    panels = [_looked(asked, which, run, choice) for which, run in asked.runs.items()]
    looks = [one.look for one in panels if one.look is not None]
    scale = scale_of([look.pixels for look in looks]) if looks else (0.0, 0.0)
    drawn = [_drawn(asked, one, choice, scale if scale[1] > scale[0] else None) for one in panels]
    return View(tuple(drawn), choice, scale if scale[1] > scale[0] else None)


def _looked(asked: Asked, which: Which, run: Run, choice: MapChoice) -> Panel:
    panel = Panel(which, _title(asked, which), run.answer)
    word = word_in(asked, which)
    picked = asked.picked
    lost = word is None and picked.number is not None
    note = "this answer has no such word: the map is of all of it" if lost else ""
    try:
        look = run.map(word, image=_shown(which, run), **choice.options())
    except VlmattnError as error:
        if which == "plain":
            raise
        return replace(panel, note=f"no map: {error}")
    return replace(panel, look=look, note=note)


def _shown(which: Which, run: Run) -> int:
    """Of a second look at two pictures, the closer one."""
    return len(run.pictures) - 1 if which == "again" else 0


def _title(asked: Asked, which: Which) -> str:
    if which == "steered":
        return f"steered: {asked.steering}"
    if which == "again" and asked.refinement is not None:
        return f"second look: {asked.refinement.recipe.name}"
    return TITLES[which]


def _drawn(asked: Asked, panel: Panel, choice: MapChoice, scale: tuple[float, float] | None) -> Panel:
    look = panel.look
    if look is None:
        return panel
    boxes = _boxes(asked, panel, choice)
    made = look.overlay(alpha_max=float(choice.opacity), scale=scale, peak=choice.peak, box=boxes or None)
    scores = None
    if asked.gaze is not None and panel.which != "again":
        scores = gaze_scores(asked.gaze, look.pixels)
    return replace(panel, overlay=_marked(asked, panel, made, choice), scores=scores)


def _boxes(asked: Asked, panel: Panel, choice: MapChoice) -> list[tuple[float, ...]]:
    found: list[tuple[float, ...]] = []
    if choice.box and panel.look is not None:
        with suppress(MapError):  # a flat map has no region that stands out, as its legend says
            found.append(tuple(panel.look.box_xyxy()))
    if panel.which == "plain" and asked.refinement is not None and asked.refinement.looks_again:
        found.append(asked.refinement.box_xyxy)
    return found


def _marked(asked: Asked, panel: Panel, made: Overlay, choice: MapChoice) -> Overlay:
    """The overlay with fixations and sinks on it, at its own size and as it is shown enlarged."""
    paths = list(asked.gaze.fixations)[:MOST_PATHS] if asked.gaze is not None and panel.which != "again" else []
    sinks = asked.sinks if choice.mark_sinks and panel.which == "plain" else None
    places = [token.box_xyxy for token in sinks.visual if token.box_xyxy is not None] if sinks is not None else []
    if not paths and not places:
        return made
    enlarged = None if made.enlarged is None else _with_marks(made.enlarged, made.image.width, paths, places)
    marked = _with_marks(made.image, made.image.width, paths, places)
    return replace(made, pixels=np.asarray(marked.convert("RGB")), enlarged=enlarged)


def _with_marks(image: Image.Image, width: int, paths: list[Any], places: list[Any]) -> Image.Image:
    from vlmattn.core.optional import cv2
    from vlmattn.overlay import draw_scanpath
    from vlmattn.overlay.marks import stroke
    from vlmattn.overlay.scanpaths import PEOPLE

    pixels = np.array(image)
    factor, thick = image.width / width, stroke(pixels)
    for box in places:
        # A patch may reach over the picture's border, into padding.
        x0, x1 = (min(max(x, 0), width) for x in box[::2])
        y0, y1 = (min(max(y, 0), image.height / factor) for y in box[1::2])
        middle = (round((x0 + x1) / 2 * factor), round((y0 + y1) / 2 * factor))
        size = max(10, round(min(x1 - x0, y1 - y0) * factor * 0.8))
        for ink, wide in (((0, 0, 0), 2 * thick + 3), ((255, 64, 160), thick + 1)):
            cv2().drawMarker(pixels, middle, ink, cv2().MARKER_TILTED_CROSS, size, wide)
    colours = (PEOPLE, *_OTHERS)
    for number, path in enumerate(paths):
        draw_scanpath(pixels, path, colour=colours[number % len(colours)])
    return Image.fromarray(pixels)


# -- files -------------------------------------------------------------------------------------------------------------


def numbers(asked: Asked, choice: MapChoice) -> dict[str, Any]:
    """Everything that is shown, as plain values: answers, grounding, maps, check, sinks, fixations' scores."""
    shown = view(asked, choice)
    panels = [
        {
            "run": one.which,
            "title": one.title,
            "answer": one.answer,
            "map": None if one.look is None else one.look.to_dict(),
            "gaze": one.scores,
            "note": one.note,
        }
        for one in shown.panels
    ]
    found: dict[str, Any] = asked.run.to_dict()
    found |= {"picked": asked.picked.key, "scale": None if shown.scale is None else list(shown.scale), "maps": panels}
    parts = {"refinement": asked.refinement, "check": asked.checked, "sinks": asked.sinks}
    found |= {name: None if one is None else one.to_dict() for name, one in parts.items()}
    return found | {"steering": asked.steering or None, "gaze": None if asked.gaze is None else asked.gaze.told}


def save_numbers(asked: Asked, choice: MapChoice, folder: str | Path) -> Path:
    """:func:`numbers` as ``vlmattn.json`` in a folder."""
    text = json.dumps(numbers(asked, choice), ensure_ascii=False, indent=2, allow_nan=False)
    return atomic_write_text(Path(folder) / "vlmattn.json", text + "\n")


def save_overlay(asked: Asked, choice: MapChoice, folder: str | Path) -> Path:
    """What is shown as ``vlmattn.png`` in a folder, with its provenance inside: one overlay at the picture's own size,
    or several on one sheet."""
    from vlmattn.overlay import contact_sheet
    from vlmattn.overlay.scanpaths import PEOPLE

    target = Path(folder) / "vlmattn.png"
    panels = [one for one in view(asked, choice).panels if one.overlay is not None and one.look is not None]
    if len(panels) == 1 and panels[0].overlay is not None:
        return panels[0].overlay.save(target)
    cells = [(f"{one.title}: {one.answer}", one.look.picture.image, one.look.pixels) for one in panels if one.look]
    gaze = [] if asked.gaze is None else [(path, PEOPLE) for path in list(asked.gaze.fixations)[:MOST_PATHS]]
    paths = [[[] if one.which == "again" else gaze for one in panels]]
    return contact_sheet([cells], title=asked.run.question, cell_width=420, paths=paths).save(target)


def save_report(asked: Asked, folder: str | Path) -> Path:
    """The report of the plain run as ``vlmattn.html`` in a folder."""
    return asked.run.report(Path(folder) / "vlmattn.html")
