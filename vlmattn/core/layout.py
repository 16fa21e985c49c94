"""Which token is what, and where in the user's picture each image token sits.

Coordinates: origin at the top-left corner of the top-left pixel of the *upright* picture (EXIF rotation applied),
x right, y down, box ends exclusive. Token positions count from the first real token of a sequence; left padding of a
batch is not part of a layout (see ``Encoded.pad_left``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import LayoutError

TileKind = Literal["base", "tiles", "crop", "thumbnail"]
Box = tuple[float, float, float, float]
Spans = tuple[tuple[float, float], ...]


class TokenKind(IntEnum):
    """What one token of a sequence is."""

    BOS = 0
    SYSTEM = 1  # template and system text: everything that is none of the others
    IMAGE = 2  # an image token that has a place on a grid
    SEPARATOR = 3  # newline and other image tokens without a place
    QUESTION = 4  # text the user wrote
    ANSWER = 5  # text the model wrote
    LATENT = 6  # an image token that stands for the whole view: a query of a resampler, which looks at the patches


_OF_PICTURES = (TokenKind.IMAGE, TokenKind.LATENT)


@dataclass(frozen=True)
class Tile:
    """One view of a picture that the model got, as a grid of patches of one size.

    The cells divide the box evenly, unless ``row_spans`` or ``col_spans`` say where each of them lies.

    Attributes:
        kind: ``base`` (whole picture, resized), ``tiles`` (any-resolution grid, stitched), ``crop``, ``thumbnail``.
        grid_hw: rows and columns of image tokens.
        source_box_xyxy: what the outer edges of the *grid* span in original pixels. It may reach beyond the picture
            (padding) or leave a part of it out (centre crop, pixels dropped by the patch embedding).
        row_spans, col_spans: top and bottom of every row, left and right of every column, in original pixels:
            ascending, from edge to edge of the box. What lies between two of them was dropped by the patch embedding
            at the end of a stitched tile: no cell holds it. Their lengths differ where such a grid was shrunk. None
            where the cells divide the box evenly.
        lost: (row, col) of cells whose token the model throws away before its language model: no token stands for
            them, and they are never seen.
        frames: of a video, the frames that this grid stands for, counted from 0: one, or several that the vision tower
            merges, which then cannot be told apart. Empty for pictures.
    """

    kind: TileKind
    grid_hw: tuple[int, int]
    source_box_xyxy: Box
    row_spans: Spans | None = None
    col_spans: Spans | None = None
    lost: tuple[tuple[int, int], ...] = ()
    frames: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        rows, cols = self.grid_hw
        x0, y0, x1, y1 = self.source_box_xyxy
        if rows < 1 or cols < 1:
            raise LayoutError(f"grid_hw must be (rows >= 1, cols >= 1), got {self.grid_hw}")
        if not (x1 > x0 and y1 > y0):
            raise LayoutError(f"source_box_xyxy must have positive width and height, got {self.source_box_xyxy}")
        _check_spans("row_spans", self.row_spans, rows, (y0, y1))
        _check_spans("col_spans", self.col_spans, cols, (x0, x1))
        if len(set(self.lost)) < len(self.lost) or any(not (0 <= r < rows and 0 <= c < cols) for r, c in self.lost):
            raise LayoutError(f"lost must be different cells of the grid of {rows} x {cols}, got {self.lost}")

    @property
    def cells(self) -> int:
        """Number of image tokens of this tile: rows × cols, without lost ones."""
        return self.grid_hw[0] * self.grid_hw[1] - len(self.lost)

    @property
    def held(self) -> NDArray[np.bool_]:
        """(rows, cols) False for lost cells."""
        grid = np.ones(self.grid_hw, dtype=np.bool_)
        for row, col in self.lost:
            grid[row, col] = False
        return grid

    def cell_box(self, row: int, col: int) -> Box:
        """The box of one cell in original pixels, (x0, y0, x1, y1)."""
        rows, cols = self.grid_hw
        if not (0 <= row < rows and 0 <= col < cols):
            raise LayoutError(f"cell ({row}, {col}) is outside the grid of {rows} rows x {cols} columns")
        x0, y0, x1, y1 = self.source_box_xyxy
        w, h = (x1 - x0) / cols, (y1 - y0) / rows
        left, right = self.col_spans[col] if self.col_spans else (x0 + col * w, x0 + (col + 1) * w)
        top, bottom = self.row_spans[row] if self.row_spans else (y0 + row * h, y0 + (row + 1) * h)
        return left, top, right, bottom


def _check_spans(name: str, spans: Spans | None, count: int, outer: tuple[float, float]) -> None:
    """Raises LayoutError unless the spans are ``count`` cells of positive length, in order, from edge to edge."""
    if spans is None:
        return
    array = np.asarray(spans, dtype=np.float64)
    if array.shape != (count, 2):
        raise LayoutError(f"{name} must have one (start, end) per cell, shape ({count}, 2), got {array.shape}")
    length = array[:, 1] - array[:, 0]
    slack = 1e-9 * max(1.0, *(abs(edge) for edge in outer))
    if not (np.isfinite(array).all() and (length > 0).all()):
        raise LayoutError(f"{name} must all have a positive length, got {length.min():.6g} to {length.max():.6g}")
    if (array[1:, 0] < array[:-1, 1] - slack).any():
        raise LayoutError(f"{name} must be ascending and not overlap, got {spans}")
    if abs(array[0, 0] - outer[0]) > slack or abs(array[-1, 1] - outer[1]) > slack:
        raise LayoutError(
            f"{name} must reach from edge to edge of source_box_xyxy, {outer}, got {(spans[0][0], spans[-1][1])}"
        )


@dataclass(frozen=True)
class ImageLayout:
    """All tiles of one picture, or of all frames of a video, in the order of their tokens.

    Attributes:
        image_wh: width and height of the upright original (of a video: of each frame), in pixels.
        tiles: what the language model gets of it.
        views: how many views of it the vision tower gets; None where that is not known. It is no part of where things
            are, so layouts that differ in it alone are equal.
        times: of a video, the second of each of its frames; empty for a picture.
    """

    image_wh: tuple[int, int]
    tiles: tuple[Tile, ...]
    views: int | None = field(default=None, compare=False)
    times: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        held = {frame for tile in self.tiles for frame in tile.frames}
        if not held <= set(range(len(self.times))) or (self.times and not all(t.frames for t in self.tiles)):
            raise LayoutError(f"the tiles stand for frames {sorted(held)}, but there are times of {len(self.times)}")

    def of_frame(self, frame: int) -> tuple[int, ...]:
        """Indices of the tiles that stand for one frame of a video."""
        return tuple(index for index, tile in enumerate(self.tiles) if frame in tile.frames)

    @property
    def slices(self) -> tuple[tuple[int, ...], ...]:
        """Groups of a video's frames that have their grids in common, in order: what can be told apart in time."""
        return tuple(dict.fromkeys(tile.frames for tile in self.tiles if tile.frames))

    @property
    def cells(self) -> int:
        """Number of image tokens with a place, over all tiles."""
        return sum(t.cells for t in self.tiles)


