"""One case drawn: a person's and the model's scanpaths on the model's map."""

from __future__ import annotations

from collections.abc import Mapping

from vlmattn.core.images import Picture
from vlmattn.evaluate.gaze.cases import GazeCase, synthetic
from vlmattn.evaluate.gaze.lookers import MODEL, Looked
from vlmattn.evaluate.gaze.measuring import WTA
from vlmattn.gaze import Scanpath
from vlmattn.grid import to_pixels
from vlmattn.overlay import Sheet, contact_sheet
from vlmattn.overlay.scanpaths import MODEL as MODEL_COLOUR
from vlmattn.overlay.scanpaths import PEOPLE as PEOPLE_COLOUR

_MOST = 3


def case_sheet(case: GazeCase, picture: Picture, look: Looked, paths: Mapping[str, Scanpath]) -> Sheet:
    """The first subjects' scanpaths (yellow) and the model's (blue), each on the model's map."""
    pixels = to_pixels(look.maps[MODEL], merge="mean", kind="density")
    who = "synthetic observer, no person" if synthetic(case.people) else "person"
    shown = [(f"{who}: {path.subject}", path, PEOPLE_COLOUR) for path in list(case.people)[:_MOST]]
    mine = [WTA.format(MODEL), *look.scanpaths][:_MOST]
    shown += [(name, paths[name], MODEL_COLOUR) for name in mine if name in paths]
    people = [one for one in shown if one[2] == PEOPLE_COLOUR]
    model = [one for one in shown if one[2] == MODEL_COLOUR]
    cells = [[(title, picture.image, pixels) for title, _, _ in row] for row in (people, model)]
    drawn = [[[(path, colour)] for _, path, colour in row] for row in (people, model)]
    return contact_sheet(cells, title=f"{case.name}: {case.question}", paths=drawn, cell_width=260)
