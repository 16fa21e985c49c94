"""One question asked: the answer, and where the model looked for every word of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlmattn.api.checks import head_numbers, map_options, part_named
from vlmattn.api.grounding import WordGrounding
from vlmattn.api.look import Look
from vlmattn.api.methods import make_map
from vlmattn.api.request import Request
from vlmattn.api.sinks import check_keep, roles_of, sinks_of
from vlmattn.api.studies import AnswerStudies
from vlmattn.api.tower import check_flow, check_kind, look_at_tower, tower_map
from vlmattn.api.video_look import VideoLook, look_at
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.videos import Video, Visual
from vlmattn.trace import Span, TowerTrace, Trace

if TYPE_CHECKING:
    from vlmattn.api.refinement import Refinement
    from vlmattn.api.searching import Searched
    from vlmattn.api.vlm import Vlm
    from vlmattn.maps import HighNormToken
    from vlmattn.overlay import Sheet
    from vlmattn.refine import Gate, Recipe, SearchRule
    from vlmattn.sinks import SinkRole, Sinks


def _told(seen: Visual) -> dict[str, Any]:
    times = {"times": list(seen.times)} if isinstance(seen, Video) else {}
    return {"name": seen.name, "wh": list(seen.wh), "notes": list(seen.notes)} | times


class Run(AnswerStudies):
    """A picture, a question, the answer, and the attention that was kept.

    Attributes:
        vlm: the model. pictures: upright originals, and videos. trace: what was kept. request: what was run.
    """

    def __init__(
        self,
        vlm: Vlm,
        pictures: Sequence[Visual],
        trace: Trace,
        request: Request,
    ) -> None:
        self.vlm, self.pictures, self.trace = vlm, tuple(pictures), trace
        self.request = request
        self._value_trace: Trace | None = trace if trace.value_norm_lhk is not None else None
        self._sink_traces: dict[tuple[Any, ...], Trace] = {}
        self._known_sinks: Sinks | None = None
        self._towers: dict[str | None, TowerTrace] = {}

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
        return self.trace.words(part_named(part))

    # -- maps ----------------------------------------------------------------------------------------------------------

    def map(
        self,
        what: str | int | Span | None = None,
        *,
        method: str = "raw",
        image: int = 0,
        frame: int | None = None,
        normalise: str = "none",
        through: Literal["rollout", "last"] | None = None,
        sinks: Literal["keep", "drop", "only"] = "keep",
        **options: Any,
    ) -> Look:
        """Where the model looked for a word, a phrase, an answer token by number, or (default) the whole answer.

        Args:
            what: a word or phrase of the answer or, if it is not there, of the question.
            method: ``raw`` attention, ``value`` (weighted with value norms) or ``relative`` (over a generic prompt).
                The last two run the model once more on the finished answer if what they need was not kept.
            image: which picture or video. frame: which frame of a video; default: all, as a :class:`VideoLook`.
            normalise: see :data:`vlmattn.maps.NORMALISATIONS`; over all frames of a video together.
            through: carry the map on through the vision tower, to where the outputs of its patches come from: by its
                ``rollout``, or by the ``last`` layer that is read; see :func:`vlmattn.maps.through_tower`.
            sinks: ``keep`` them; ``drop`` visual sinks and scale the other patches up to the picture's share; or show
                them ``only``. They are those of :meth:`sinks`; see :func:`vlmattn.sinks.with_sinks`.
            options: ``layers``, ``heads`` (numbers or a preset), ``rows`` (a preset), ``part``, ``occurrence``,
                ``convention``, ``over_rows``, ``over_heads``, ``over_layers``; for ``relative`` also ``floor``.

        Raises:
            WordNotFound: lists the words there are. SpecError: an option that does not exist. MapError: no such rows.
        """
        from vlmattn.maps import normalise as normalised
        from vlmattn.maps import through_tower

        if image not in range(len(self.pictures)):
            raise SpecError(f"picture {image} does not exist; there are {len(self.pictures)}")
        if not isinstance(what, (str, Integral, Span, type(None))) or isinstance(what, bool):
            raise SpecError(f"a map is of a word, a phrase or a token number, got {what!r}")
        check_flow(through)
        check_keep(sinks)
        patch_map = make_map(self, what, method, image, map_options(self.trace, what, method, options), sinks)
        patch_map = replace(patch_map, provenance=replace(patch_map.provenance, method=method))
        if through is not None:
            patch_map = through_tower(patch_map, self.tower(through), image=image)
        return look_at(normalised(patch_map, normalise), self.pictures[image], frame)

    def token_maps(self, **options: Any) -> list[Look]:
        """One map per answer token that has text, in order."""
        count = len(self.trace.answer_tokens)
        spans = self.trace.layout.char_span[self.trace.layout.answer_start :, 0]
        return [self.map(number, **options) for number in range(count) if spans[number] >= 0]

    def sheet(self, what: Any = None, *, layers: Any = None, **options: Any) -> Sheet:
        """A contact sheet, words × layers, with one shared scale; default: all answer words × all kept layers.

        Args:
            what: one word, phrase or token number, or several. layers: numbers or a preset. options: as in :meth:`map`.
        """
        from vlmattn.maps.choices import choose_layers
        from vlmattn.overlay import contact_sheet

        one = isinstance(what, (str, Integral, Span))
        words = [w for w in self.words() if any(c.isalnum() for c in w.text)]
        chosen = words if what is None else [what] if one else list(what)
        map_options(self.trace, None, "raw", {"layers": layers})
        depth, _ = choose_layers(self.trace, layers)
        if not chosen:
            raise MapError("the answer has no word to draw")
        rows = [[self.map(one, layers=[layer], **options) for layer in depth] for one in chosen]
        cells = [[(look.label, look.picture.image, look.pixels) for look in row] for row in rows]
        return contact_sheet(
            cells, row_titles=[row[0].label for row in rows], column_titles=[f"layer {layer}" for layer in depth]
        )

    # -- grounding -----------------------------------------------------------------------------------------------------

    def grounding(self, *, method: str = "raw", layers: Any = None, heads: Any = None) -> list[WordGrounding]:
        """For every answer word: how much attention went to the picture and to the other segments, and where it peaks.

        Attention shares say where information could come from, not that it was used. They are NaN for a last written
        word whose query row was asked for: the model never read it.

        Args:
            method: of the maps whose peaks are told; shares are always of raw attention. layers, heads: as in
                :meth:`map`, for shares and peaks.
        """
        options = {"method": method, "layers": layers, "heads": heads}
        map_options(self.trace, None, method, {"layers": layers, "heads": heads})
        return [self._ground(word, options) for word in self.words() if any(c.isalnum() for c in word.text)]

    def _ground(self, word: Span, options: dict[str, Any]) -> WordGrounding:
        peaks = tuple(self._peak(word, n, options) for n in range(len(self.pictures)))
        means = self._masses(word, options["layers"], options["heads"])
        shares = {name: float(value) for name, value in zip(self.trace.segments, means, strict=True)}
        by_picture = tuple(shares.get(f"image:{n}", 0.0) for n in range(len(self.pictures)))
        most = peaks[int(np.argmax(by_picture))]
        frames = tuple(self._frame_shares(word, n, options) for n in range(len(self.pictures)))
        known = self._log_probability(word)
        return WordGrounding(word.label, sum(by_picture), shares, most, known, by_picture, peaks, frames)

    def _frame_shares(self, word: Span, image: int, options: dict[str, Any]) -> tuple[float, ...]:
        if not isinstance(self.pictures[image], Video):
            return ()
        try:
            look = self.map(word, image=image, **(options | {"method": "raw"}))
        except MapError:
            return ()
        return tuple(look.frame_mass.mass_t.tolist()) if isinstance(look, VideoLook) else ()

    def _peak(self, word: Span, image: int, options: dict[str, Any]) -> tuple[float, float] | None:
        try:
            return self.map(word, image=image, **options).peak_xy
        except MapError:
            return None

    def _masses(self, word: Span, layers: Any, heads: Any) -> np.ndarray:
        # (S,) attention on each segment, mean over the word's rows, heads and layers; NaN if the model never read it.
        from vlmattn.maps.choices import choose_heads, choose_layers
        from vlmattn.maps.raw import heads_made_one

        read = self.trace.read_tokens(word.tokens)
        if not read:
            return np.full(len(self.trace.segments), np.nan)
        chosen, _ = choose_layers(self.trace, layers, heads)
        found = choose_heads(self.trace, chosen, head_numbers(self.trace, heads))
        block = self.trace.mass_lhqs[self.trace.layer_slots(chosen)][:, :, self.trace.rows_of(read)]
        lines = [line[list(kept)] for line, kept in zip(block, found.slots, strict=True)]
        return np.asarray(heads_made_one(lines, found, "mean").mean(axis=(0, 1)))

    def _log_probability(self, word: Span) -> float:
        scores = self.trace.scores
        if scores is None:
            return float("nan")
        steps = [t - self.trace.layout.answer_start for t in word.tokens]
        return float(np.sum([scores.chosen_logp_t[s] if s < len(scores.chosen_logp_t) else np.nan for s in steps]))

    # -- the vision tower ----------------------------------------------------------------------------------------------

    def tower(self, flow: Literal["rollout", "last"] | None = None) -> TowerTrace:
        """The vision tower's attention to its own patches; the tower runs once more, the first time it is asked for.

        Args:
            flow: also keep, per view of n tokens, an n x n matrix that says where each token's output comes from: over
                all layers that are read (``rollout``) or the ``last`` of them.

        Raises:
            SpecError, UnsupportedModel: the tower cannot be seen, or what its tokens are is not known.
            BudgetExceeded: ``flow`` would take more than the capture's budget.
        """
        check_flow(flow)
        kept = self._towers.get(flow) or (None if flow else next(iter(self._towers.values()), None))
        if kept is None:
            kept = self._towers[flow] = look_at_tower(self, flow)
        return kept

    def vision_map(self, kind: str = "received", *, image: int = 0, normalise: str = "none", **options: Any) -> Look:
        """The vision tower alone on a picture, whatever the question.

        Args:
            kind: ``class`` or ``register`` (what these tokens look at), ``received`` (by each patch, from all),
                ``rollout`` (where the tower's output comes from), ``norm`` (of each patch; high ones are outliers).
            image: which picture. normalise: see :data:`vlmattn.maps.NORMALISATIONS`.
            options: ``layers`` and ``heads`` of the first three, ``start`` of ``rollout``, ``layer`` of ``norm``.

        Raises:
            SpecError: no such map, option, layer, head, picture or token. Others as in :meth:`tower`.
        """
        from vlmattn.maps import normalise as normalised

        check_kind(kind, options)
        if image not in range(len(self.pictures)):
            raise SpecError(f"picture {image} does not exist; there are {len(self.pictures)}")
        patch_map = tower_map(self.tower("rollout" if kind == "rollout" else None), kind, image, options)
        return look_at(normalised(patch_map, normalise), self.pictures[image])

    def high_norm_tokens(self, *, image: int = 0, **options: Any) -> tuple[HighNormToken, ...]:
        """Patches that the vision tower marks with high norms; see :func:`vlmattn.maps.high_norm_tokens`."""
        from vlmattn.maps import high_norm_tokens

        return high_norm_tokens(self.tower(), image=image, **options)

    # -- sinks ---------------------------------------------------------------------------------------------------------

    def sinks(self, rule: Literal["massive", "received"] = "massive", **options: Any) -> Sinks:
        """Which prompt tokens are attention sinks, in which layers, and what they take of every kept row.

        The run's own trace is read where it holds what is needed (``CaptureSpec(hidden=True, hidden_coords=…)``, or
        ``received=True``); else the same question and answer run once more.

        Args:
            rule: ``massive``: phi above a threshold (Kang et al., ICLR 2025); ``received``: attention received (ACT).
            options: of ``massive``: ``tau`` or ``tau_relative``, ``coordinates`` (numbers, or a
                :class:`~vlmattn.sinks.SinkCoordinates`; default: those of :meth:`Vlm.known_sinks`), ``layers``; of
                ``received``: ``alpha``, ``least_rows``, ``layers``.

        Raises:
            SpecError: no such rule, option or layer, or a threshold that cannot be reached.
        """
        if rule == "massive" and not options:
            if self._known_sinks is None or self._known_sinks.coordinates is not self.vlm.known_sinks():
                self._known_sinks = sinks_of(self, rule, {})
            return self._known_sinks
        return sinks_of(self, rule, options)

    def sink_roles(
        self, found: Sinks | None = None, *, norms: Literal["projected", "value"] = "projected"
    ) -> tuple[SinkRole, ...]:
        """Per layer, what the first token, text sinks and visual sinks take, and how little of it they write; the same
        question and answer run once more. ``norms``: see :attr:`CaptureSpec.value_norms`."""
        return roles_of(self, self.sinks() if found is None else found, norms)

    # -- further passes ------------------------------------------------------------------------------------------------

    def with_values(self) -> Trace:
        """The trace with value norms: the run's own if it kept them, else of the same question and answer once more."""
        if self._value_trace is None:
            ids = self.trace.layout.input_ids[self.trace.layout.answer_start :]
            spec = replace(self.request.capture, value_norms="projected")
            self._value_trace = self.vlm.run(replace(self.request, answers=(ids.tolist(),), capture=spec))[0].trace
        return self._value_trace

    def generic(self) -> Run:
        """The same pictures under the generic prompt, up to the first answer token; made once per picture."""
        from vlmattn.maps import GENERIC_PROMPT

        return self.vlm.general.run(self.vlm, self.request, self.pictures, GENERIC_PROMPT, steps=1)

    # -- looking again -------------------------------------------------------------------------------------------------

    def refine(
        self,
        recipe: str | Recipe = "peak",
        what: str | int | Span | None = None,
        *,
        image: int = 0,
        when: Literal["always", "uncertain"] = "always",
        gate: Gate | None = None,
        **changes: Any,
    ) -> Refinement:
        """Where to look again, and the picture to look at: mask, box and crop in pixels of the original.

        Args:
            recipe: one of :data:`vlmattn.refine.RECIPES`, or your own. what: a word, phrase or token whose map decides
                (``raw`` and ``relative`` only); default: the answer tokens that the recipe says.
            image: which picture. when: ``uncertain`` asks ``gate`` first (default :class:`vlmattn.refine.Gate`); where
                it says no, nothing more is run.
            changes: fields of the recipe: ``layers=``, ``share=``, ``window_share=``, ``pictures=`` …

        Raises:
            SpecError: no such recipe, field, picture or layer, a field that decides nothing in this recipe, a video, or
                ``pictures="both"`` of a family that takes one. MapError: the map is flat, or the family cannot have it.
        """
        from vlmattn.api.refinement import refine_run

        return refine_run(self, recipe, what, image=image, when=when, gate=gate, changes=changes)

    def ask_again(self, recipe: str | Recipe = "peak", *, choose: str = "second", **options: Any) -> Run:
        """The question once more on the refined picture; ``run.refine(recipe, **options).ask_again(choose=choose)``."""
        return self.refine(recipe, **options).ask_again(choose=choose)

    def search(self, rule: str | SearchRule = "zoom", *, image: int = 0, **changes: Any) -> Searched:
        """Look at parts of the picture until one answer is sure enough; see :mod:`vlmattn.refine.search`.

        Args:
            rule: one of :data:`vlmattn.refine.SEARCHES`, or your own. changes: its fields; ``layers`` and ``heads`` of
                the attention that leads.

        A given answer is that of the first look alone; parts are asked freely, as in :meth:`ask_again`.

        Raises:
            SpecError: no such rule, field, picture or layer, a video, or a capture without the answer's certainty.
        """
        from vlmattn.api.searching import search_run

        return search_run(self, rule, image=image, changes=changes)

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """Question, answer, grounding of every word (see :meth:`grounding`) and provenance, as plain values."""
        return {
            "question": self.question,
            "answer": self.answer,
            "pictures": [_told(p) for p in self.pictures],
            "words": [one.to_dict() for one in self.grounding(**options)],
            "read": {name: options.get(name) for name in ("method", "layers", "heads")},
            "provenance": self.trace.provenance.to_dict(),
        }

    def __repr__(self) -> str:
        return f"<Run {self.question!r} -> {self.answer!r}>"
