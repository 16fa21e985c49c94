"""What options mean, checked before a model is loaded as far as it can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core import ranges
from vlmattn.core.errors import BudgetExceeded, FileError, PromptError, SpecError

if TYPE_CHECKING:
    from vlmattn.api import Vlm
    from vlmattn.capture import CaptureSpec
    from vlmattn.core.videos import Visual

ENDINGS = (".png", ".webp", ".jpg", ".jpeg", ".npz", ".json")


@dataclass(frozen=True)
class Choice:
    """How maps are read off: method, layers and heads as they were given, numbers where numbers were."""

    method: str = "raw"
    layers: str | list[int] | None = None
    heads: str | list[int] | None = None

    @property
    def read(self) -> dict[str, Any]:
        """The options of ``run.map`` and ``run.grounding``."""
        return {"method": self.method, "layers": self.layers, "heads": self.heads}

    def spec(self, vlm: Vlm) -> CaptureSpec:
        """What to keep: the chosen layers alone.

        Raises:
            SpecError: layers or heads that the model does not have.
        """
        from vlmattn.api.chosen import capture_of

        return capture_of(vlm, self.layers, self.heads)


def choice(method: str, layers: str | None, heads: str | None) -> Choice:
    """What ``--method``, ``--layers`` and ``--heads`` say.

    Raises:
        SpecError: a method or preset that does not exist, or text that is no numbers.
    """
    from vlmattn.core.provenance import METHODS
    from vlmattn.heads import SCORES
    from vlmattn.maps import HEAD_PRESETS, PRESETS

    if method not in METHODS:
        raise SpecError(f"--method must be one of {', '.join(METHODS)}; got {method!r}")
    known = HEAD_PRESETS | SCORES  # which of the scores a model has heads by is known once it is loaded
    return Choice(method, _preset_or_numbers(layers, "layer", PRESETS), _preset_or_numbers(heads, "head", known))


def check_rows(rows: str | None) -> None:
    """Raises SpecError for a row preset that does not exist."""
    from vlmattn.maps import ROW_PRESETS

    if rows is not None and rows not in ROW_PRESETS:
        raise SpecError(f"row preset {rows!r} does not exist; there are {', '.join(ROW_PRESETS)}")


def _preset_or_numbers(text: str | None, kind: str, presets: Mapping[str, Any]) -> str | list[int] | None:
    if text is None or text in presets:
        return text
    if text.strip() and not any(c.isdigit() for c in text):
        raise SpecError(f"{kind} preset {text!r} does not exist; there are {', '.join(presets)}, or numbers")
    return numbers(text, f"--{kind}s")


def numbers(text: str | None, what: str) -> list[int] | None:
    """``'1,4-6,-1'`` as [1, 4, 5, 6, -1]; None stays None.

    Raises:
        SpecError: not numbers, a range that runs backwards, or numbers larger than any model has.
    """
    return None if text is None else ranges.numbers(text, what)


def check_normalisation(how: str) -> None:
    """Raises SpecError for a normalisation that does not exist."""
    from vlmattn.maps import NORMALISATIONS

    if how not in NORMALISATIONS:
        raise SpecError(f"normalisation {how!r} does not exist; there are {', '.join(NORMALISATIONS)}")


def check_sinks(how: str) -> None:
    """Raises SpecError unless ``--sinks`` is keep, drop or only."""
    from vlmattn.sinks.removal import KEEPS

    if how not in KEEPS:
        raise SpecError(f"--sinks must be one of {', '.join(KEEPS)}; got {how!r}")


def check_question(question: str, pictures: int, answer: str | None, system: str | None = None) -> None:
    """Raises PromptError for a question or a given answer that is empty or no text."""
    from vlmattn.adapters.messages import check_encodable, conversation

    conversation(question, ("image",) * pictures, system=system, placeholders=())
    if answer is not None:
        check_encodable(answer)
        if not answer.strip():
            raise PromptError("the given answer is empty: leave out --answer to let the model write one")


def check_map_file(out: str) -> None:
    """Raises FileError for a place or an ending that a map cannot be written to."""
    from vlmattn.core.files import check_can_write

    path = Path(out)
    if path.name.lower() in ENDINGS:
        raise FileError(f"{out!r} is an ending without a name: write for example map{path.name}")
    if path.suffix.lower() not in ENDINGS:
        raise FileError(f"{out!r} has no known ending: expected {', '.join(ENDINGS)}")
    check_can_write(out)


def read_pictures(paths: Sequence[str], frames: int | None = None, fps: float | None = None) -> list[Visual]:
    """The pictures and videos; read before a model is loaded, so that a bad file is told at once.

    Args:
        frames, fps: how videos are sampled; 8 frames if neither is given.

    Raises:
        SpecError: how videos are sampled was said, and none was given.
    """
    from vlmattn.core.images import load_image
    from vlmattn.core.videos import is_video, load_video

    films = [is_video(path) for path in paths]
    if not any(films) and (frames is not None or fps is not None):
        raise SpecError("--frames and --fps say how a video is sampled, and no video was given")
    count = 8 if frames is None and fps is None else frames
    return [
        load_video(p, frames=count, fps=fps) if film else load_image(p) for p, film in zip(paths, films, strict=True)
    ]


@contextmanager
def own_knobs() -> Iterator[None]:
    """What is over the memory budget names the options that the command line has."""
    try:
        yield
    except BudgetExceeded as error:
        told = str(error).partition(": ")[0]
        raise BudgetExceeded(
            f"{told}: keep fewer layers with --layers, or let it write less with --max-new-tokens"
        ) from error
