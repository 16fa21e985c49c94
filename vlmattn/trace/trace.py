"""What one capture kept, as plain arrays with provenance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core import words as _words
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.core.provenance import Provenance
from vlmattn.core.words import Part, Span

if TYPE_CHECKING:
    from vlmattn.capture.kept import KeptRows

Convention = Literal["predicting", "query"]
_REDUCE: dict[str, Callable[..., NDArray[Any]]] = {"mean": np.mean, "max": np.max}


@dataclass(frozen=True)
class TokenScores:
    """Next-token statistics of the T answer tokens, from the model's own logits, natural logarithms.

    Attributes:
        entropy_t: (T,) nats. top_ids_tk, top_logp_tk: (T, k) candidates, most likely first.
        chosen_logp_t: (T,) log-probability of the written token; NaN where it is not known.
    """

    entropy_t: NDArray[np.float32]
    top_ids_tk: NDArray[np.int64]
    top_logp_tk: NDArray[np.float32]
    chosen_logp_t: NDArray[np.float32]


@dataclass(frozen=True)
class Hidden:
    """Residual stream at the input of L layers for N prompt tokens: root mean square, largest |x| and its coordinate,
    and the values at C chosen coordinates (L, N, C).

    Attributes:
        width: how many coordinates there are; 0 where that is not known.
        top_coord_lnk, top_value_lnk, median_ln: the K largest coordinates of each token (L, N, K), their values, and
            the median |x| (L, N); None unless the capture was asked for them.
    """

    layers: tuple[int, ...]
    rms_ln: NDArray[np.float32]
    peak_ln: NDArray[np.float32]
    peak_coord_ln: NDArray[np.int64]
    coords: tuple[int, ...]
    coord_lnc: NDArray[np.float32]
    width: int = 0
    top_coord_lnk: NDArray[np.int64] | None = None
    top_value_lnk: NDArray[np.float32] | None = None
    median_ln: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Trace:
    """Attention rows of one sequence, and what else was kept with them.

    Axes: l layers (``layers``), h heads (``heads[l]``), q rows (``positions``), k columns (``columns``), s segments
    (``segments``). Positions count from the first token of the prompt, left padding removed.

    Attributes:
        layout: prompt and answer tokens.
        depth: layers of the model's decoder, kept or not; presets and negative layers count by it. 0 where it is not
            known: the last kept layer then counts as the model's last.
        attn_lhqk: attention on the kept columns, as the softmax gave it (not renormalised over the picture). Where
            layers keep different numbers of heads, lines of axis h from ``len(heads[l])`` on hold no head and are NaN:
            :meth:`over_heads` leaves them out.
        mass_lhqs: total attention on each segment, float32; NaN likewise.
        visible_lqk: whether the row can see the column at all. False where the column comes later than the row, where a
            layer's window has moved past it (:attr:`out_of_window_lqk` tells the two apart), or where a mask hides it.
            None if every kept row sees every kept column in every layer.
        value_norm_lhk, head_norm_lhq, hidden, scores, vision: None unless the capture was asked for them.
        blind: those of ``layers`` that look at no picture: self-attention layers of models that look at pictures by
            cross attention. Their image columns are 0, and maps leave them out.
        received_lhn: (L, H, N) what each of N prompt tokens receives from the prompt rows that see it, on average; None
            unless the capture was asked for it. H counts all of a layer's heads, kept or not.
        provenance: how the trace was made.
    """

    layout: TokenLayout
    layers: tuple[int, ...]
    heads: tuple[tuple[int | str, ...], ...]
    positions: NDArray[np.int64]
    columns: NDArray[np.int64]
    attn_lhqk: NDArray[Any]
    segments: tuple[str, ...]
    mass_lhqs: NDArray[np.float32]
    visible_lqk: NDArray[np.bool_] | None = None
    value_norm_lhk: NDArray[np.float32] | None = None
    head_norm_lhq: NDArray[np.float32] | None = None
    hidden: Hidden | None = None
    scores: TokenScores | None = None
    vision: NDArray[np.float32] | None = None
    provenance: Provenance = field(default_factory=Provenance)
    depth: int = 0
    blind: tuple[int, ...] = ()
    received_lhn: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        least = max(self.layers, default=-1) + 1
        if self.depth and self.depth < least:
            raise MapError(f"depth must be at least {least}, the number of layers up to the last, got {self.depth}")
        object.__setattr__(self, "depth", self.depth or least)
        shape = (len(self.layers), self.attn_lhqk.shape[1], len(self.positions), len(self.columns))
        if self.attn_lhqk.shape != shape:
            raise MapError(f"attn_lhqk must have shape (L, H, Q, K) = {shape}, got {self.attn_lhqk.shape}")
        want = (*shape[:3], len(self.segments))
        if self.mass_lhqs.shape != want:
            raise MapError(f"mass_lhqs must have shape (L, H, Q, S) = {want}, got {self.mass_lhqs.shape}")
        counts = [len(names) for names in self.heads]
        if len(counts) != shape[0] or not all(1 <= count <= shape[1] for count in counts):
            raise MapError(f"heads must name 1 to H = {shape[1]} heads for each of L = {shape[0]} layers, got {counts}")

    # -- text ----------------------------------------------------------------------------------------------------------

    @property
    def question(self) -> str:
        """The text the user wrote, without the placeholders of pictures."""
        return _words.part_text(self.layout, "question")

    @property
    def answer(self) -> str:
        """The text the model wrote (or was given)."""
        start, end = _words.part_span(self.layout, "answer")
        return self.layout.text[start:end].strip()

    @property
    def answer_tokens(self) -> tuple[int, ...]:
        """Positions of the answer tokens."""
        return tuple(range(self.layout.answer_start, len(self.layout)))

    def words(self, part: Part = "answer") -> tuple[Span, ...]:
        """All words of the question or the answer with their tokens."""
        return _words.words(self.layout, part)

    def find(
        self, what: str | int | Span | None = None, *, part: Part | None = None, occurrence: int | None = None
    ) -> Span:
        """The tokens of a word, a phrase, an answer token by number, or (None) the whole answer.

        Raises:
            WordNotFound: a word that does not occur; the error lists those that do.
            SpecError: a token number outside the answer.
        """
        if isinstance(what, Span):
            return what
        if what is None:
            return _words.whole(self.layout, part or "answer")
        if isinstance(what, str):
            return _words.find(self.layout, what, part=part, occurrence=occurrence)
        return self._token(int(what))

    def _token(self, number: int) -> Span:
        tokens = self.answer_tokens
        if not -len(tokens) <= number < len(tokens):
            raise SpecError(f"answer token {number} does not exist; the answer has {len(tokens)} tokens")
        position = tokens[number]
        start, end = (int(c) for c in self.layout.char_span[position])
        text = self.layout.text[start:end].strip() if start >= 0 else ""
        return Span(text or f"token {number % len(tokens)}", "answer", (start, end), (position,))

    # -- rows and columns ----------------------------------------------------------------------------------------------

    def rows_of(self, tokens: Sequence[int], convention: Convention | None = None) -> NDArray[np.int64]:
        """Indices on axis q of the rows that stand for ``tokens``.

        Args:
            tokens: positions. convention: see :meth:`convention_of`.

        Raises:
            MapError: a row was not kept; says which capture keeps it.
        """
        wanted = [t - 1 if self.convention_of(t, convention) == "predicting" else t for t in tokens]
        slots = {int(p): index for index, p in enumerate(self.positions)}
        missing = [p for p in wanted if p not in slots]
        if missing:
            if any(t < self.layout.memory for t in tokens):
                raise MapError(
                    "the question is read by the model's encoder, and the decoder that looks at the picture has no row "
                    "for its words: ask for a word of the answer"
                )
            if any(self._never_read(t, convention) for t in tokens):
                raise MapError(
                    "the last written token has no query row: the model wrote it and did not read it. Take its "
                    "predicting row (convention='predicting'), or give the answer back: ask(..., answer=...)"
                )
            raise MapError(
                f"the rows at positions {missing[:8]} were not kept (kept: {self._kept_range()}); capture with "
                "rows=('question', 'answer'), or 'prompt' for every prompt token"
            )
        return np.array([slots[p] for p in wanted], dtype=np.int64)

    def convention_of(self, token: int, convention: Convention | None = None) -> Convention:
        """Which row stands for ``token``: ``predicting`` is the row at *t* - 1, ``query`` the row at *t*.

        Without ``convention``, what the capture was told; without that, predicting rows for answer tokens and query
        rows for prompt tokens.
        """
        said = convention or self.provenance.convention
        if said:
            return "predicting" if said == "predicting" else "query"
        return "predicting" if token >= self.layout.answer_start else "query"

    def read_tokens(self, tokens: Sequence[int], convention: Convention | None = None) -> tuple[int, ...]:
        """``tokens`` without the last written one where its query row is asked for: the model never read it."""
        return tuple(t for t in tokens if not self._never_read(t, convention))

    def _never_read(self, token: int, convention: Convention | None) -> bool:
        last = token == len(self.layout) - 1 and token >= self.layout.answer_start
        return last and self.convention_of(token, convention) == "query" and token not in self.positions

    def image_columns(self, image: int = 0) -> NDArray[np.int64]:
        """Indices on axis k of the image tokens of a picture, in sequence order.

        Raises:
            SpecError: there is no such picture. MapError: the capture did not keep its columns.
        """
        if not 0 <= image < len(self.layout.images):
            raise SpecError(f"picture {image} does not exist; the prompt has {len(self.layout.images)}")
        wanted = np.flatnonzero((self.layout.kinds == TokenKind.IMAGE) & (self.layout.image == image))
        slots = np.searchsorted(self.columns, wanted)
        inside = slots < len(self.columns)
        if not inside.all() or not (self.columns[slots] == wanted).all():
            raise MapError(f"columns of picture {image} were not kept")
        return slots

    def layer_slots(self, layers: Sequence[int] | None = None) -> NDArray[np.int64]:
        """Indices on axis l of layer numbers; None for all kept layers.

        Raises:
            SpecError: a layer that was not kept.
        """
        if layers is None:
            return np.arange(len(self.layers))
        slots = {layer: index for index, layer in enumerate(self.layers)}
        missing = [layer for layer in layers if layer not in slots]
        if missing or not len(layers):
            raise SpecError(f"layers {missing or '(none)'} were not kept; kept are {list(self.layers)}")
        return np.array([slots[layer] for layer in layers], dtype=np.int64)

    def over_heads(
        self, values: NDArray[Any], layers: Sequence[int] | None = None, *, how: Literal["mean", "max"] = "mean"
    ) -> NDArray[Any]:
        """Values (L, H, …) with the kept heads of each layer made one: (L, …).

        Args:
            values: one line of axis h per kept head, as in ``attn_lhqk`` and ``mass_lhqs``. layers: layer numbers of
                axis l; None for all kept ones. how: ``mean`` or ``max``.

        Raises:
            SpecError: a layer that was not kept. MapError: another number of layers.
        """
        slots = self.layer_slots(layers)
        if len(values) != len(slots):
            raise MapError(f"values must have shape (L, H, …) with L = {len(slots)}, got {values.shape}")
        counts = [min(len(self.heads[slot]), values.shape[1]) for slot in slots]
        if min(counts) == values.shape[1]:
            return _REDUCE[how](values, axis=1)
        return np.stack([_REDUCE[how](one[:count], axis=0) for one, count in zip(values, counts, strict=True)])

    @property
    def seeing(self) -> tuple[int, ...]:
        """The kept layers that look at pictures: all but ``blind`` ones."""
        return tuple(layer for layer in self.layers if layer not in self.blind)

    @property
    def out_of_window_lqk(self) -> NDArray[np.bool_]:
        """(L, Q, K) True where a row cannot see a column although the column does not come later than the row: a
        layer's window has moved past it, or a mask hides it."""
        if self.visible_lqk is None:
            return np.zeros((len(self.layers), len(self.positions), len(self.columns)), dtype=np.bool_)
        return ~self.visible_lqk & (self.columns[None, :] <= self.positions[:, None])

    def mass(self, segment: str) -> NDArray[np.float32]:
        """(L, H, Q) total attention on one segment.

        Raises:
            SpecError: no such segment.
        """
        if segment not in self.segments:
            raise SpecError(f"segment {segment!r} does not exist; segments are {', '.join(self.segments)}")
        return self.mass_lhqs[..., self.segments.index(segment)]

    @property
    def nbytes(self) -> int:
        """Bytes of attention rows and segment masses."""
        return int(self.attn_lhqk.nbytes + self.mass_lhqs.nbytes)

    def _kept_range(self) -> str:
        if not len(self.positions):
            return "none"
        return f"{len(self.positions)} rows from {self.positions[0]} to {self.positions[-1]}"

    def _repr_html_(self) -> str:
        from vlmattn.trace.shown import trace_html

        return trace_html(self)

    def __repr__(self) -> str:
        layers, heads, rows, columns = self.attn_lhqk.shape
        return (
            f"<Trace {layers} layers x {heads} heads x {rows} rows x {columns} image tokens, "
            f"{self.nbytes / 2**20:.1f} MiB, answer {self.answer!r}>"
        )