@dataclass(frozen=True)
class TokenLayout:
    """What every token of one sequence is. Arrays have one entry per token, N in all.

    Attributes:
        text: the rendered prompt (chat template applied, one placeholder per picture) followed by the answer so far.
        input_ids: (N,) int64, image placeholders expanded.
        kinds: (N,) int8, values of :class:`TokenKind`.
        image: (N,) int32, index of the picture for IMAGE and SEPARATOR tokens that belong to one, else -1.
        tile, row, col: (N,) int32, place of IMAGE tokens, else -1. ``tile`` indexes ``images[image].tiles``.
        char_span: (N, 2) int32, [start, end) in ``text`` that the token covers; (-1, -1) for image tokens and tokens
            without text. A character spread over several byte tokens is covered by each of them.
        question_span: [start, end) in ``text`` of what the user asked.
        answer_start: position of the first answer token; N while there is no answer.
        images: one :class:`ImageLayout` per picture or video, in the order in which they were given.
        placeholders: [start, end) in ``text`` of the placeholder of each picture and video; they are nobody's words,
            though they may stand inside the question.
        memory: how many of the first tokens are keys beside the decoder's own tokens: states of the vision tower or of
            an encoder. They have no rows; their ``input_ids`` are -1 where no text stands behind them. 0 for models
            that read pictures as tokens of the prompt.
        resampled: how many of the first of these keys no layer of the decoder looks at: those of a resampler, whose
            queries are the LATENT tokens, in the prompt or beside it. Attention to them is attention to the queries
            times the queries' own. Cross attention looks at the rest of ``memory``.
    """

    text: str
    input_ids: NDArray[np.int64]
    kinds: NDArray[np.int8]
    image: NDArray[np.int32]
    tile: NDArray[np.int32]
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    char_span: NDArray[np.int32]
    question_span: tuple[int, int]
    answer_start: int
    images: tuple[ImageLayout, ...]
    placeholders: tuple[tuple[int, int], ...] = ()
    memory: int = 0
    resampled: int = 0

    def __post_init__(self) -> None:
        n = len(self.input_ids)
        if not 0 <= self.memory <= self.answer_start:
            raise LayoutError(f"memory must be 0 to answer_start = {self.answer_start}, got {self.memory}")
        if not 0 <= self.resampled <= self.memory:
            raise LayoutError(f"resampled must be 0 to memory = {self.memory}, got {self.resampled}")
        for name in ("kinds", "image", "tile", "row", "col"):
            if getattr(self, name).shape != (n,):
                raise LayoutError(f"{name} must have shape (N,) = ({n},), got {getattr(self, name).shape}")
        if self.char_span.shape != (n, 2):
            raise LayoutError(f"char_span must have shape (N, 2) = ({n}, 2), got {self.char_span.shape}")
        for index, picture in enumerate(self.images):
            placed = int(((self.image == index) & (self.kinds == TokenKind.IMAGE)).sum())
            if placed != picture.cells:
                raise LayoutError(
                    f"picture {index} has {placed} image tokens in the prompt but its grids have {picture.cells} cells"
                )

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def image_positions(self) -> NDArray[np.int64]:
        """Positions of all IMAGE tokens of all pictures, ascending."""
        return np.flatnonzero(self.kinds == TokenKind.IMAGE)

    @property
    def latent_positions(self) -> NDArray[np.int64]:
        """Positions of all LATENT tokens of all pictures, ascending."""
        return np.flatnonzero(self.kinds == TokenKind.LATENT)

    @property
    def beside(self) -> int:
        """How many keys beside the decoder's own tokens its cross attention looks at."""
        return self.memory - self.resampled

    @property
    def image_end(self) -> int:
        """The position after the last image token of any picture, and not before that of the first token."""
        placed = np.flatnonzero(np.isin(self.kinds, _OF_PICTURES))
        return max(int(placed[-1]) + 1 if len(placed) else 0, self.memory)

    def segments(self) -> tuple[str, ...]:
        """Names of the segments whose masses sum to one: bos, system, image:0 …, separator, question, answer."""
        pictures = tuple(f"image:{i}" for i in range(len(self.images)))
        return ("bos", "system", *pictures, "separator", "question", "answer")

    def segment_ids(self) -> NDArray[np.int64]:
        """(N,) index into :meth:`segments` of every token."""
        count = len(self.images)
        lut = {TokenKind.BOS: 0, TokenKind.SYSTEM: 1, TokenKind.SEPARATOR: 2 + count}
        lut |= {TokenKind.QUESTION: 3 + count, TokenKind.ANSWER: 4 + count}
        ids = np.where(np.isin(self.kinds, _OF_PICTURES), 2 + self.image, 0)
        for kind, index in lut.items():
            ids = np.where(self.kinds == kind, index, ids)
        return ids.astype(np.int64)


