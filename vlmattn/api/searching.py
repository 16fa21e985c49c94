"""Visual search with a model: every look is the question asked on a part of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.checks import still
from vlmattn.api.refinement import certainty
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.images import Picture
from vlmattn.refine import SEARCHES, SearchPath, SearchRule, Seen, search
from vlmattn.refine.pictures import cut_out
from vlmattn.refine.places import Box

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.grid import PixelMap
    from vlmattn.overlay import Sheet


class Searched:
    """A search: the looks in order and the surest of them.

    Attributes:
        first: the run on the whole picture. image: which picture was searched. rule: how.
        path: boxes, certainties and why it stopped.
    """

    def __init__(self, first: Run, path: SearchPath, rule: SearchRule, image: int = 0) -> None:
        self.first, self.path, self.rule, self.image = first, path, rule, image

    @property
    def run(self) -> Run:
        """The surest run."""
        run: Run = self.path.best.seen.held
        return run

    @property
    def answer(self) -> str:
        """Its answer."""
        return self.run.answer

    @property
    def box_xyxy(self) -> Box:
        """What it looked at, in pixels of the original."""
        return self.path.best.box_xyxy

    def sheet(self) -> Sheet:
        """All looks in order, with their answers, on one scale (1 is an even look)."""
        from vlmattn.overlay import contact_sheet

        cells = []
        for visit in self.path.visits:
            run: Run = visit.seen.held
            look = run.map(0, image=self.image, normalise="uniform")
            cells.append((f"{run.answer} ({visit.seen.confidence:.2f})", look.picture.image, look.pixels))
        return contact_sheet([cells], title=f"{self.first.question} search {self.rule.name}", cell_width=220)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``map.png`` and ``crop.png`` of the surest look, ``boxes.json`` and ``sheet.png``; all or none."""
        from vlmattn.core.files import filled_folder, write_json

        look, sheet = self.run.map(0, image=self.image), self.sheet()
        with filled_folder(folder) as place:
            files = [
                look.save(place("map.png")),
                place("crop.png"),
                place("boxes.json"),
                sheet.save(place("sheet.png")),
            ]
            look.picture.image.save(files[1])
            write_json(files[2], self.to_dict())
        return [Path(folder) / file.name for file in files]

    def to_dict(self) -> dict[str, Any]:
        """Every look as plain values; no pixels."""
        return {
            "question": self.first.question,
            "first_answer": self.first.answer,
            "answer": self.answer,
            "box_xyxy": list(self.box_xyxy),
            "stopped": self.path.stopped,
            "looks": [
                {
                    "box_xyxy": list(visit.box_xyxy),
                    "depth": visit.depth,
                    "answer": visit.seen.held.answer,
                    "certainty": visit.seen.confidence,
                }
                for visit in self.path.visits
            ],
        }

    def _repr_html_(self) -> str:
        from vlmattn.api.shown import searched_html

        return searched_html(self)

    def __repr__(self) -> str:
        return f"<Search {self.rule.name}: {self.path.looks} more looks, {self.answer!r} in {self.box_xyxy}>"


def search_run(run: Run, rule: str | SearchRule, *, image: int, changes: dict[str, Any]) -> Searched:
    """See :meth:`vlmattn.api.Run.search`."""
    whole = still(run.pictures, image)
    if not isinstance(rule, SearchRule):
        if not isinstance(rule, str) or rule not in SEARCHES:
            raise SpecError(f"search {rule!r} does not exist; there are {', '.join(SEARCHES)}")
        rule = SEARCHES[rule]
    read: dict[str, Any] = {name: changes.pop(name) for name in ("layers", "heads") if name in changes}
    rule = rule.but(**changes)
    if np.isnan(certainty(run)):
        raise SpecError("a search stops by the answer's certainty, which was not kept: capture with top_k=1 or more")

    def look(box: Box) -> Seen:
        part = run if box == (0, 0, *whole.wh) else _on(run, whole, box, image)
        return Seen(certainty(part), _cue(part, image, read), part)

    return Searched(run, search(whole.wh, look, rule), rule, image)


def _on(run: Run, whole: Picture, box: Box, image: int) -> Run:
    part = Picture(cut_out(whole.image, box), f"{whole.name}, part", (f"part {box}",))
    pictures = [part if n == image else one for n, one in enumerate(run.pictures)]
    return run.vlm.run(run.request.only(pictures, run.request.items[0][1]))[0]


def _cue(run: Run, image: int, read: dict[str, Any]) -> PixelMap | None:
    try:
        pixels = run.map(0, image=image, **read).pixels
    except MapError:
        return None
    return None if pixels.is_flat else pixels
