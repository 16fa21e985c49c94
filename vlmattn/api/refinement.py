"""Looking again: a run's map made into a closer picture, and the question asked once more on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from vlmattn.api.checks import still
from vlmattn.api.look import Look
from vlmattn.api.refine_maps import asked_with, map_for
from vlmattn.core.errors import SpecError
from vlmattn.core.images import Picture
from vlmattn.refine import Gate, Recipe, Refined, Signs, refine_picture, signs_of
from vlmattn.refine.recipes import recipe_of
from vlmattn.trace import Span

if TYPE_CHECKING:
    from vlmattn.api.request import Prompt
    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm
    from vlmattn.overlay import Sheet

_CHOOSE = ("second", "surer")


def certainty(run: Run) -> float:
    """How sure a run's answer is: the geometric mean of its tokens' probabilities, 0 to 1; NaN where not kept."""
    scores = run.trace.scores
    if scores is None or not len(scores.chosen_logp_t):
        return float("nan")
    return float(np.exp(np.mean(scores.chosen_logp_t[: max(len(run.trace.answer_tokens), 1)])))


def _known(run: Run) -> float | None:
    sure = certainty(run)
    return None if np.isnan(sure) else sure


class Refinement:
    """Where to look again.

    Attributes:
        run: the first look. recipe: how. image: which picture. signs: what the gate saw; None if it was not asked.
        refined: map, place and refined picture; None where the gate found the first look good enough.
    """

    def __init__(self, run: Run, recipe: Recipe, image: int, refined: Refined | None, signs: Signs | None) -> None:
        self.run, self.recipe, self.image = run, recipe, image
        self.refined, self.signs = refined, signs
        self._again: Run | None = None

    @property
    def looks_again(self) -> bool:
        """Whether there is a second look."""
        return self.refined is not None

    @property
    def again(self) -> Run | None:
        """The run of the second look, where :meth:`ask_again` has asked for it."""
        return self._again

    @property
    def look(self) -> Look:
        """The map that says where. Raises SpecError where the gate said that no second look is needed."""
        return Look(self._made().patch_map, still(self.run.pictures, self.image))

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, in pixels of the original."""
        return self._made().place.mask

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """What is cut out, in pixels of the original, ends exclusive."""
        return self._made().place.box_xyxy

    @property
    def crop(self) -> Image.Image:
        """The refined picture: masked, cut out and enlarged as the recipe says."""
        return self._made().image

    def item(self) -> tuple[list[Any], Prompt]:
        """Pictures and prompt of the second look, with the recipe's suffix, as :meth:`Vlm.ask_many` takes them."""
        made, originals = self._made(), list(self.run.pictures)
        prompt = asked_with(self.run, self.recipe)
        closer = Picture(made.image, f"{originals[self.image].name}, refined", ("refined: " + self.recipe.name,))
        if self.recipe.pictures == "crop":
            return [closer if n == self.image else one for n, one in enumerate(originals)], prompt
        return [*originals, closer], _with_place(prompt)

    def ask_again(self, *, choose: str = "second") -> Run:
        """The run of the second look, asked once and kept; the first run where the gate said no.

        Args:
            choose: ``second``, or ``surer``: whichever of the two answers is surer (:func:`certainty`; the second of
                equals and where it is not known).
        """
        if choose not in _CHOOSE:
            raise SpecError(f"choose must be one of {', '.join(_CHOOSE)}, got {choose!r}")
        if self.refined is None:
            return self.run
        if self._again is None:
            self._again = self.run.vlm.run(self.run.request.only(*self.item()))[0]
        return surer(self.run, self._again) if choose == "surer" else self._again

    def sheet(self) -> Sheet:
        """Both looks side by side on one scale (1 is an even look): the picture, and what was shown the second time."""
        from vlmattn.maps import normalise
        from vlmattn.overlay import contact_sheet

        again = self.ask_again()
        first = Look(normalise(self._made().patch_map, "uniform"), still(self.run.pictures, self.image))
        shown = len(again.pictures) - 1 if self.recipe.pictures == "both" else self.image
        second = again.map(0, image=shown, normalise="uniform")
        cells = [
            (f"{name}: {run.answer}", look.picture.image, look.pixels)
            for name, run, look in (("first look", self.run, first), ("second look", again, second))
        ]
        return contact_sheet([cells], title=f"{self.run.question} {self.recipe.name}", cell_width=320)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``map.png``, ``mask.png``, ``crop.png``, ``boxes.json`` and ``sheet.png``; all or none of them."""
        from vlmattn.core.files import filled_folder, write_json

        made, sheet = self._made(), self.sheet()
        with filled_folder(folder) as place:
            files = [self.look.save(place("map.png"))]
            for name, picture in (("mask.png", made.mask_image), ("crop.png", made.image)):
                picture.save(place(name))
                files.append(place(name))
            write_json(place("boxes.json"), self.to_dict())
            files += [place("boxes.json"), sheet.save(place("sheet.png"))]
        return [Path(folder) / file.name for file in files]

    def to_dict(self) -> dict[str, Any]:
        """Answers, boxes, signs and recipe as plain values; no pixels."""
        again = self._again
        return {
            "question": self.run.question,
            "first_answer": self.run.answer,
            "second_answer": None if again is None else again.answer,
            "certainty": [_known(self.run), None if again is None else _known(again)],
            "looks_again": self.looks_again,
            "signs": None if self.signs is None else self.signs.to_dict(),
            "refined": None if self.refined is None else self.refined.to_dict(),
        }

    def _made(self) -> Refined:
        if self.refined is None:
            raise SpecError("the gate found the first look good enough, so there is no second one: say when='always'")
        return self.refined

    def _repr_html_(self) -> str:
        from vlmattn.api.shown import refinement_html

        return refinement_html(self)

    def __repr__(self) -> str:
        where = f"box {self.box_xyxy}" if self.refined is not None else "no second look needed"
        return f"<Refinement {self.recipe.name} of {self.run.question!r}: {where}>"


def refine_run(
    run: Run,
    recipe: str | Recipe,
    what: str | int | Span | None,
    *,
    image: int,
    when: Literal["always", "uncertain"],
    gate: Gate | None,
    changes: dict[str, Any],
) -> Refinement:
    """See :meth:`vlmattn.api.Run.refine`."""
    chosen = recipe_of(recipe, changes)
    if when not in ("always", "uncertain"):
        raise SpecError(f"when must be 'always' or 'uncertain', got {when!r}")
    if gate is not None and when == "always":
        raise SpecError("a gate decides with when='uncertain' only")
    if not isinstance(gate, Gate | None):
        raise SpecError(f"gate must be a Gate, got {gate!r}: Gate.load reads one from a file")
    picture = still(run.pictures, image)
    check_room(run.vlm, chosen, len(run.pictures))
    signs = signs_of(run.trace, image=image) if when == "uncertain" else None
    if signs is not None and not (gate or Gate()).looks_again(signs):
        return Refinement(run, chosen, image, None, signs)
    patch_map = map_for(run, chosen, what, image)
    return Refinement(run, chosen, image, refine_picture(picture.image, patch_map, chosen), signs)


def check_room(vlm: Vlm, recipe: Recipe, count: int) -> None:
    """Raises SpecError where ``pictures="both"`` would show a family more pictures than it takes.

    Args:
        count: pictures of the first look.
    """
    most = vlm.adapter.max_images
    if recipe.pictures == "both" and most is not None and count + 1 > most:
        raise SpecError(
            f"{vlm.family} takes at most {most} picture{'s' * (most > 1)}, and recipe {recipe.name!r} with "
            f"pictures='both' shows {count + 1}: say pictures='crop'"
        )


def surer(first: Run, second: Run) -> Run:
    """Whichever run has the surer answer."""
    return first if certainty(first) > certainty(second) else second


def _with_place(prompt: Prompt) -> Prompt:
    """A prompt with a place for one more picture behind its last one (or last video); text and messages without places
    as they are."""
    if isinstance(prompt, str):
        return prompt
    at = [
        (m, p)
        for m, message in enumerate(prompt)
        for p, part in enumerate(message["content"] if not isinstance(message["content"], str) else ())
        if isinstance(part, Mapping) and part.get("type") in ("image", "video")
    ]
    if not at:
        return prompt
    message, part = at[-1]
    content = list(prompt[message]["content"])
    content.insert(part + 1, {"type": "image"})
    return [{**one, "content": content} if n == message else one for n, one in enumerate(prompt)]