def extend_layout(
    layout: TokenLayout, token_ids: NDArray[np.int64], text: str, char_span: NDArray[np.int32]
) -> TokenLayout:
    """The layout with M answer tokens appended.

    Args:
        layout: N tokens.
        token_ids: (M,) ids of the answer tokens.
        text: the answer's text, appended to ``layout.text``.
        char_span: (M, 2) spans within ``text``; (-1, -1) for tokens without text.
    """
    m = len(token_ids)
    none = np.full(m, -1, dtype=np.int32)
    shifted = np.where(char_span < 0, -1, char_span + len(layout.text)).astype(np.int32).reshape(m, 2)
    return TokenLayout(
        text=layout.text + text,
        input_ids=np.concatenate([layout.input_ids, np.asarray(token_ids, dtype=np.int64)]),
        kinds=np.concatenate([layout.kinds, np.full(m, TokenKind.ANSWER, dtype=np.int8)]),
        image=np.concatenate([layout.image, none]),
        tile=np.concatenate([layout.tile, none]),
        row=np.concatenate([layout.row, none]),
        col=np.concatenate([layout.col, none]),
        char_span=np.concatenate([layout.char_span, shifted]),
        question_span=layout.question_span,
        answer_start=min(layout.answer_start, len(layout)),
        images=layout.images,
        placeholders=layout.placeholders,
        memory=layout.memory,
        resampled=layout.resampled,
    )


