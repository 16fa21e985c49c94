"""One question asked: the answer, and where the model looked for every word of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlmattn.api.look import Look
from vlmattn.api.request import Request
from vlmattn.core.errors import MapError, SpecError, VlmattnError
from vlmattn.core.images import Picture
from vlmattn.trace import Span, Trace

if TYPE_CHECKING:
    from vlmattn.api.vlm import Vlm
    from vlmattn.overlay import Sheet


@dataclass(frozen=True)
class WordGrounding:
    """What one word of the answer rests on.

    Attributes:
        word: the word. image_share: attention on the picture, mean over layers and heads, 0 to 1.
        shares: the same for every segment. peak_xy: the highest point of its map, original pixels; None if flat.
        log_probability: of its tokens together, natural log; NaN where it is not known.
    """

    word: str
    image_share: float
    shares: dict[str, float]
    peak_xy: tuple[float, float] | None
    log_probability: float


def _part(name: Any) -> Literal["question", "answer"]:
    if name == "question":
        return "question"
    if name == "answer":
        return "answer"
    raise SpecError(f"part must be question or answer, got {name!r}")


class Run:
    """A picture, a question, the answer, and the attention that was kept.

    Attributes:
        vlm: the model. pictures: upright originals. trace: what was kept. request: what was run.
    """

    def __init__(
        self,
        vlm: Vlm,
        pictures: Sequence[Picture],
        trace: Trace,
        request: Request,
    ) -> None:
        self.vlm, self.pictures, self.trace = vlm, tuple(pictures), trace
        self.request = request
        self._value_trace: Trace | None = trace if trace.value_norm_lhk is not None else None
        self._generic_trace: Trace | None = None

    @property
    def answer(self) -> str:
        """What the model answered."""
        return self.trace.answer

    @property
    def question(self) -> str:
        """What was asked."""
        return self.trace.question

    def words(self, part: str = "answer") -> tuple[Span, ...]:
        """The words of the answer (or the question), equal ones numbered."""
        return self.trace.words(_part(part))

    # -- maps ----------------------------------------------------------------------------------------------------------

    def map(
        self,
        what: str | int | Span | None = None,
        *,
        method: str = "raw",
        image: int = 0,
        normalise: str = "none",
        **options: Any,
    ) -> Look:
        """Where the model looked for a word, a phrase, an answer token by number, or (default) the whole answer.

        Args:
            what: a word or phrase of the answer or, if it is not there, of the question.
            method: ``raw`` attention, ``value`` (weighted with value norms) or ``relative`` (over a generic prompt).
                The last two run the model once more on the finished answer if what they need was not kept.
            image: which picture. normalise: see :data:`vlmattn.maps.NORMALISATIONS`.
            options: ``layers`` (numbers or a preset), ``heads``, ``part``, ``occurrence``, ``convention``,
                ``over_rows``, ``over_heads``, ``over_layers``; for ``relative`` also ``floor``.

        Raises:
            WordNotFound: lists the words there are. SpecError: an option that does not exist. MapError: no such rows.
        """
        from vlmattn.maps import normalise as normalised

        if image not in range(len(self.pictures)):
            raise SpecError(f"picture {image} does not exist; there are {len(self.pictures)}")
        if not isinstance(what, (str, Integral, Span)) and what is not None or isinstance(what, bool):
            raise SpecError(f"a map is of a word, a phrase or a token number, got {what!r}")
        if options.get("part") is not None:
            _part(options["part"])
        if options.get("convention") not in (None, "predicting", "query"):
            raise SpecError(f"convention must be predicting or query, got {options['convention']!r}")
        patch_map = self._patch_map(what, method, image, options)
        return Look(normalised(patch_map, normalise), self.pictures[image])

    def _patch_map(self, what: Any, method: str, image: int, options: dict[str, Any]) -> Any:
        from vlmattn import maps

        if method == "raw":
            return maps.raw_attention(self.trace, what, image=image, **options)
        if method == "value":
            return maps.value_weighted(self._with_values(), what, image=image, **options)
        if method == "relative":
            floor = options.pop("floor", "auto")
            task = maps.raw_attention(self.trace, what, image=image, **options)
            rows = {k: v for k, v in options.items() if k in ("layers", "heads", "over_heads", "over_layers")}
            generic = maps.raw_attention(self._generic(), 0, image=image, **rows)
            return maps.relative(task, generic, floor=floor)
        raise SpecError(f"method must be one of raw, value, relative; got {method!r}")

    def token_maps(self, **options: Any) -> list[Look]:
        """One map per answer token that has text, in order."""
        count = len(self.trace.answer_tokens)
        spans = self.trace.layout.char_span[self.trace.layout.answer_start :, 0]
        return [self.map(number, **options) for number in range(count) if spans[number] >= 0]

    def sheet(self, what: Sequence[Any] | None = None, *, layers: Sequence[int] | None = None, **options: Any) -> Sheet:
        """A contact sheet, words × layers, with one shared scale; default: all answer words × all kept layers."""
        from vlmattn.overlay import contact_sheet

        chosen = list(what) if what is not None else [w for w in self.words() if any(c.isalnum() for c in w.text)]
        depth = list(layers) if layers is not None else list(self.trace.layers)
        if not chosen:
            raise MapError("the answer has no word to draw")
        rows = [[self.map(one, layers=[layer], **options) for layer in depth] for one in chosen]
        cells = [[(look.label, look.picture.image, look.pixels) for look in row] for row in rows]
        return contact_sheet(
            cells, row_titles=[row[0].label for row in rows], column_titles=[f"layer {layer}" for layer in depth]
        )

    # -- grounding -----------------------------------------------------------------------------------------------------

    def grounding(self) -> list[WordGrounding]:
        """For every answer word: how much attention went to the picture and to the other segments, and where it peaks.

        Attention shares say where information could come from, not that it was used.
        """
        return [self._ground(word) for word in self.words() if any(c.isalnum() for c in word.text)]

    def _ground(self, word: Span) -> WordGrounding:
        rows = self.trace.rows_of(word.tokens)
        means = self.trace.mass_lhqs[:, :, rows].mean(axis=(0, 1, 2))
        shares = {name: float(value) for name, value in zip(self.trace.segments, means, strict=True)}
        image_share = sum(value for name, value in shares.items() if name.startswith("image:"))
        try:
            peak: tuple[float, float] | None = self.map(word).peak_xy
        except VlmattnError:
            peak = None
        return WordGrounding(word.label, image_share, shares, peak, self._log_probability(word))

    def _log_probability(self, word: Span) -> float:
        scores = self.trace.scores
        if scores is None:
            return float("nan")
        steps = [t - self.trace.layout.answer_start for t in word.tokens]
        return float(np.sum([scores.chosen_logp_t[s] if s < len(scores.chosen_logp_t) else np.nan for s in steps]))

    # -- further passes ------------------------------------------------------------------------------------------------

    def _with_values(self) -> Trace:
        # The same question and answer once more, keeping value norms as well.
        if self._value_trace is None:
            ids = self.trace.layout.input_ids[self.trace.layout.answer_start :]
            spec = replace(self.request.capture, value_norms="projected")
            self._value_trace = self.vlm.run(replace(self.request, answers=(ids.tolist(),), capture=spec))[0].trace
        return self._value_trace

    def _generic(self) -> Trace:
        # The row that begins the answer to a generic prompt on the same pictures.
        from vlmattn.maps import GENERIC_PROMPT

        if self._generic_trace is None:
            request = replace(
                self.request,
                items=((list(self.pictures), GENERIC_PROMPT),),
                capture=replace(self.request.capture, rows="answer"),
                max_new_tokens=1,
            )
            self._generic_trace = self.vlm.run(request)[0].trace
        return self._generic_trace

    def to_dict(self) -> dict[str, Any]:
        """Question, answer, grounding of every word and provenance, as plain values."""
        return {
            "question": self.question,
            "answer": self.answer,
            "pictures": [{"name": p.name, "wh": list(p.wh), "notes": list(p.notes)} for p in self.pictures],
            "words": [
                {
                    "word": g.word,
                    "image_share": g.image_share,
                    "shares": g.shares,
                    "peak_xy": None if g.peak_xy is None else list(g.peak_xy),
                    "log_probability": None if np.isnan(g.log_probability) else g.log_probability,
                }
                for g in self.grounding()
            ],
            "provenance": self.trace.provenance.to_dict(),
        }

    def __repr__(self) -> str:
        return f"<Run {self.question!r} -> {self.answer!r}>"
