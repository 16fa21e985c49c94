"""The context manager that stands at the door while a model runs."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlmattn.capture import door
from vlmattn.capture.cost import free_memory
from vlmattn.capture.kept import KeptRows
from vlmattn.capture.recording import Recording
from vlmattn.capture.rows import (
    apply_mask,
    check_call,
    row_mask,
    row_probabilities,
    row_scores,
    rows_per_chunk,
    visible,
)
from vlmattn.capture.sites import AttentionSite, model_sites, unwrap
from vlmattn.capture.spec import CaptureSpec
from vlmattn.capture.steer import SteeredRows
from vlmattn.capture.steering import Steering
from vlmattn.capture.step import BatchPlan, KeptPart, Step
from vlmattn.capture.tower import tower_rows
from vlmattn.core.errors import CaptureError, ConcurrentUse, UnsupportedAttention
from vlmattn.core.layout import TokenLayout

_TWO_THREADS = (
    "{} is run by two threads inside one capture: run them one after the other, or give each thread its own model"
)


class Session:
    """Keeps attention rows of a model, and applies steering, while it is open.

    Args:
        model: a transformers model with a text decoder, compiled, quantised or spread over devices as you have it.
        layouts: one :class:`TokenLayout` per sequence of the batch that will run.
        spec: what to keep; None keeps nothing (steering only).
        steering: changes to make, applied in order.
        pad_left: left padding of each sequence; default none.
        max_new_tokens: a bound on the answer's length if known; sizes the buffers and the budget check.
        beams: beams or samples per sequence, for the budget check.

    Raises:
        BudgetExceeded: on entering, if what would be kept is over ``spec.budget``.
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
    ) -> None:
        self.model = unwrap(model)
        self.sites = model_sites(self.model)
        self.layouts = tuple(layouts)
        self.pad_left = tuple(pad_left) if pad_left is not None else (0,) * len(self.layouts)
        self.spec, self.steering = spec, tuple(s for s in steering if s.edits_attention())
        self.max_new_tokens, self.beams = max_new_tokens, beams
        self.recordings: list[Recording] = []
        self._kept_sites = spec.resolve_layers(self.sites) if spec is not None else ()
        self._watched = self._watched_sites()
        self._plan: BatchPlan | None = None
        self._step: Step | None = None
        self._steered: SteeredRows | None = None
        self._thread: int | None = None
        self._runner: int | None = None
        self._cache: weakref.ref[Any] | None = None
        self._left: list[weakref.ref[Any]] = []
        self._paused = 0
        self._tower: dict[int, list[torch.Tensor]] = {}
        self._tower_modules = {id(site.module) for site in self.sites.vision}
        self._exit = ExitStack()

    # -- opening and closing -------------------------------------------------------------------------------------------

    def __enter__(self) -> Session:
        if self.spec is not None:
            self._check_budget(self.spec)
        with ExitStack() as stack:
            modules = [site.module for site in self._watched.values()]
            door.subscribe(self, modules)
            stack.callback(door.unsubscribe, self, modules)
            for handle in self._hooks():
                stack.callback(handle.remove)
            if "torch._dynamo" in sys.modules:  # compiled code would not stop at the door
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()
        self._step, self._thread, self._steered = None, None, None

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
            CaptureError: the model never ran. UnsupportedAttention: a layer bypassed the engine.
        """
        if not self.recordings:
            raise CaptureError("nothing was captured: the model did not run inside the capture")
        recording = self.recordings[-1]
        recording.check_complete()
        if recording.candidates is not None and sequences is not None and beam_indices is None:
            recording.candidates.settle_last(sequences)
        lines = _beam_lines(beam_indices)
        outputs = len(lines) if lines is not None else len(recording.plan.layouts)
        kept = []
        for index in range(outputs):
            beams = lines[index] if lines is not None else None
            item = int(beams[0]) if beams is not None and len(beams) else index
            written = lengths[index] if lengths is not None else (len(beams) if beams is not None else None)
            kept.append(recording.kept(item, beams, written))
        return tuple(kept)

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def _hooks(self) -> Iterator[Any]:
        decoder = self.sites.decoder
        yield decoder.register_forward_pre_hook(self._decoder_enters, with_kwargs=True)
        yield decoder.register_forward_hook(self._decoder_leaves, always_call=True)
        if self.spec is not None and self.spec.hidden:
            for layer_idx, block in self.sites.blocks:
                yield block.register_forward_pre_hook(self._block_hook(layer_idx), with_kwargs=True)
        if self.spec is not None and self.spec.top_k and self.spec.answer_rows() and self.model is not decoder:
            yield self.model.register_forward_pre_hook(self._model_enters, with_kwargs=True)
            yield self.model.register_forward_hook(self._model_leaves)

    def _decoder_enters(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._paused:
            return
        me = threading.get_ident()
        if self._thread is not None and self._thread != me:
            raise ConcurrentUse(_TWO_THREADS.format(type(self.model).__name__))
        self._thread = me
        self._step = self._new_step(args, kwargs)
        if self._recording is not None:
            self._recording.begin(self._step)

    def _decoder_leaves(self, module: Any, args: Any, output: Any) -> None:
        if self._paused or self._thread != threading.get_ident():
            return
        if self._recording is not None and self._step is not None and output is not None:
            self._recording.end(self._step)
        self._thread, self._steered = None, None

    def _new_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step:
        states = kwargs.get("inputs_embeds")
        if states is None:
            states = kwargs.get("input_ids", args[0] if args else None)
        if states is None:
            raise CaptureError(f"{type(self.sites.decoder).__name__} ran without input_ids or inputs_embeds")
        cache = _cache_of(kwargs)
        start = int(cache.get_seq_length()) if cache is not None else 0
        batch, count = int(states.shape[0]), int(states.shape[1])
        self._follow(cache, fresh=start == 0 or self._plan is None)
        if start == 0 or self._plan is None or len(self._plan.layouts) != batch:
            self._plan = BatchPlan(self.spec, self.layouts, self.pad_left, batch)
            if self.spec is not None:
                self.recordings.append(Recording(self.spec, self._kept_sites, self._plan, self.max_new_tokens))
                self.recordings[-1].vision, self._tower = self._tower, {}
        step = Step(start, count, batch, self._plan.kept(start, count, states.device))
        step.first_columns = self._first_columns(cache, count)
        self._steered = SteeredRows(self.steering, self._plan, step) if self.steering else None
        return step

    def _follow(self, cache: Any, *, fresh: bool) -> None:
        # One run goes on where it stopped: in its own thread, with its own cache.
        held = self._cache() if self._cache is not None else None
        if fresh:
            self._left += [self._cache] if self._cache is not None and held is not cache else []
            self._cache, self._runner = None, threading.get_ident()
        elif self._runner != threading.get_ident():
            raise ConcurrentUse(_TWO_THREADS.format(type(self.model).__name__))
        elif any(left() is cache for left in self._left):
            raise CaptureError(
                f"two runs of {type(self.model).__name__} take turns inside one capture, so their rows would be mixed: "
                "run the second one under session.paused()"
            )
        if cache is not None and self._cache is None:
            self._cache = weakref.ref(cache)

    def _first_columns(self, cache: Any, count: int) -> dict[int, int]:
        if cache is None:
            return {}
        windowed = [s.layer_idx for s in self._watched.values() if s.windowed]
        offsets = {layer: int(cache.get_mask_sizes(count, layer)[1]) for layer in windowed}
        return {layer: offset for layer, offset in offsets.items() if offset}

    def _block_hook(self, layer_idx: int) -> Any:
        def look(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs.get("hidden_states")
            recording, step = self._recording, self._step
            if self._paused or recording is None or step is None or hidden is None or self.spec is None:
                return
            if step.start < recording.plan.prompt_end:
                recording.hidden.add(layer_idx, hidden, self.spec.hidden_coords)

        return look

    def _model_enters(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        log = self._recording.candidates if self._recording is not None else None
        tokens = kwargs.get("input_ids")
        if not self._paused and log is not None and tokens is not None and tokens.shape[1] == 1:
            log.settle(tokens[:, -1])

    def _model_leaves(self, module: Any, args: Any, output: Any) -> None:
        log = self._recording.candidates if self._recording is not None else None
        logits = getattr(output, "logits", None)
        if not self._paused and log is not None and logits is not None and self._step is not None:
            log.add(logits, self._step)

    # -- at the door ---------------------------------------------------------------------------------------------------

    def visit(self, call: door.AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """See :class:`~vlmattn.capture.door.Visitor`."""
        site = self._watched[id(call.module)]
        if self._paused:
            return output
        if id(call.module) in self._tower_modules:
            self._look_at_tower(site, call)
            return output
        if self._step is None:
            return output
        check_call(call)
        recording = self._recording if site in self._kept_sites else None
        if recording is not None:
            recording.saw(site.layer_idx)
            recording.add_values(site, call, self._step)
        if self._steered is not None and self._steered.acts_in(site.layer_idx):
            return self._steered.apply(site, call, output, recording)
        if recording is not None and self._step.kept is not None:
            self._keep(recording, site, call, output, self._step.kept)
        return output

    @torch.no_grad()
    def _keep(
        self, recording: Recording, site: AttentionSite, call: door.AttentionCall, output: torch.Tensor, kept: KeptPart
    ) -> None:
        if recording.gathers and self._step is not None and self._step.count == 1:
            scores = apply_mask(row_scores(call, kept.index), row_mask(call, kept.index))
            recording.gather(site, kept, row_probabilities(call, scores))
            return
        first = self._step.first_columns.get(site.layer_idx, 0) if self._step is not None else 0
        for part in kept.split(rows_per_chunk(call)):
            scores = row_scores(call, part.index)
            mask = row_mask(call, part.index)
            probs = row_probabilities(call, apply_mask(scores, mask))
            seen = visible(mask, scores)[:, :1] if site.windowed else None
            recording.add_rows(site, part, probs, seen, first)
            if recording.spec.head_norms:
                recording.add_head_norms(site, part, output)

    def _look_at_tower(self, site: AttentionSite, call: door.AttentionCall) -> None:
        if self.spec is not None and self.spec.vision is not None:
            self._tower.setdefault(site.layer_idx, []).append(tower_rows(call, self.spec.vision).cpu())

    # -- small things --------------------------------------------------------------------------------------------------

    @property
    def _recording(self) -> Recording | None:
        return self.recordings[-1] if self.recordings else None

    def _watched_sites(self) -> dict[int, AttentionSite]:
        watched = {id(site.module): site for site in self._kept_sites}
        if self.steering:
            if any(steering.layers is None for steering in self.steering):
                self.sites.check_all_seen()
            watched |= {
                id(s.module): s for s in self.sites.attention if any(e.acts_in(s.layer_idx) for e in self.steering)
            }
        if self.spec is not None and self.spec.vision is not None:
            watched |= {id(site.module): site for site in self.sites.vision}
        return watched

    def _check_budget(self, spec: CaptureSpec) -> None:
        tokens = self.max_new_tokens if self.max_new_tokens is not None else 32
        estimate = spec.estimate(self.model, self.layouts, max_new_tokens=tokens, beams=self.beams)
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        estimate.check(spec.budget, free_memory(torch.device("cpu") if spec.offload else device))


def _cache_of(kwargs: dict[str, Any]) -> Any:
    # transformers 5.24 calls it ``cache``, earlier ones ``past_key_values``.
    cache = kwargs.get("past_key_values")
    cache = cache if cache is not None else kwargs.get("cache")
    if "Paged" in type(cache).__name__:
        raise UnsupportedAttention("the model runs on a paged cache: turn continuous batching off")
    return cache


def _beam_lines(beam_indices: torch.Tensor | None) -> list[NDArray[np.int64]] | None:
    if beam_indices is None:
        return None
    return [line[line >= 0] for line in beam_indices.cpu().numpy().astype(np.int64)]
