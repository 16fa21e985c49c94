"""What every patch of a picture says where the states of the decoder are read as words: the logit lens."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.api.states import depth_of, image_at, layers_of, states_of
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.core.files import as_path, atomic_write_bytes, atomic_write_text
from vlmattn.core.images import Picture
from vlmattn.core.provenance import Provenance, ranges
from vlmattn.core.videos import Video, Visual
from vlmattn.display import Told, image, panel, preformatted

if TYPE_CHECKING:
    from PIL import Image

    from vlmattn.api.run import Run
    from vlmattn.core.layout import ImageLayout
    from vlmattn.sinks import Sinks


@dataclass(frozen=True, eq=False)
class PatchWords(Told):
    """The likeliest tokens at every patch of one picture, layer by layer.

    Attributes:
        layers: of the states: 0 is what enters the first layer, n what leaves the last of n.
        ids: (L, K, top) tokens, the likeliest first. probabilities: the same shape, of the whole vocabulary.
        words: token ids to text. place: (K, 3) tile, row and column of each patch, in the order of the prompt.
        layout: the picture's tiles. picture: the picture. provenance: how it was made.
        sinks: (K,) whether a patch is a known visual sink, where that is known: what such patches say is mostly junk.
    """

    layers: tuple[int, ...]
    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    words: dict[int, str]
    place: NDArray[np.int32]
    layout: ImageLayout
    picture: Visual
    provenance: Provenance = field(default_factory=Provenance)
    sinks: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.layers), len(self.place))
        if self.ids.ndim != 3 or self.ids.shape[:2] != shape or self.ids.shape != self.probabilities.shape:
            raise SpecError(
                f"ids and probabilities must be (L, K, top) = {(*shape, 'top')}, got {self.ids.shape} and "
                f"{self.probabilities.shape}"
            )

    def slot(self, layer: int) -> int:
        """Where a layer stands in ``layers``. Raises SpecError if it was not read."""
        if layer == -1:
            return len(self.layers) - 1
        if layer not in self.layers:
            raise SpecError(f"layer {layer} was not read; there are {ranges(self.layers)}")
        return self.layers.index(layer)

    def at(self, row: int, col: int, *, tile: int = 0, layer: int = -1) -> list[tuple[str, float]]:
        """(word, probability) of one patch, the likeliest first; ``layer`` -1 is the last that was read.

        Raises:
            SpecError: no such patch or layer.
        """
        found = np.flatnonzero((self.place == (tile, row, col)).all(axis=1))
        if not len(found):
            raise SpecError(f"there is no patch in row {row}, column {col} of tile {tile}")
        slot, patch = self.slot(layer), int(found[0])
        pairs = zip(self.ids[slot, patch], self.probabilities[slot, patch], strict=True)
        return [(self.words[int(i)], float(p)) for i, p in pairs]

    def common(self, layer: int = -1, most: int = 8) -> list[tuple[str, int]]:
        """The words that most patches say first, with how many do; known sinks are left out."""
        kept = np.ones(len(self.place), dtype=np.bool_) if self.sinks is None else ~self.sinks
        said = Counter(self.words[int(i)] for i in self.ids[self.slot(layer)][kept, 0])
        return said.most_common(most)

    def draw(self, layer: int = -1) -> Image.Image:
        """The picture with each patch's likeliest word on it, of the view of the whole picture.

        Raises:
            SpecError: a video.
        """
        from vlmattn.overlay.words import CellWord, with_words

        if not isinstance(self.picture, Picture):
            raise SpecError("words are drawn on pictures, not on videos: read them with .at() or .to_dict()")
        kinds = [tile.kind for tile in self.layout.tiles]
        tile = next((n for n, kind in enumerate(kinds) if kind in ("base", "thumbnail")), 0)
        slot, cells = self.slot(layer), []
        for patch in np.flatnonzero(self.place[:, 0] == tile):
            box = self.layout.tiles[tile].cell_box(int(self.place[patch, 1]), int(self.place[patch, 2]))
            sink = self.sinks is not None and bool(self.sinks[patch])
            word = self.words[int(self.ids[slot, patch, 0])].strip() or "·"
            cells.append(CellWord(box, word, float(self.probabilities[slot, patch, 0]), sink))
        return with_words(self.picture.image, cells)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: per layer and patch its place and (word, probability) pairs."""
        sinks = [None] * len(self.place) if self.sinks is None else self.sinks.tolist()
        return {
            "layers": list(self.layers),
            "patches": [
                {"tile": int(t), "row": int(r), "col": int(c), "sink": sinks[n]}
                for n, (t, r, c) in enumerate(self.place)
            ],
            "words": [
                [[[self.words[int(i)], float(p)] for i, p in zip(ids, shares, strict=True)]
                 for ids, shares in zip(self.ids[slot], self.probabilities[slot], strict=True)]
                for slot in range(len(self.layers))
            ],
            "provenance": self.provenance.to_dict(),
        }  # fmt: skip

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """``layers`` (L,), ``ids`` and ``probabilities`` (L, K, top), ``words`` of the same shape, ``place`` (K, 3)."""
        words = np.vectorize(lambda i: self.words[int(i)], otypes=[np.str_])(self.ids)
        layers = np.asarray(self.layers)
        shares = self.probabilities
        return {"layers": layers, "ids": self.ids, "probabilities": shares, "words": words, "place": self.place}

    def save(self, path: str | Path, *, layer: int = -1) -> Path:
        """Write the picture of one layer (``.png``, ``.webp``, ``.jpg``), the arrays (``.npz``) or all (``.json``)."""
        from vlmattn.overlay.metadata import save_picture

        target = as_path(path)
        if target.suffix.lower() == ".json":
            atomic_write_text(target, json.dumps(self.to_dict(), ensure_ascii=False) + "\n")
        elif target.suffix.lower() == ".npz":
            stream = io.BytesIO()
            np.savez_compressed(stream, allow_pickle=False, **self.to_arrays())
            atomic_write_bytes(target, stream.getvalue())
        else:
            layer_said = self.layers[self.slot(layer)]
            save_picture(target, self.draw(layer), {"layer": layer_said, "provenance": self.provenance.to_dict()})
        return target

    def _repr_html_(self) -> str:
        last = self.layers[-1]
        if isinstance(self.picture, Video):
            return super()._repr_html_()
        drawn = image(self.draw(last), f"what every patch says after layer {last}", width=640)
        return panel(f"what patches say, states of layer {last}", drawn, preformatted(self))

    def __str__(self) -> str:
        lines = [f"{len(self.place)} patches, states of layers {ranges(self.layers)}; first words of most patches:"]
        for layer in self.layers:
            said = ", ".join(f"{word!r} {count}" for word, count in self.common(layer))
            lines.append(f"  layer {layer}: {said}")
        if self.sinks is not None and self.sinks.any():
            lines.append(
                f"  {int(self.sinks.sum())} patches are attention sinks, whose words are mostly junk: not counted"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<PatchWords {len(self.place)} patches, layers {ranges(self.layers)}, top {self.ids.shape[2]}>"


def patch_words(run: Run, layer: Any, *, top: int, image: int, sinks: Sinks | None) -> PatchWords:
    """See :meth:`vlmattn.Run.patch_words`."""
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise SpecError(f"top must be a whole number, at least 1, got {top!r}")
    if image not in range(len(run.pictures)):
        raise SpecError(f"picture {image} does not exist; there are {len(run.pictures)}")
    layers, layout = layers_of(run, layer), run.trace.layout
    at = image_at(layout, image)
    passed = states_of(run, layers, at)
    read = [passed.readout.words(passed.states[n], top=top) for n in layers]
    ids = np.stack([one.top_ids.numpy() for one in read])
    shares = np.stack([one.top.numpy() for one in read])
    if not np.isfinite(shares).all():
        raise CaptureError("the logit lens gives NaN: the weights are damaged, or load with dtype='float32'")
    decode = run.vlm.adapter.tokenizer.decode
    words = {int(i): str(decode([int(i)])) for i in np.unique(ids)}
    place = np.stack([layout.tile[at], layout.row[at], layout.col[at]], axis=1)
    told = f"logit lens, top {top}, states of layers {ranges(layers)} of 0-{depth_of(run)}"
    provenance = run.trace.provenance.then(told, method="logit_lens", convention="", rows="", heads="")
    known = run._known_sinks if sinks is None else sinks
    marked = None if known is None else np.isin(at, [token.position for token in known.visual])
    seen = run.pictures[image]
    return PatchWords(tuple(layers), ids, shares, words, place, layout.images[image], seen, provenance, marked)
