"""Runs in files: saved with everything that was kept, loaded without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.api.request import Request
from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.head_preset import HeadPreset
from vlmattn.core.images import load_image
from vlmattn.core.videos import Video, Visual

if TYPE_CHECKING:
    from vlmattn.api.run import Run


class AbsentModel:
    """Stands where a run has its model, if the run was loaded from a file: knows its name and its heads, runs nothing.

    Whatever needs the model raises SpecError.
    """

    sink_coordinates = None
    detector = None

    def __init__(self, name: str, heads: Mapping[str, HeadPreset]) -> None:
        self.name, self._heads = name, dict(heads)

    def known_heads(self) -> dict[str, HeadPreset]:
        """The model's heads by name, when the run was saved."""
        return dict(self._heads)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise SpecError(
            f"this run was loaded from a file, without its model {self.name!r}: maps of kept attention can be made "
            "(method='raw'), and what needs a further pass cannot. Ask again: va.load(...).ask(...)"
        )

    def __repr__(self) -> str:
        return f"<no model, but a run of {self.name!r}>"


def save_run(run: Run, path: str | Path, *, pictures: bool = True) -> Path:
    """Write a run as one ``.safetensors`` file, for :func:`load_run`.

    Args:
        pictures: with its pictures, without loss; else they have to be given again.

    Raises:
        FileError: another ending, or a place that cannot be written.
    """
    from vlmattn.export import save_trace

    shown = run.pictures if pictures else ()
    heads = run.vlm.known_heads()
    return save_trace(path, run.trace, shown, heads=heads, steered=bool(run.request.steering))


def load_run(path: str | Path, *, pictures: Sequence[Any] | None = None) -> Run:
    """A run that ``run.export("run.safetensors")`` wrote, without its model.

    Its maps of raw attention (and value-weighted ones, where norms were kept), words, grounding and exports are those
    of the run that was saved. What needs a further pass raises SpecError.

    Args:
        pictures: of the prompt, in order, if the file has none; upright, of the sizes that the model saw.

    Raises:
        FileError: missing, damaged, of another kind or version; without pictures, and none were given, or others.
    """
    from vlmattn.api.run import Run
    from vlmattn.export import load_trace

    held = load_trace(path)
    shown = held.pictures or tuple(one if isinstance(one, Video) else load_image(one) for one in pictures or ())
    _check(path, shown, [one.image_wh for one in held.trace.layout.images])
    question = held.trace.question or " "
    request = Request(((list(shown), question),))
    absent: Any = AbsentModel(held.trace.provenance.model, held.heads)
    return Run(absent, shown, held.trace, request)


def _check(path: str | Path, shown: Sequence[Visual], sizes: Sequence[tuple[int, int]]) -> None:
    got = [one.wh for one in shown]
    if not got and sizes:
        raise FileError(
            f"{path} was written without its {len(sizes)} pictures: give them, load_run(path, pictures=[…])"
        )
    if [tuple(wh) for wh in got] != [tuple(wh) for wh in sizes]:
        raise FileError(f"{path} is of pictures of {list(sizes)} pixels, and those given have {got}")