def memory_layout(
    layout: TokenLayout,
    place: NDArray[np.int32],
    image: NDArray[np.int32],
    images: tuple[ImageLayout, ...],
    queries: NDArray[np.int32] | None = None,
) -> TokenLayout:
    """The layout with V keys beside the prompt put before it, which cross attention or a resampler looks at.

    Args:
        layout: the prompt, without image tokens that have a place.
        place: (V, 3) tile, row and column of each key, -1 for keys without a place. image: (V,) picture of each key, -1
            for none. images: the pictures' tiles.
        queries: (U,) picture of each query of a resampler, -1 for none, where these stand beside the prompt, too; after
            the V keys, which they look at.
    """
    latent, queries = TokenKind.LATENT, np.zeros(0, dtype=np.int32) if queries is None else queries
    resampled = len(place) if len(queries) or (layout.kinds == latent).any() else 0
    count = len(place) + len(queries)
    none = np.full(count, -1, dtype=np.int32)
    kinds = np.where(place[:, 0] >= 0, TokenKind.IMAGE, TokenKind.SEPARATOR).astype(np.int8)
    kinds = np.concatenate([kinds, np.where(queries >= 0, latent, TokenKind.SEPARATOR).astype(np.int8)])
    place = np.concatenate([place, np.full((len(queries), 3), -1, dtype=np.int32)])
    image = np.concatenate([image, queries])
    return TokenLayout(
        text=layout.text,
        input_ids=np.concatenate([none.astype(np.int64), layout.input_ids]),
        kinds=np.concatenate([kinds, layout.kinds]),
        image=np.concatenate([image.astype(np.int32), layout.image]),
        tile=np.concatenate([place[:, 0], layout.tile]),
        row=np.concatenate([place[:, 1], layout.row]),
        col=np.concatenate([place[:, 2], layout.col]),
        char_span=np.concatenate([np.full((count, 2), -1, dtype=np.int32), layout.char_span]),
        question_span=layout.question_span,
        answer_start=layout.answer_start + count,
        images=images,
        placeholders=layout.placeholders,
        memory=count,
        resampled=resampled,
    )


def decoder_layout(layout: TokenLayout, start_ids: NDArray[np.int64]) -> TokenLayout:
    """The layout of an encoder-decoder model: the whole prompt is read by the encoder, and stands beside the decoder.

    Args:
        layout: what the encoder reads. start_ids: (M,) tokens that the decoder begins with, before its answer.
    """
    count = len(layout)
    longer = extend_layout(layout, start_ids, "", np.full((len(start_ids), 2), -1, dtype=np.int32))
    kinds = np.concatenate([layout.kinds, np.full(len(start_ids), TokenKind.SYSTEM, dtype=np.int8)])
    return replace(longer, kinds=kinds, memory=count, answer_start=len(longer))


def plain_layout(input_ids: NDArray[np.int64], image_positions: NDArray[np.int64] | None = None) -> TokenLayout:
    """A layout for token ids alone: BOS, then one row of image cells if positions are given, then QUESTION tokens.

    For models run without an adapter (text decoders, hand-made inputs): everything is kept by position, nothing knows
    a picture.

    Args:
        input_ids: (N,) ids without padding.
        image_positions: (K,) positions that count as image tokens.
    """
    n = len(input_ids)
    none = np.full(n, -1, dtype=np.int32)
    kinds = np.full(n, TokenKind.QUESTION, dtype=np.int8)
    kinds[:1] = TokenKind.BOS
    image, tile, row, col = none.copy(), none.copy(), none.copy(), none.copy()
    images: tuple[ImageLayout, ...] = ()
    if image_positions is not None and len(image_positions):
        kinds[image_positions] = TokenKind.IMAGE
        image[image_positions] = tile[image_positions] = row[image_positions] = 0
        col[image_positions] = np.arange(len(image_positions))
        wide = (float(len(image_positions)), 1.0)
        images = (ImageLayout((len(image_positions), 1), (Tile("base", (1, len(image_positions)), (0, 0, *wide)),)),)
    spans = np.full((n, 2), -1, dtype=np.int32)
    ids = np.asarray(input_ids, dtype=np.int64)
    return TokenLayout("", ids, kinds, image, tile, row, col, spans, (0, 0), n, images)
