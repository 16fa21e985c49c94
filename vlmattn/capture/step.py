"""Which rows and columns one forward pass of the decoder holds, worked out once and shared by all its layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture.rows import RowIndex
from vlmattn.capture.sites import AttentionSite
from vlmattn.capture.spec import CaptureSpec
from vlmattn.core.errors import CaptureError
from vlmattn.core.layout import TokenKind, TokenLayout


@dataclass(frozen=True)
class KeptPart:
    """Some kept rows of one forward pass.

    Attributes:
        index: rows of this call, see :data:`~vlmattn.capture.rows.RowIndex`.
        positions: (B, R) padded positions; -1 marks the filler rows of a ragged batch.
    """

    index: RowIndex
    positions: NDArray[np.int64]

    def split(self, size: int) -> Iterator[KeptPart]:
        """The same rows in parts of at most ``size``."""
        count = self.positions.shape[1]
        if count <= size:
            yield self
            return
        for first in range(0, count, size):
            last = min(first + size, count)
            if isinstance(self.index, slice):
                index: RowIndex = slice(self.index.start + first, self.index.start + last)
            else:
                index = self.index[..., first:last]
            yield KeptPart(index, self.positions[:, first:last])


@dataclass
class Step:
    """One forward pass of the decoder.

    Attributes:
        start, count: padded position of the first query, and number of queries.
        batch: sequences in the pass, beams and samples included.
        kept: the rows to keep, or None.
        begins: whether a run begins with it.
        first_columns: padded position of key column 0, per layer where it is not 0. Columns go on from there without
            a gap, but for tokens of the answer that :func:`keeps_prompt` names.
        memory: padded position of the first token of the sequence: keys beside it come first.
        told: whether its logits were taken.
    """

    start: int
    count: int
    batch: int
    kept: KeptPart | None
    begins: bool = False
    first_columns: dict[int, int] = field(default_factory=dict)
    memory: int = 0
    told: bool = False

    @property
    def is_prefill(self) -> bool:
        """Whether the pass starts at the beginning of the sequence."""
        return self.start == self.memory


class BatchPlan:
    """Rows and columns wanted of a batch, in padded positions.

    Keys beside the decoder's own tokens come first, those of each sequence padded on the right to the longest; then
    padding and tokens. ``pad_left`` is what is added to the position of a token in its layout.

    Args:
        spec: what to keep. layouts, pad_left: one entry per sequence as encoded.
        batch: sequences that really run, a multiple of ``len(layouts)`` (beams, samples).

    ``beside`` is the padded position of the first key that cross attention looks at, if it looks at any.

    Raises:
        CaptureError: the batch is not a multiple of the encoded sequences.
    """

    def __init__(self, spec: CaptureSpec | None, layouts: Sequence[TokenLayout], pad_left: Sequence[int], batch: int):
        if batch % len(layouts):
            raise CaptureError(
                f"the model ran {batch} sequences, not a multiple of the {len(layouts)} that were encoded"
            )
        copies = batch // len(layouts)
        self.spec = spec
        self.layouts = tuple(layout for layout in layouts for _ in range(copies))
        self.memory = max(layout.memory for layout in layouts)
        self.beside = self._beside(layouts)
        pads = [pad + self.memory - layout.memory for pad, layout in zip(pad_left, layouts, strict=True)]
        self.pad_left = tuple(pad for pad in pads for _ in range(copies))
        self.copies = copies
        self.prompt_end = max(p + lay.answer_start for p, lay in zip(self.pad_left, self.layouts, strict=True))
        self.end = max(p + len(lay) for p, lay in zip(self.pad_left, self.layouts, strict=True))
        self._first = min(p + lay.memory for p, lay in zip(self.pad_left, self.layouts, strict=True))
        self.given = any(len(lay) > lay.answer_start for lay in self.layouts)
        self._aligned = len({p + lay.answer_start for p, lay in zip(self.pad_left, self.layouts, strict=True)}) == 1
        self._rows = [self._wanted(lay, pad) for lay, pad in zip(self.layouts, self.pad_left, strict=True)]
        self._open = bool(spec and spec.answer_rows())

    @staticmethod
    def _beside(layouts: Sequence[TokenLayout]) -> int:
        # Padded position of the first key that cross attention looks at.
        firsts = {layout.resampled for layout in layouts if layout.beside}
        if len(firsts) > 1:
            raise CaptureError(
                f"the sequences of a batch have {sorted(firsts)} keys of a resampler before those of cross attention: "
                "run them one after the other"
            )
        return firsts.pop() if firsts else 0

    def padded(self, item: int) -> NDArray[np.int64]:
        """(N,) padded position of every token of a line of the batch."""
        layout = self.layouts[item]
        positions = np.arange(len(layout)) + self.pad_left[item]
        positions[: layout.memory] = np.arange(layout.memory)
        return positions

    def _wanted(self, layout: TokenLayout, pad: int) -> NDArray[np.int64]:
        if self.spec is None:
            return np.empty(0, dtype=np.int64)
        rows = self.spec.prompt_positions(layout)
        if self.spec.answer_rows():
            rows = np.union1d(rows, self._answer_rows(layout))
        return rows + pad

    def _answer_rows(self, layout: TokenLayout) -> NDArray[np.int64]:
        # Rows of an answer that is already in the input. While generating, rows at or after the end of the prompt
        # are taken as they come; only the row that predicts the first token lies inside the prompt.
        first = layout.answer_start - (0 if self.spec and self.spec.convention == "query" else 1)
        last = len(layout) - (0 if self.spec and self.spec.convention == "query" else 1)
        if len(layout) == layout.answer_start:
            last = layout.answer_start
        return np.arange(first, last, dtype=np.int64)

    def check_start(self, start: int) -> None:
        """Refuse a run that begins at padded position ``start``, behind something that is wanted.

        Raises:
            CaptureError: a row, or the hidden states, of tokens that a cache already holds.
        """
        if self.spec is None or start <= self.memory:
            return
        missed = sorted({int(row) for rows in self._rows for row in rows[rows < start]})
        what = f"rows at positions {missed[:8]}" if missed else "hidden states of the prompt"
        if missed or (self.spec.hidden and start > self._first):
            raise CaptureError(
                f"{what} are wanted, but the first {start - self.memory} tokens are in the cache already and do not "
                "run: run them inside the capture (without past_key_values), or choose other rows="
            )

    def rows_kept(self, new_tokens: int) -> int:
        """Rows that a run will keep, fillers of a ragged batch included; the last new token never runs."""
        inside = max((len(rows) for rows in self._rows), default=0)
        return inside + (max(new_tokens - 1, 0) if self._open and not self.given else 0)

    def kept(self, start: int, count: int, device: torch.device) -> KeptPart | None:
        """The rows to keep of queries [start, start + count).

        Raises:
            CaptureError: rows of the answer are wanted, and the model does not write one token per pass.
        """
        if start + count > self.end and self._open:
            if self.given or count > 1:
                raise CaptureError(
                    f"a pass over positions {start} to {start + count - 1} reaches beyond the {self.end} encoded: "
                    "answer rows need generation with a cache, one token per pass (use_cache=True, no assistant or "
                    "prompt lookup), or layouts that hold the whole answer"
                )
            if not self._aligned:
                raise CaptureError("prompts of different length must be padded on the left to generate from them")
            return KeptPart(slice(0, 1), np.full((len(self.layouts), 1), start, dtype=np.int64))
        if count == 1 and start >= self.end:
            return None
        wanted = [rows[(rows >= start) & (rows < start + count)] for rows in self._rows]
        width = max((len(rows) for rows in wanted), default=0)
        if not width:
            return None
        positions = np.full((len(wanted), width), -1, dtype=np.int64)
        for line, rows in zip(positions, wanted, strict=True):
            line[: len(rows)] = rows
        return KeptPart(_row_index(positions, start, device), positions)


def _row_index(positions: NDArray[np.int64], start: int, device: torch.device) -> RowIndex:
    first = positions[0]
    if (positions == first).all() and (first >= 0).all():
        local = first - start
        if (np.diff(local) == 1).all():
            return slice(int(local[0]), int(local[-1]) + 1)
        return torch.as_tensor(local, device=device)
    return torch.as_tensor(np.maximum(positions - start, 0), device=device)


def key_parts(
    rows: torch.Tensor, site: AttentionSite, first_column: int, memory: int
) -> Iterator[tuple[torch.Tensor, int]]:
    """(…, K) rows of a layer in parts whose columns stand side by side, each with the padded position of its first.

    Args:
        first_column: of the first key. memory: how many keys beside the tokens there are.
    """
    if site.kind != "merged":
        yield rows, first_column
        return
    own = rows.shape[-1] - memory
    yield rows[..., own:], 0
    yield rows[..., :own], first_column


class KeptColumns:
    """The key columns to keep and the segments to sum, in padded positions."""

    def __init__(self, spec: CaptureSpec, plan: BatchPlan) -> None:
        self.positions = [self._columns(spec, layout) for layout in plan.layouts]
        self.per_item = [plan.padded(item)[columns] for item, columns in enumerate(self.positions)]
        self.width = max(len(c) for c in self.per_item)
        self.first = min((int(c[0]) for c in self.per_item if len(c)), default=0)
        self.segments = max((lay.segments() for lay in plan.layouts), key=len)
        self._index = np.full((len(self.per_item), self.width), -1, dtype=np.int64)
        for line, columns in zip(self._index, self.per_item, strict=True):
            line[: len(columns)] = columns
        self._same = bool((self._index == self._index[0]).all()) and self.width > 0
        run = self._same and bool((np.diff(self._index[0]) == 1).all())
        self._span = (int(self._index[0, 0]), int(self._index[0, -1]) + 1) if run else None
        self._matrix = self._segment_matrix(plan)
        self._on_device: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    @staticmethod
    def _columns(spec: CaptureSpec, layout: TokenLayout) -> NDArray[np.int64]:
        latents = layout.latent_positions
        if spec.columns == "all":
            return np.arange(layout.resampled, layout.answer_start)
        return latents if len(latents) else layout.image_positions

    def _segment_matrix(self, plan: BatchPlan) -> NDArray[np.float32]:
        length = max(pad + len(lay) for lay, pad in zip(plan.layouts, plan.pad_left, strict=True))
        matrix = np.zeros((len(plan.layouts), length, len(self.segments)), dtype=np.float32)
        for item, (one, layout, pad) in enumerate(zip(matrix, plan.layouts, plan.pad_left, strict=True)):
            names = layout.segments()
            lut = np.array([self.segments.index(name) for name in names])
            one[plan.padded(item), lut[layout.segment_ids()]] = 1.0
            one[pad + len(layout) :, self.segments.index("answer")] = 1.0
        return matrix[:1] if (matrix == matrix[:1]).all() else matrix

    def _tensors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if device not in self._on_device:
            index = torch.as_tensor(self._index, device=device)
            self._on_device[device] = (index, torch.as_tensor(self._matrix, device=device))
        return self._on_device[device]

    def pick(self, rows: torch.Tensor, first_column: int) -> torch.Tensor:
        """The kept columns of (B, H, R, K) rows: (B, H, R, width); 0 where a column is not among the keys."""
        keys = rows.shape[-1]
        if self._span is not None and first_column <= self._span[0] and self._span[1] - first_column <= keys:
            return rows[..., self._span[0] - first_column : self._span[1] - first_column]
        index = self._tensors(rows.device)[0] - first_column
        inside = (index >= 0) & (index < keys)
        index = index.clamp(0, keys - 1)
        if self._same:
            return rows.index_select(-1, index[0]) * inside[0]
        shape = (*rows.shape[:-1], self.width)
        return rows.gather(-1, index[:, None, None, :].expand(shape)) * inside[:, None, None, :]

    def between(self, start: int, end: int, device: torch.device) -> torch.Tensor:
        """(B, width) bool: the kept columns at padded positions [start, end)."""
        index = self._tensors(device)[0]
        return (index >= start) & (index < end)

    def masses(self, rows: torch.Tensor, first_column: int) -> torch.Tensor:
        """Total of (B, H, R, K) rows on each segment: (B, H, R, S)."""
        matrix = self._tensors(rows.device)[1]
        known = max(min(matrix.shape[1] - first_column, rows.shape[-1]), 0)
        batch, heads, count, _ = rows.shape
        part = matrix[:, first_column : first_column + known]  # (B | 1, known, S), the same for every head
        flat = rows[..., :known].reshape(batch, heads * count, known)
        masses = torch.bmm(flat, part.expand(batch, -1, -1)).view(batch, heads, count, -1)
        if known < rows.shape[-1]:
            masses[..., self.segments.index("answer")] += rows[..., known:].sum(-1)
        return masses


def keeps_prompt(cache: Any, layer_idx: int) -> bool:
    """Whether a cache keeps the prompt in front of a window over the answer: key column 0 stays where it was.

    The oldest tokens of the answer are left out between the two; of the answer, only kinds and masses are known.
    """
    layers = getattr(cache, "layers", ())
    return layer_idx < len(layers) and getattr(layers[layer_idx], "prefill_length", None) is not None


def column_kinds(plan: BatchPlan, first_column: int, keys: int, end: int, device: torch.device) -> torch.Tensor:
    """(B, keys) int8 kinds of the key columns, IMAGE for a resampler's queries; -1 for padding and for columns from
    padded position ``end`` on, ANSWER for tokens written since."""
    kinds = np.full((len(plan.layouts), first_column + keys), -1, dtype=np.int8)
    for item, (line, layout, pad) in enumerate(zip(kinds, plan.layouts, plan.pad_left, strict=True)):
        where = plan.padded(item)
        inside = where < len(line)
        line[where[inside]] = layout.kinds[inside]
        line[pad + len(layout) :] = TokenKind.ANSWER
    kinds[kinds == TokenKind.LATENT] = TokenKind.IMAGE
    kinds[:, end:] = -1
    return torch.as_tensor(kinds[:, first_column:], device=device)
