"""What ``heads=`` means for a model: its own heads by name first, then published ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.api.findings import check_fits
from vlmattn.api.saved import AbsentModel
from vlmattn.core.errors import FileError, SpecError
from vlmattn.core.files import as_path
from vlmattn.core.head_preset import HeadPreset

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm


def own_heads(vlm: Vlm, heads: Any) -> Any:
    """The preset that a name means for a model, if it is one of its own; anything else as it is.

    Raises:
        SpecError: a name that is neither the model's own nor published, lists both; or heads of another model.
    """
    from vlmattn.maps.presets import HEAD_PRESETS

    if isinstance(vlm, AbsentModel):  # the trace says whether it has these heads
        return vlm.known_heads().get(heads, heads) if isinstance(heads, str) else heads
    if isinstance(heads, HeadPreset):
        check_fits(vlm, heads)
        return heads
    if not isinstance(heads, str):
        return heads
    own = vlm.known_heads()
    if heads in own:
        return own[heads]
    listed = f"this model's own are {', '.join(own) or 'none'}, published ones {', '.join(HEAD_PRESETS)}"
    if heads not in HEAD_PRESETS:
        raise SpecError(f"head preset {heads!r} does not exist; {listed}")
    try:
        check_fits(vlm, HEAD_PRESETS[heads])
    except SpecError as error:
        raise SpecError(f"{error}; {listed}") from None
    return heads


def presets_in(found: Any) -> Sequence[HeadPreset]:
    """The presets of an atlas, a preset, or a file of one or several.

    Raises:
        SpecError: something else. FileError: a file that holds neither.
    """
    from vlmattn.heads import HeadAtlas, load_presets

    if isinstance(found, HeadPreset):
        return (found,)
    if isinstance(found, HeadAtlas):
        return found.presets()
    if not isinstance(found, (str, Path)):
        raise SpecError(f"heads are told by a HeadAtlas, a HeadPreset, or a file of one; got {found!r:.80}")
    path = as_path(found)
    if path.suffix.lower() == ".npz" or _kind(path) == "vlmattn head atlas":
        return HeadAtlas.load(path).presets()
    return tuple(load_presets(path).values())


def _kind(path: Path) -> str:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read heads from {str(path)!r}: {error}") from error
    return str(held.get("kind", "")) if isinstance(held, dict) else ""
