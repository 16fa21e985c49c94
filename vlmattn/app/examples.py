"""Pictures to begin with: drawn scenes, whose things are known, and a photograph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vlmattn.core.errors import SpecError
from vlmattn.core.images import Picture, load_image

if TYPE_CHECKING:
    from vlmattn.scene import Scene

_SCENES = (("test", 3, "color"), ("test", 9, "count"), ("test", 21, "caption"), ("adversarial", 0, "exist"))
_PHOTO, _PHOTO_QUESTION = "coffee.jpg", "Is there a red circle in the picture?"


@dataclass(frozen=True, eq=False)
class Example:
    """A picture with a question. ``scene``: what is on it, where that is known."""

    picture: Picture
    question: str
    scene: Scene | None = None

    @property
    def name(self) -> str:
        """Of its file."""
        return self.picture.name


@cache
def examples() -> tuple[Example, ...]:
    """Scenes of the test splits, one of which asks for what is not there, and the photograph of ``vlmattn demo``."""
    from vlmattn.scene import split_item

    found = []
    for split, index, kind in _SCENES:
        scene, questions = split_item(split, 0, index)
        asked = next((q for q in questions if q.kind == kind), questions[0])
        found.append(Example(Picture(scene.image, f"{split}-{index}.png"), asked.text, scene))
    photo = load_image(Path(__file__).parents[1] / "cli" / "photo" / _PHOTO)
    return (*found, Example(photo, _PHOTO_QUESTION))


def example(number: object) -> Example:
    """An example by its number.

    Raises:
        SpecError: there is none of that number.
    """
    there = examples()
    if not isinstance(number, int | str) or str(number) not in {str(n) for n in range(len(there))}:
        raise SpecError(f"example {number!r} does not exist; there are 0 to {len(there) - 1}")
    return there[int(number)]


def scene_of(picture: Picture) -> Scene | None:
    """What is on a picture, if it is one of the drawn examples, whatever its file is called."""
    pixels = picture.image.convert("RGB").tobytes()
    drawn = (one for one in examples() if one.scene is not None and one.picture.wh == picture.wh)
    return next((one.scene for one in drawn if one.picture.image.tobytes() == pixels), None)
