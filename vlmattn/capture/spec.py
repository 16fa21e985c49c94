"""What a capture keeps, said before it runs, and what that will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import BudgetExceeded, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.core.words import find, occurrences

if TYPE_CHECKING:
    from vlmattn.capture.sites import AttentionSite, ModelSites

Convention = Literal["predicting", "query"]
RowRule = Literal["answer", "last", "question", "after_image", "prompt"]
_RULES = ("answer", "last", "question", "after_image", "prompt")
_WORD = "word:"
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


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
        layers: layer indices (negative ones count from the end); None for all with attention.
        heads: ``all``, indices used in every layer, or {layer: indices}.
        reduce: None keeps every chosen head; ``mean`` or ``max`` over the chosen heads, inside the layer.
        columns: ``image`` keeps image columns only, ``all`` every prompt column (for checks; much larger).
        dtype: of the kept image columns. Segment masses are always float32.
        offload: move kept rows to the CPU inside the layer.
        value_norms: ``value`` keeps ||v_j||, ``projected`` ||W_O v_j|| per head, for every image token.
        head_norms: keep the norm of each head's output at the kept rows.
        hidden: keep, for every prompt token and layer, RMS and largest |x| of the residual stream and its coordinate.
        hidden_coords: coordinates of the residual stream to keep the value of as well.
        top_k: how many next-token candidates to keep per step, with entropy and log-probabilities; 0 for none.
        vision: None, or attention of the vision tower to its patches: ``cls`` (the class token's row) or ``received``
            (mean over queries of what each patch receives).
        budget: bytes, or a fraction of free memory, that kept rows may take.

    Raises:
        SpecError: an option that does not exist.
    """

    rows: RowRule | str | tuple[RowRule | str | int, ...] = "answer"
    convention: Convention | None = None
    layers: Sequence[int] | None = None
    heads: Literal["all"] | Sequence[int] | Mapping[int, Sequence[int]] = "all"
    reduce: Literal["mean", "max"] | None = None
    columns: Literal["image", "all"] = "image"
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    offload: bool = False
    value_norms: Literal["value", "projected"] | None = None
    head_norms: bool = False
    hidden: bool = False
    hidden_coords: tuple[int, ...] = field(default=())
    top_k: int = 5
    vision: Literal["cls", "received"] | None = None
    budget: int | float = 0.25

    def __post_init__(self) -> None:
        for name, allowed in (
            ("convention", (None, "predicting", "query")),
            ("reduce", (None, "mean", "max")),
            ("columns", ("image", "all")),
            ("dtype", tuple(_BYTES)),
            ("value_norms", (None, "value", "projected")),
            ("vision", (None, "cls", "received")),
        ):
            if getattr(self, name) not in allowed:
                listed = ", ".join(repr(a) for a in allowed)
                raise SpecError(f"{name} must be one of {listed}; got {getattr(self, name)!r}")
        for rule in self.row_rules:
            if rule not in _RULES and not isinstance(rule, (int, np.integer)) and not _is_word(rule):
                raise SpecError(f"rows must be positions, 'word:…' or one of {', '.join(_RULES)}; got {rule!r}")
        if not self.row_rules:
            raise SpecError("rows is empty: name at least one rule or position")
        if self.top_k < 0 or self.budget <= 0:
            raise SpecError(f"top_k must be >= 0 and budget > 0; got {self.top_k} and {self.budget}")

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
            return (position,)
        shift = 1 if self.convention == "predicting" else 0
        kinds = layout.kinds[:prompt]
        if _is_word(rule):
            tokens = np.array(_word_tokens(layout, rule.removeprefix(_WORD)))
        elif rule == "question":
            tokens = np.flatnonzero(kinds == TokenKind.QUESTION)
        elif rule == "after_image":
            placed = layout.image_positions
            tokens = np.arange(int(placed[-1]) + 1 if len(placed) else 0, prompt)
        else:
            tokens = np.arange(prompt)
        return [int(t) - shift for t in tokens if t - shift >= 0]

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
        depth = max(by_index) + 1
        wanted = self.layers if self.layers is not None else tuple(dict(self.heads))  # type: ignore[arg-type]
        chosen = [layer + depth if layer < 0 else layer for layer in wanted]
        missing = [layer for layer in chosen if layer not in by_index]
        if missing or not chosen:
            raise SpecError(f"no attention in layer {missing or '(none given)'}; layers are {sorted(by_index)}")
        return tuple(by_index[layer] for layer in sorted(set(chosen)))

    def resolve_heads(self, layer: int, count: int) -> tuple[int, ...] | None:
        """Head indices kept in ``layer`` of ``count`` heads; None for all of them.

        Raises:
            SpecError: a head that the layer does not have.
        """
        if isinstance(self.heads, str):
            return None
        chosen = self.heads.get(layer, ()) if isinstance(self.heads, Mapping) else self.heads
        heads = tuple(h + count if h < 0 else h for h in chosen)
        if not heads or any(not 0 <= h < count for h in heads):
            raise SpecError(f"heads {list(chosen)} of layer {layer} do not exist; it has heads 0 to {count - 1}")
        return heads

    def estimate(self, model: Any, encoded: Any, *, max_new_tokens: int = 64, beams: int = 1) -> CaptureEstimate:
        """Bytes this capture will keep for one run, without running anything (works on the meta device).

        Args:
            model: the model.
            encoded: an ``Encoded`` or a sequence of :class:`TokenLayout`, one per sequence of the batch.
            max_new_tokens: how many answer tokens at most. beams: beams or samples per sequence.
        """
        from vlmattn.capture.cost import estimate_capture

        layouts = getattr(encoded, "layouts", encoded)
        return estimate_capture(self, model, tuple(layouts), max_new_tokens=max_new_tokens, beams=beams)


@dataclass(frozen=True)
class CaptureEstimate:
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

    def check(self, budget: int | float, free: int) -> None:
        """Refuse a capture that is too large.

        Raises:
            BudgetExceeded: ``total`` is over ``budget`` (bytes, or a fraction of ``free`` bytes).
        """
        allowed = int(budget * free) if isinstance(budget, float) and budget <= 1 else int(budget)
        if self.total > allowed:
            raise BudgetExceeded(
                f"this capture would keep {_mib(self.total)} ({self.layers} layers x {self.heads} heads x {self.rows} "
                f"rows x {self.columns} columns), over the budget of {_mib(allowed)}: choose layers=, reduce='mean', "
                "fewer rows=, dtype='float16', or raise budget="
            )

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {_mib(size)}" for name, size in self.by_part.items() if size)
        return f"{_mib(self.total)} ({parts})"


def _is_word(rule: Any) -> bool:
    return isinstance(rule, str) and rule.startswith(_WORD) and bool(rule.removeprefix(_WORD).strip())


def _word_tokens(layout: TokenLayout, text: str) -> list[int]:
    find(layout, text, part="question")
    return sorted({token for span in occurrences(layout, text, "question") for token in span.tokens})


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
