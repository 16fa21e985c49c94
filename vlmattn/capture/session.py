"""The context manager that stands at the door while a model runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch

from vlmattn.capture import door
from vlmattn.capture.before import BeforeWords
from vlmattn.capture.compose import check_hops
from vlmattn.capture.cost import estimate_capture, free_memory, home_of
from vlmattn.capture.follow import Follower, cache_of, check_input, moved_windows
from vlmattn.capture.hidden import check_stream
from vlmattn.capture.kept import KeptRows
from vlmattn.capture.output import kept_outputs
from vlmattn.capture.received import check_received
from vlmattn.capture.recording import Recording
from vlmattn.capture.rows import (
    apply_mask,
    attention_rows,
    check_all_rows,
    check_call,
    row_mask,
    row_probabilities,
    row_scores,
    rows_per_chunk,
    visible_to,
)
from vlmattn.capture.sites import AttentionSite, heads_of, model_sites, unwrap
from vlmattn.capture.spec import CaptureEstimate, CaptureSpec
from vlmattn.capture.steer import SteeredRows, leave_all
from vlmattn.capture.steering import Steering
from vlmattn.capture.step import BatchPlan, KeptPart, Step
from vlmattn.capture.tower import check_tower, check_views, way_out
from vlmattn.core.errors import CaptureError, SpecError
from vlmattn.core.layout import TokenLayout


class Session:
    """Keeps attention rows of a model, and applies steering, while it is open.

    Only the last run is held. What logits processors run in the meantime (contrast branches, classifier-free guidance)
    is left alone.

    Args:
        model: a transformers model with a text decoder, compiled, quantised or spread over devices as you have it.
        layouts: one :class:`TokenLayout` per sequence of the batch that will run.
        spec: what to keep; None keeps nothing (steering only).
        steering: changes to make, applied in order.
        pad_left: left padding of each sequence; default none.
        max_new_tokens: a bound on the answer's length if known; sizes the buffers and the budget check.
        beams: beams or samples per sequence, for the budget check before anything runs.
        tower_apart: whether the caller can look at the vision tower by itself, which errors on it then advise.

    Raises:
        SpecError: layers, heads, coordinates or rows that the model or the prompt does not have; no layouts.
        BudgetExceeded: on entering, or as soon as it is known that what would be kept is over ``spec.budget``.
        CaptureError: on entering while another session of this model is open and one of the two steers; in the first
            pass, if the model's input is not what layouts and padding say.
        ConcurrentUse: two threads run the model at once inside the session.
        UnsupportedAttention: a layer's attention cannot be reproduced.

    Example:
        >>> with Session(model, layouts, CaptureSpec(rows="last")) as session:      # doctest: +SKIP
        ...     model.generate(**inputs)
        >>> session.finish()[0].attn_lhqk.shape                                     # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        layouts: Sequence[TokenLayout],
        spec: CaptureSpec | None = None,
        steering: Sequence[Steering] = (),
        *,
        pad_left: Sequence[int] | None = None,
        max_new_tokens: int | None = None,
        beams: int = 1,
        tower_apart: bool = False,
    ) -> None:
        self.model = unwrap(model)
        self.sites = model_sites(self.model)
        self.layouts = tuple(layouts)
        self.pad_left = tuple(pad_left) if pad_left is not None else (0,) * len(self.layouts)
        self.spec, self.max_new_tokens, self.beams = spec, max_new_tokens, beams
        self.steering = tuple(part for one in steering for part in one.parts() if part.edits_attention())
        self._memory = max((layout.memory for layout in self.layouts), default=0)
        self.recordings: list[Recording] = []
        instead = way_out(apart=tower_apart)
        self._check_choices(instead)
        self._kept_sites = self.sites.running(spec.resolve_layers(self.sites), self._memory) if spec is not None else ()
        self._keeps = {id(site.module) for site in self._kept_sites}
        own = [site for site in self._kept_sites if site.kind != "cross"]
        self._order_site = own[-1] if own else self.sites.last_own if self._kept_sites else None
        self._heads = spec.resolve_heads(self._kept_sites, self.sites) if spec is not None else []
        self._live = self.steering
        self._acts = [s.layers_among(self.sites.layers) for s in self.steering]
        self._plan: BatchPlan | None = None
        self._step: Step | None = None
        self._steered: SteeredRows | None = None
        self._runs = Follower(type(self.model).__name__)
        self._allowed = self._paused = self._depth = 0
        self._before = BeforeWords(spec, self.sites, self.layouts, instead)
        self._watched = self._watched_sites()
        self._windowed = tuple(s.layer_idx for s in self._watched.values() if s.windowed)
        self._exit = ExitStack()

    # -- opening and closing -------------------------------------------------------------------------------------------

    def __enter__(self) -> Session:
        if self.spec is not None:
            home = torch.device("cpu") if self.spec.offload else home_of(self._kept_sites[0].module)
            self._allowed = self._estimate(self.spec, self.beams).check(self.spec.budget, free_memory(home))
        with ExitStack() as stack:
            modules = [site.module for site in self._watched.values()]
            self._depth = door.depth()
            door.subscribe(self, modules)
            stack.callback(door.unsubscribe, self, modules)
            for handle in self._hooks():
                stack.callback(handle.remove)
            stack.callback(lambda: leave_all(self._live))
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()
        if self._recording is not None and error is None:
            self._recording.settle()
        self._step, self._steered, self._live = None, None, self.steering
        self._runs, self._plan = Follower(type(self.model).__name__), None
        self._before.clear()

    @property
    def edits(self) -> bool:
        """Whether attention may be changed."""
        return bool(self.steering)

    @property
    def resting(self) -> bool:
        """Whether runs go unseen and unsteered: paused, or inside a logits processor of the run that is captured."""
        return bool(self._paused) or door.depth() > self._depth

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the model run inside the session unseen and unsteered (contrast branches, probes)."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def finish(
        self,
        beam_indices: torch.Tensor | None = None,
        lengths: Sequence[int] | None = None,
        sequences: torch.Tensor | None = None,
    ) -> tuple[KeptRows, ...]:
        """What was kept of the last run, one record per output sequence.

        Args:
            beam_indices: (B_out, T) as ``generate`` returns them for beam search; -1 after the end.
            lengths: tokens written in each output sequence (end-of-sequence token included); default: all kept.
            sequences: (B_out, N) prompt and answer as ``generate`` returns them; settles the last token's
                log-probability.

        Raises:
            CaptureError: the model never ran, a pass did not come to its end, or beam search ran and ``beam_indices``
                are missing.
            UnsupportedAttention: a layer bypassed the engine.
        """
        if not self.recordings:
            raise CaptureError("nothing was captured: the model did not run inside the capture")
        return kept_outputs(self.recordings[-1], beam_indices, lengths, sequences)

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def _hooks(self) -> Iterator[Any]:
        decoder = self.sites.decoder
        yield from self._before.hooks(self._looks_before)
        yield decoder.register_forward_pre_hook(self._decoder_enters, with_kwargs=True)
        yield decoder.register_forward_hook(self._decoder_leaves, always_call=True)
        if (self.spec is not None and self.spec.hidden) or any(s.sees_hidden() for s in self.steering):
            for layer_idx, block in self.sites.blocks:
                yield block.register_forward_pre_hook(self._block_hook(layer_idx), with_kwargs=True)
        if self.spec is not None and self.spec.top_k and self.spec.answer_rows():
            for head in heads_of(self.model, decoder):
                yield head.register_forward_pre_hook(self._model_enters, with_kwargs=True)
                yield head.register_forward_hook(self._model_leaves)

    def _decoder_enters(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.resting:
            return
        self._runs.enter()
        self._step = self._new_step(args, kwargs)
        if self._recording is not None:
            self._recording.begin(self._step)

    def _decoder_leaves(self, module: Any, args: Any, output: Any) -> None:
        if self.resting or not self._runs.leave():
            return
        if self._recording is not None and self._step is not None and output is not None:
            self._recording.end(self._step)
            if self._before.inside and self._step.begins:
                self._recording.vision, self._recording.hops = self._before.take(self._recording.plan)
        self._steered = None

    def _new_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        states = kwargs.get("inputs_embeds")
        if states is None:
            states = kwargs.get("input_ids", args[0] if args else None)
        if states is None:
            raise CaptureError(f"{type(self.sites.decoder).__name__} ran without input_ids or inputs_embeds")
        cache = cache_of(kwargs)
        held = int(cache.get_seq_length()) if cache is not None else 0
        batch, count = int(states.shape[0]), int(states.shape[1])
        fresh = self._runs.begins(cache, held, count) or self._plan is None or len(self._plan.layouts) != batch
        start = self._memory + held
        plan = self._begin(kwargs, cache, start, count, batch) if fresh or self._plan is None else self._plan
        kept = plan.kept(start, count, states.device)
        step = Step(start, count, batch, kept, begins=fresh, memory=self._memory)
        step.first_columns = self._first_columns(cache, count)
        self._steered = SteeredRows(self._live, self._acts, plan, step) if self.steering else None
        return step

    def _begin(self, kwargs: dict[str, Any], cache: Any, start: int, count: int, batch: int) -> BatchPlan:
        plan = BatchPlan(self.spec, self.layouts, self.pad_left, batch)
        before, last = self._recording, self._step
        # Without a cache every written token makes a longer run; what was encoded is compared in the first one.
        longer = cache is None and self._plan is not None and last is not None and count == last.count + 1
        if longer:
            masked = before is not None and before.visible.masked
        else:
            masked = check_input(plan, kwargs.get("attention_mask"), start + count)
            plan.check_start(start)
        self._live = tuple(s.fresh() for s in self.steering)
        self._plan = plan
        vision, hops = self._before.take(plan)
        if self.spec is not None:
            estimate = self._estimate(self.spec, plan.copies)
            estimate.check(self._allowed, 0)
            self.recordings = []  # before the next one takes its memory
            recording = Recording(
                self.spec, self._kept_sites, self._heads, plan, max_new_tokens=self.max_new_tokens,
                most=estimate.rows_within(self._allowed), vision=vision, hops=hops, own=self._order_site, cache=cache,
            )  # fmt: skip
            recording.visible.masked = masked
            self.recordings = [recording]
        return plan

    def _first_columns(self, cache: Any, count: int) -> dict[int, int]:
        moved = moved_windows(cache, count, self.sites) if self._windowed else {}
        if not self._memory:
            return moved
        beside = self._plan.beside if self._plan is not None else 0
        first = {s.layer_idx: beside if s.kind == "cross" else self._memory for s in self.sites.attention}
        return {layer: at + moved.get(layer, 0) for layer, at in first.items() if at}

    def _block_hook(self, layer_idx: int) -> Any:
        def look(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs.get("hidden_states")
            recording, step = self._recording, self._step
            if not self._runs.inside or self.resting or step is None or hidden is None:
                return
            check_stream(hidden, self.sites.width)
            if self._steered is not None:
                self._steered.see(layer_idx, hidden)
            if recording is None or self.spec is None or not self.spec.hidden:
                return
            prompt = recording.plan.prompt_end - step.start
            if prompt > 0:
                recording.hidden.add(layer_idx, hidden[:, :prompt], self.spec.hidden_coords)

        return look

    def _model_enters(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        log = self._recording.candidates if self._recording is not None else None
        tokens = kwargs.get("decoder_input_ids", kwargs.get("input_ids"))
        if log is not None and tokens is not None and tokens.shape[1] == 1 and not self.resting:
            log.settle(tokens[:, -1])

    def _model_leaves(self, module: Any, args: Any, output: Any) -> None:
        log = self._recording.candidates if self._recording is not None else None
        logits = getattr(output, "logits", None)
        step = self._step
        if log is not None and logits is not None and step is not None and not step.told and not self.resting:
            step.told = True
            log.add(logits, step)

    # -- at the door ---------------------------------------------------------------------------------------------------

    def visit(self, call: door.AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """See :class:`~vlmattn.capture.door.Visitor`."""
        site = self._watched[id(call.module)]
        if self.resting:
            return output
        if id(call.module) in self._before.watched:
            if self._looks_before():
                self._before.look(site, call)
            return output
        step = self._step
        if not self._runs.inside or step is None:
            self._check_recomputed(site)
            return output
        check_call(call)
        check_all_rows(call, step.count)
        if self._recording is not None and self._recording.order.watches(site):
            self._recording.order.look(call.key, step, step.first_columns.get(site.layer_idx, step.memory))
        recording = self._recording if id(call.module) in self._keeps else None
        if recording is not None:
            recording.saw(site, call, step)
        if self._steered is not None and self._steered.acts_in(site.layer_idx):
            return self._steered.apply(site, call, output, recording)
        if recording is not None and step.kept is not None:
            first = step.first_columns.get(site.layer_idx, 0)
            if step.count > 1 or not recording.wait(site, call, first):
                self._keep(recording, site, call, output, step.kept, first)
        return output

    def _check_recomputed(self, site: AttentionSite) -> None:
        # Gradient checkpointing computes layers again after the pass: nothing is new, but edits would be missing.
        if self._plan is not None and torch.is_grad_enabled() and any(site.layer_idx in acts for acts in self._acts):
            raise CaptureError(
                "a steered layer is computed again outside the forward pass, where steering cannot follow: turn "
                "gradient checkpointing off"
            )

    @torch.no_grad()
    def _keep(
        self,
        recording: Recording,
        site: AttentionSite,
        call: door.AttentionCall,
        output: torch.Tensor,
        kept: KeptPart,
        first: int,
    ) -> None:
        count = call.query.shape[2]
        if recording.gathers and count == 1 and not recording.visible.masked:
            recording.gather(site, kept, attention_rows(call, kept.index))
            return
        for part in kept.split(rows_per_chunk(call)):
            scores = row_scores(call, part.index)
            mask = row_mask(call, part.index)
            probs = row_probabilities(call, apply_mask(scores, mask), part.index)
            seen = visible_to(mask, scores) if recording.visible.wants(site, count) else None
            recording.add_rows(site, part, probs, seen, first)
            if recording.spec.head_norms:
                recording.add_head_norms(site, part, output)

    def _looks_before(self) -> bool:
        # A decoder that runs the tower itself does so with every written token, which sees the same again.
        again = self._before.inside and self._step is not None and not self._step.begins
        return not self.resting and not again

    # -- small things --------------------------------------------------------------------------------------------------

    @property
    def _recording(self) -> Recording | None:
        return self.recordings[-1] if self.recordings else None

    def _check_choices(self, instead: str) -> None:
        if not self.layouts:
            raise SpecError("no layout was given: a session needs one for each sequence that will run")
        if len(self.pad_left) != len(self.layouts):
            raise SpecError(f"pad_left must have one entry per layout, {len(self.layouts)}; got {len(self.pad_left)}")
        for steering in self.steering:
            steering.check(self.sites.width, self.layouts)
        check_received(self.spec, self.layouts, self.steering)
        if self.spec is None:
            return
        width = self.sites.width
        wrong = [c for c in self.spec.hidden_coords if c < 0 or (width is not None and c >= width)]
        if wrong:
            raise SpecError(f"hidden_coords {wrong} do not exist: the residual stream has {width} coordinates")
        if any(len(layout.latent_positions) for layout in self.layouts):
            check_hops(self.spec)
        if self.spec.vision is not None:
            check_tower(self.spec.vision, self.model, self.sites, instead)
            check_views(self.layouts)

    def _watched_sites(self) -> dict[int, AttentionSite]:
        watched = {id(site.module): site for site in self._kept_sites}
        if any(steering.layers is None for steering in self.steering):
            self.sites.check_all_seen()
        acts = frozenset().union(*self._acts)
        watched |= {id(s.module): s for s in self.sites.attention if s.layer_idx in acts}
        if self._order_site is not None:
            watched[id(self._order_site.module)] = self._order_site
        return watched | self._before.watched

    def _estimate(self, spec: CaptureSpec, copies: int) -> CaptureEstimate:
        tokens = self.max_new_tokens if self.max_new_tokens is not None else 32
        return estimate_capture(spec, self.model, self.layouts, self.pad_left, max_new_tokens=tokens, beams=copies)
