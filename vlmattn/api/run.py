"""One question asked: the answer, and where the model looked for every word of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

from vlmattn.api.checks import map_options, part_named
from vlmattn.api.faithfulness import Agreement, FaithfulnessReport, Randomised, agreement, faithfulness, randomisation
from vlmattn.api.grounding import WordGrounding, grounding
from vlmattn.api.look import Look
from vlmattn.api.methods import make_map
from vlmattn.api.own_heads import own_heads
from vlmattn.api.request import Request
from vlmattn.api.sheets import words_by_layers
from vlmattn.api.sinks import check_keep, roles_of, sinks_of
from vlmattn.api.studies import AnswerStudies
from vlmattn.api.tower import check_flow, check_kind, look_at_tower, tower_map
from vlmattn.api.video_look import look_at
from vlmattn.api.whole import one_pass
from vlmattn.core.errors import SpecError
from vlmattn.core.videos import Video, Visual
from vlmattn.display import Rows
from vlmattn.trace import Span, TowerTrace, Trace

if TYPE_CHECKING:
    from vlmattn.api.patch_words import PatchWords
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
        self.carried: dict[tuple[Any, ...], dict[int, Any]] = {}

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
            method: ``raw`` attention, ``value`` (weighted with value norms) or ``relative`` (over a generic prompt),
                which run the model once more on the finished answer if what they need was not kept; ``rollout``,
                ``flow``, ``gradient`` or ``relevancy``, which always do, see :mod:`vlmattn.api.whole`.
                Without attention: ``tam`` (token activation), ``logit_lens``, ``integrated_gradients``, ``occlusion``.
            image: which picture or video. frame: which frame of a video; default: all, as a :class:`VideoLook`.
            normalise: see :data:`vlmattn.maps.NORMALISATIONS`; over all frames of a video together.
            through: carry the map on through the vision tower, to where the outputs of its patches come from: by its
                ``rollout``, or by the ``last`` layer that is read; see :func:`vlmattn.maps.through_tower`.
            sinks: ``keep`` them; ``drop`` visual sinks and scale the other patches up to the picture's share; or show
                them ``only``. They are those of :meth:`sinks`; see :func:`vlmattn.sinks.with_sinks`. ``rollout`` can
                ``drop`` the columns of text and visual sinks from the rows of every layer.
            options: ``layers``, ``heads`` (numbers, a preset or its name), ``rows`` (a preset), ``part``,
                ``occurrence``, ``convention``, ``over_rows``, ``over_heads``, ``over_layers``; for ``relative`` also
                ``floor``.
                Other methods have others: :data:`vlmattn.api.checks.METHOD_OPTIONS`, told in ``docs/reference.md``.

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
        options |= {"heads": own_heads(self.vlm, options["heads"])} if "heads" in options else {}
        patch_map = make_map(self, what, method, image, map_options(self.trace, what, method, options), sinks)
        patch_map = replace(patch_map, provenance=replace(patch_map.provenance, method=method))
        if through is not None:
            patch_map = through_tower(patch_map, self.tower(through), image=image)
        return look_at(normalised(patch_map, normalise), self.pictures[image], frame)

    def internal_confidence(self, word: str | Span, *, image: int = 0, layers: Any = None, **place: Any) -> float:
        """The highest probability of a word's first token at any patch and layer (Jiang et al., ICLR 2025).

        ``word`` need not stand in question or answer. ``layers`` of the states, as in :meth:`patch_words`.
        """
        from vlmattn.api.states import internal_confidence

        return internal_confidence(self, word, image=image, layers=layers, options=place)

    def patch_words(self, layer: Any = None, *, top: int = 5, image: int = 0, sinks: Sinks | None = None) -> PatchWords:
        """What every patch says where its states are read as words (logit lens; Neo et al., ICLR 2025).

        Args:
            layer: a number or several: 0 is what enters the first layer, n what leaves the last of n; -1 is n. Default:
                all. top: how many words per patch. sinks: of :meth:`sinks`, whose patches are marked: what they say is
                mostly junk; default: those that :meth:`sinks` has found before, if it was asked.

        Raises:
            SpecError: no such layer. MapError: patches are none of the decoder's tokens. UnsupportedModel: no final
                norm or unembedding is found.
        """
        from vlmattn.api.patch_words import patch_words

        return patch_words(self, layer, top=top, image=image, sinks=sinks)

    def passes(self, method: str, *, image: int = 0, **options: Any) -> int:
        """How many pictures a map by ``occlusion`` or ``integrated_gradients`` would run; nothing runs."""
        from vlmattn.api.attributed import passes

        return passes(self, method, image=image, options=options)

    def token_maps(self, **options: Any) -> list[Look]:
        """One map per answer token that has text, in order."""
        count = len(self.trace.answer_tokens)
        spans = self.trace.layout.char_span[self.trace.layout.answer_start :, 0]
        with one_pass(self):
            return [self.map(number, **options) for number in range(count) if spans[number] >= 0]

    def sheet(self, what: Any = None, *, layers: Any = None, **options: Any) -> Sheet:
        """A contact sheet, words × layers, with one shared scale; default: all answer words × all kept layers.

        Args:
            what: one word, phrase or token number, or several. layers: numbers or a preset. options: as in :meth:`map`.
        """
        return words_by_layers(self, what, layers, options)

    # -- grounding -----------------------------------------------------------------------------------------------------

    def grounding(
        self, *, method: str = "raw", layers: Any = None, heads: Any = None, test: bool = False, **options: Any
    ) -> Rows[WordGrounding]:
        """For every answer word: how much attention went to the picture and to the other segments, and where it peaks.

        Attention shares say where information could come from, not that it was used. They are NaN for a last written
        word whose query row was asked for: the model never read it.

        Args:
            method: of the maps whose peaks are told; shares are always of raw attention. layers, heads: as in
                :meth:`map`, for shares and peaks.
            test: paint over a square round each word's peak, and four elsewhere, ask for the same answer, and say
                whether the word rests on what it looks at: six more pictures per word. See
                :mod:`vlmattn.faithfulness.verdict`.
            options: of the test: ``rule``, a :class:`vlmattn.faithfulness.VerdictRule`, and ``seed`` of the squares;
                ``risk``, True or a :class:`vlmattn.detection.Detector`: how likely each word is made up. ``words``: the
                spans to tell of, such as of ``run.trace.find("a phrase")``; default: every word of the answer.
        """
        return grounding(self, method=method, layers=layers, heads=heads, test=test, **options)

    def faithfulness(self, what: str | int | Span | None = None, **options: Any) -> FaithfulnessReport:
        """What removal says of a word's map: how the answer's probability falls without what the map puts first.

        Args:
            what: a word, phrase or token of the answer; default: all of it.
            options: ``metrics``, some of :data:`vlmattn.api.faithfulness.METRICS`; ``method`` of the map and its
                options; ``image``, ``baseline``, ``seed``, ``batch``, ``progress``.

        Raises:
            SpecError: no such metric, picture or option, or a video. MapError: a word of the question, or a flat map.
        """
        return faithfulness(self, what, **options)

    def agreement(self, what: str | int | Span | None = None, *, methods: Sequence[str], **options: Any) -> Agreement:
        """Rank correlations of a word's maps by several methods; agreement is no evidence that any is right."""
        return agreement(self, what, methods=methods, **options)

    def randomisation(self, what: str | int | Span | None = None, **options: Any) -> Randomised:
        """Sanity check of a word's map: its rank correlation with that of the model as its layers are made random, one
        more at a time from the top (Adebayo et al., NeurIPS 2018). The weights are given back afterwards.

        Args:
            options: ``method`` of the map and its options, ``image``, ``seed``.
        """
        return randomisation(self, what, **options)

    @property
    def known_sinks(self) -> Sinks | None:
        """The massive sinks, if they were looked for before with the coordinates that the model has now."""
        held = self._known_sinks
        return held if held is not None and held.coordinates is self.vlm.sink_coordinates else None

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

    def vision_divergence(self, *, k: int = 4) -> dict[str, float]:
        """T-VHD of every answer word, higher where the picture drove it; see :func:`vlmattn.heads.token_divergence`.

        Two more passes, one of them without the picture. ``k``: heads per layer; the paper does not state its number.

        Raises:
            UnsupportedModel: pictures are no tokens of the prompt. SpecError: k below 1.
        """
        from vlmattn.api.head_scores import word_divergences

        return word_divergences(self, k)

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
