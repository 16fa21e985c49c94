"""What a capture keeps, said before it runs, and what that will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.capture.choices import check_budget, check_heads, check_numbers, check_one_of, is_whole
from vlmattn.core.errors import BudgetExceeded, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.core.words import find, occurrences
from vlmattn.display import Told, bar, html_table, panel

if TYPE_CHECKING:
    from vlmattn.capture.sites import AttentionSite, ModelSites

Convention = Literal["predicting", "query"]
RowRule = Literal["answer", "last", "question", "after_image", "prompt"]
_RULES = ("answer", "last", "question", "after_image", "prompt")
_WORD = "word:"
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
GROWING = ("image columns", "segment masses", "visible columns", "head norms", "next-token candidates")
"""Parts of an estimate that grow with every kept row."""
KNOBS = "choose layers=, reduce='mean', fewer rows=, dtype='float16', or raise budget="
"""What a user can turn to keep less."""
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "convention": (None, "predicting", "query"),
    "reduce": (None, "mean", "max"),
    "columns": ("image", "all"),
    "dtype": tuple(_BYTES),
    "value_norms": (None, "value", "projected"),
    "vision": (None, "cls", "received"),
    "offload": (False, True),
    "head_norms": (False, True),
    "hidden": (False, True),
    "received": (False, True),
}


@dataclass(frozen=True)
class CaptureSpec:
    """Which attention rows are kept, in which layers and heads, and how.

    Attributes:
        rows: one rule, positions in the prompt, or a tuple of rules. ``answer``: every token the model writes (or was
            given as its answer); ``last``: the last prompt row, which predicts the first answer token; ``question``:
            every token of what the user asked; ``word:TEXT``: a word or phrase of it, wherever it occurs there;
            ``after_image``: every prompt token after the last image token;
            ``prompt``: every prompt token.
        convention: which row stands for token *t*: ``predicting`` is the row at *t* - 1, whose output predicts *t*;
            ``query`` the row at *t* itself. None: predicting for answer tokens, query for prompt tokens.
        layers: layer indices (negative ones count from the end); None or ``all`` for all with attention.
        heads: ``all``, indices used in every layer, or {layer: indices}; negative numbers count from the end.
        reduce: None keeps every chosen head; ``mean`` or ``max`` over the chosen heads, inside the layer.
        columns: ``image`` keeps image columns only, ``all`` every prompt column (for checks; much larger).
        dtype: of the kept image columns. Segment masses are always float32.
        offload: move all that is kept to the CPU inside the layer.
        value_norms: ``value`` keeps ||v_j||, ``projected`` ||W_O v_j|| per head, for every image token.
        head_norms: keep the norm of each head's output at the kept rows.
        hidden: keep, for every prompt token and layer, RMS and largest |x| of the residual stream and its coordinate.
        hidden_coords: coordinates of the residual stream to keep the value of as well; needs ``hidden``.
        hidden_top: how many of each token's largest coordinates to keep, and its median |x|; needs ``hidden``.
        received: keep what every prompt token receives from all prompt rows that see it, on average, per layer and
            head. This computes every row of the prompt: it costs as much as eager attention, in little memory.
        top_k: how many next-token candidates to keep per step, with entropy and log-probabilities; 0 for none.
        vision: None, or attention of the vision tower to its patches: ``cls`` (the class token's row) or ``received``
            (mean over queries of what each patch receives).
        budget: bytes, or a fraction of free memory, that kept rows may take.

    Raises:
        SpecError: an option that does not exist, a value of another type, or one that would do nothing.
    """

    rows: RowRule | str | tuple[RowRule | str | int, ...] = "answer"
    convention: Convention | None = None
    layers: Sequence[int] | Literal["all"] | None = None
    heads: Literal["all"] | Sequence[int] | Mapping[int, Sequence[int]] = "all"
    reduce: Literal["mean", "max"] | None = None
    columns: Literal["image", "all"] = "image"
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    offload: bool = False
    value_norms: Literal["value", "projected"] | None = None
    head_norms: bool = False
    hidden: bool = False
    hidden_coords: tuple[int, ...] = field(default=())
    hidden_top: int = 0
    received: bool = False
    top_k: int = 5
    vision: Literal["cls", "received"] | None = None
    budget: int | float = 0.25

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            check_one_of(name, getattr(self, name), allowed)
        self._check_rows()
        if isinstance(self.layers, str):
            check_one_of("layers", self.layers, ("all",))
            object.__setattr__(self, "layers", None)
        if self.layers is not None:
            check_numbers("layers", self.layers)
        check_heads(self.heads)
        check_budget(self.budget)
        check_numbers("hidden_coords", self.hidden_coords)
        if len(self.hidden_coords) and not self.hidden:
            raise SpecError("hidden_coords are kept with the hidden states only: say hidden=True")
        for name in ("top_k", "hidden_top"):
            if not is_whole(getattr(self, name)) or getattr(self, name) < 0:
                raise SpecError(f"{name} must be a whole number, at least 0; got {getattr(self, name)!r}")
        if self.hidden_top and not self.hidden:
            raise SpecError("hidden_top is kept with the hidden states only: say hidden=True")

    def _check_rows(self) -> None:
        if not isinstance(self.rows, (str, Sequence, np.ndarray)):
            raise SpecError(f"rows must be a rule, or a tuple of rules and positions; got {self.rows!r}")
        for rule in self.row_rules:
            if not (is_whole(rule) or (isinstance(rule, str) and (rule in _RULES or _is_word(rule)))):
                raise SpecError(f"rows must be positions, 'word:…' or one of {', '.join(_RULES)}; got {rule!r}")
        if not self.row_rules:
            raise SpecError("rows is empty: name at least one rule or position")

    @property
    def row_rules(self) -> tuple[Any, ...]:
        """``rows`` as a tuple."""
        return (self.rows,) if isinstance(self.rows, str) else tuple(self.rows)

    def answer_rows(self) -> bool:
        """Whether rows of answer tokens are kept."""
        return "answer" in self.row_rules

    def prompt_positions(self, layout: TokenLayout) -> NDArray[np.int64]:
        """Prompt positions whose rows are kept, ascending (the rows of answer tokens not counted)."""
        prompt = layout.answer_start
        wanted: set[int] = set()
        for rule in self.row_rules:
            wanted.update(self._rule_positions(rule, layout, prompt))
        return np.array(sorted(wanted), dtype=np.int64)

    def _rule_positions(self, rule: Any, layout: TokenLayout, prompt: int) -> Sequence[int]:
        if rule == "answer":
            return ()
        if rule == "last":
            return (prompt - 1,)
        if isinstance(rule, (int, np.integer)):
            position = int(rule) + (prompt if rule < 0 else 0)
            if not 0 <= position < prompt:
                raise SpecError(f"row {rule} is outside the prompt of {prompt} tokens")
            if position < layout.memory:
                raise SpecError(
                    f"position {rule} is a key beside the decoder's tokens and has no row: rows are {layout.memory} to "
                    f"{prompt - 1}"
                )
            return (position,)
        shift = 1 if self.convention == "predicting" else 0
        kinds = layout.kinds[:prompt]
        if _is_word(rule):
            tokens = np.array(_word_tokens(layout, rule.removeprefix(_WORD)))
        elif rule == "question":
            tokens = np.flatnonzero(kinds == TokenKind.QUESTION)
        elif rule == "after_image":
            tokens = np.arange(layout.image_end, prompt)
        else:
            tokens = np.arange(prompt)
        return [int(t) - shift for t in tokens if t - shift >= layout.memory]

    def resolve_layers(self, sites: ModelSites) -> tuple[AttentionSite, ...]:
        """The attention sites whose rows are kept.

        Raises:
            SpecError: a layer that the model does not have, or that has no attention.
            UnsupportedAttention: all layers are wanted, and the attention of some cannot be seen.
        """
        if self.layers is None and not isinstance(self.heads, Mapping):
            sites.check_all_seen()
            return sites.attention
        by_index = {site.layer_idx: site for site in sites.attention}
        wanted = self.layers if self.layers is not None else tuple(dict(self.heads))  # type: ignore[arg-type]
        chosen = [_from_start(int(layer), sites) for layer in wanted]
        missing = [layer for layer, index in zip(wanted, chosen, strict=True) if index not in by_index]
        if missing or not chosen:
            raise SpecError(f"no attention in layer {missing or '(none given)'}; layers are {sorted(by_index)}")
        return tuple(by_index[layer] for layer in sorted(set(chosen)))

    def resolve_heads(self, chosen: Sequence[AttentionSite], sites: ModelSites) -> list[tuple[int, ...] | None]:
        """Head indices kept in each of the ``chosen`` layers of a model; None for all of a layer's heads.

        Raises:
            SpecError: a head that a layer does not have, a layer without heads or with two choices.
        """
        if isinstance(self.heads, str):
            return [None for _ in chosen]
        if not isinstance(self.heads, Mapping):
            return [_heads_in(site, self.heads) for site in chosen]
        by_layer = {_from_start(int(layer), sites): heads for layer, heads in self.heads.items()}
        if len(by_layer) < len(self.heads):
            raise SpecError(f"heads name one layer twice, counted from the start and from the end: {list(self.heads)}")
        missing = [site.layer_idx for site in chosen if site.layer_idx not in by_layer]
        if missing:
            raise SpecError(f"heads are chosen by layer, but none for layers {missing}: leave those out of layers=")
        return [_heads_in(site, by_layer[site.layer_idx]) for site in chosen]

    def estimate(self, model: Any, encoded: Any, *, max_new_tokens: int = 64, beams: int = 1) -> CaptureEstimate:
        """Bytes this capture will keep for one run, without running anything (works on the meta device).

        Args:
            model: the model.
            encoded: an ``Encoded`` or a sequence of :class:`TokenLayout`, one per sequence of the batch (then taken to
                be padded on the left).
            max_new_tokens: how many answer tokens at most. beams: beams or samples per sequence.
        """
        from vlmattn.capture.cost import estimate_capture

        layouts = tuple(getattr(encoded, "layouts", encoded))
        longest = max((len(layout) for layout in layouts), default=0)
        pads = tuple(getattr(encoded, "pad_left", None) or (longest - len(layout) for layout in layouts))
        return estimate_capture(self, model, layouts, pads, max_new_tokens=max_new_tokens, beams=beams)


@dataclass(frozen=True)
class CaptureEstimate(Told):
    """What a capture will keep, in bytes.

    Attributes:
        rows, columns, layers, heads: the largest extents over the batch.
        by_part: bytes of each kept part.
        total: their sum.
    """

    rows: int
    columns: int
    layers: int
    heads: int
    by_part: Mapping[str, int]

    @property
    def total(self) -> int:
        """All kept bytes."""
        return sum(self.by_part.values())

    def check(self, budget: int | float, free: int) -> int:
        """Refuse a capture that is too large; how many bytes it may take.

        Raises:
            BudgetExceeded: ``total`` is over ``budget`` (bytes, or a fraction of ``free`` bytes).
        """
        allowed = int(budget) if isinstance(budget, Integral) or budget > 1 else int(budget * free)
        if self.total > allowed:
            raise BudgetExceeded(
                f"this capture would keep {bytes_said(self.total)} ({self.layers} layers x {self.heads} heads x "
                f"{self.rows} rows x {self.columns} columns), over the budget of {bytes_said(allowed)}: {KNOBS}"
            )
        return allowed

    def rows_within(self, allowed: int) -> int:
        """How many rows of a sequence ``allowed`` bytes have room for."""
        by_rows = sum(size for name, size in self.by_part.items() if name in GROWING)
        fixed = self.total - by_rows
        return self.rows if not by_rows else (allowed - fixed) * self.rows // by_rows

    def _repr_html_(self) -> str:
        sizes = sorted(((n, s) for n, s in self.by_part.items() if s), key=lambda one: -one[1])
        lines = [(name, bar(size / self.total, told=bytes_said(size))) for name, size in sizes]
        axes = f"{self.layers} layers x {self.heads} heads x {self.rows} rows x {self.columns} columns"
        return panel(f"would keep {bytes_said(self.total)}", html_table(("part", "bytes"), lines), note=axes)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {bytes_said(size)}" for name, size in self.by_part.items() if size)
        return f"{bytes_said(self.total)} ({parts})"


def _from_start(layer: int, sites: ModelSites) -> int:
    return layer + max(sites.layers) + 1 if layer < 0 else layer


def _heads_in(site: AttentionSite, chosen: Sequence[int]) -> tuple[int, ...]:
    heads = tuple(int(h) + site.heads if h < 0 else int(h) for h in chosen)
    if not heads or any(not 0 <= h < site.heads for h in heads):
        raise SpecError(
            f"heads {list(chosen)} of layer {site.layer_idx} do not exist; it has heads 0 to {site.heads - 1}"
        )
    if len(set(heads)) < len(heads):
        raise SpecError(f"heads {list(chosen)} of layer {site.layer_idx} name a head twice")
    return heads


def _is_word(rule: Any) -> bool:
    return isinstance(rule, str) and rule.startswith(_WORD) and bool(rule.removeprefix(_WORD).strip())


def _word_tokens(layout: TokenLayout, text: str) -> list[int]:
    find(layout, text, part="question")
    return sorted({token for span in occurrences(layout, text, "question") for token in span.tokens})


def bytes_said(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 / 20 else f"{size} bytes"