def trace_from_kept(kept: KeptRows, layout: TokenLayout, provenance: Provenance, *, depth: int = 0) -> Trace:
    """The trace of what a capture kept.

    Args:
        kept: one record of ``Session.finish``. layout: its prompt with the answer appended. depth: see :class:`Trace`.
    """
    return Trace(
        layout=layout,
        layers=kept.layers,
        heads=kept.heads,
        positions=kept.positions,
        columns=kept.columns,
        attn_lhqk=_array(kept.attn_lhqk),
        segments=kept.segments,
        mass_lhqs=_array(kept.mass_lhqs),
        visible_lqk=_array_or_none(kept.visible_lqk),
        value_norm_lhk=_array_or_none(kept.value_norm_lhk),
        head_norm_lhq=_array_or_none(kept.head_norm_lhq),
        hidden=_hidden(kept.hidden),
        scores=_scores(kept.candidates, layout),
        vision=_array_or_none(kept.vision),
        provenance=provenance.then(kept.composed) if kept.composed else provenance,
        depth=depth,
        blind=kept.blind,
        received_lhn=_array_or_none(kept.received_lhn),
    )


def _array(tensor: Any) -> NDArray[Any]:
    import torch

    tensor = tensor.detach().cpu()
    result: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return result


def _array_or_none(tensor: Any) -> NDArray[Any] | None:
    return None if tensor is None else _array(tensor)


def _hidden(stats: Any) -> Hidden | None:
    if stats is None:
        return None
    return Hidden(
        stats.layers,
        _array(stats.rms_ln),
        _array(stats.peak_ln),
        _array(stats.peak_coord_ln),
        stats.coords,
        _array(stats.coord_lnc),
        stats.width,
        _array_or_none(stats.top_coord_lnk),
        _array_or_none(stats.top_value_lnk),
        _array_or_none(stats.median_ln),
    )


def _scores(candidates: Any, layout: TokenLayout) -> TokenScores | None:
    if candidates is None:
        return None
    chosen = candidates.chosen_logp_t.copy()
    written = layout.input_ids[layout.answer_start :]
    for step in np.flatnonzero(np.isnan(chosen)):
        if step < len(written):
            hit = np.flatnonzero(candidates.top_ids_tk[step] == written[step])
            chosen[step] = candidates.top_logp_tk[step, hit[0]] if len(hit) else np.nan
    return TokenScores(candidates.entropy_t, candidates.top_ids_tk, candidates.top_logp_tk, chosen)
