"""Models that look at pictures: what each says about where, in one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from vlmattn.core.errors import MapError
from vlmattn.core.images import Picture
from vlmattn.gaze import Scanpath
from vlmattn.grid import PatchMap

if TYPE_CHECKING:
    from vlmattn.api import Clip, Vlm
    from vlmattn.gaze.models import Neva

MODEL = "model"


@dataclass(frozen=True)
class Looked:
    """Where a model looked for one question.

    Attributes:
        maps: by name; ``model`` is the one that counts, ``model, layer 3`` are single layers. scanpaths: by name, the
            model's own. facts: the answer and the like.
    """

    maps: Mapping[str, PatchMap]
    scanpaths: Mapping[str, Scanpath] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Looker(Protocol):
    """A model whose look can be compared with people's."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything the look depends on, in plain values."""
        ...

    def look(self, picture: Picture, question: str, word: str | None, *, whole: bool = True) -> Looked:
        """Where it looks; ``whole`` False asks for the map that counts alone."""
        ...


@dataclass(frozen=True)
class VlmLooker:
    """A vision-language model: attention for a word or the whole answer, over all layers and each alone.

    Attributes:
        vlm: the model. method, heads, layers: of the map that counts. by_layer: whether single layers are told too.
        at: where on a token's map the model's own scanpath fixates, ``peak`` or ``centroid``.
    """

    vlm: Vlm
    method: str = "raw"
    heads: Any = None
    layers: Any = None
    by_layer: bool = True
    at: str = "peak"
    max_new_tokens: int = 64

    @property
    def settings(self) -> dict[str, Any]:
        """Model, method, heads, layers."""
        told = self.vlm.describe()
        kept = {name: told.get(name) for name in ("model", "revision", "dtype", "family")}
        mine = {name: getattr(self, name) for name in ("method", "heads", "layers", "by_layer", "at", "max_new_tokens")}
        return kept | mine

    def look(self, picture: Picture, question: str, word: str | None, *, whole: bool = True) -> Looked:
        """See :class:`Looker`. The model's own scanpaths: over the tokens of its answer, and over its layers."""
        from vlmattn.api.scanpath import layer_maps

        run = self.vlm.ask(picture.image, question, max_new_tokens=self.max_new_tokens)
        told: dict[str, Any] = {"method": self.method}
        told |= {} if self.heads is None else {"heads": self.heads}
        chosen = {} if self.layers is None else {"layers": self.layers}
        maps = {MODEL: run.map(word, **told, **chosen).patch_map}
        paths: dict[str, Scanpath] = {}
        if whole and self.by_layer:
            alone = layer_maps(run, word, **told)
            maps |= {f"{MODEL}, layer {layer}": look.patch_map for layer, look in alone.items()}
        if whole:
            for order in ("tokens", "layers"):
                try:
                    paths[f"{MODEL}, over {order}"] = run.scanpath(
                        order, word if order == "layers" else None, at=self.at, **told
                    )
                except MapError:
                    continue
        return Looked(maps, paths, {"answer": run.answer})


@dataclass(frozen=True)
class ClipLooker:
    """An open_clip model: its map for a text, and NevaClip's scanpath.

    Attributes:
        clip: the model. method: of the map. neva: of the scanpath; None for none.
    """

    clip: Clip
    method: str = "gradient"
    neva: Neva | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Model, method, search."""
        from dataclasses import asdict

        told = {"model": self.clip.name, "family": "open_clip", "method": self.method}
        return told | {"neva": None if self.neva is None else asdict(self.neva)}

    def look(self, picture: Picture, question: str, word: str | None, *, whole: bool = True) -> Looked:
        """See :class:`Looker`; the text is ``word`` if there is one, else the question."""
        from vlmattn.gaze.models import neva_clip

        text = word or question
        maps = {MODEL: self.clip.map(picture, text, self.method).patch_map}
        if self.neva is None or not whole:
            return Looked(maps, {}, {"text": text})
        path = neva_clip(self.clip.encoder, [picture.image], [text], settings=self.neva, seeds=[0])[0]
        return Looked(maps, {"NevaClip": path}, {"text": text})


def layers_of(names: Sequence[str]) -> list[str]:
    """Those of the names of maps that are single layers, from the first to the last."""
    found = [name for name in names if name.startswith(f"{MODEL}, layer ")]
    return sorted(found, key=lambda name: int(name.rsplit(" ", 1)[1]))
