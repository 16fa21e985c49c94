"""A vision-language model that says where it looked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.adapters import Encoded, adapter_for
from vlmattn.adapters.videos import may_run_together
from vlmattn.api.checking import Check, checked, checks_of
from vlmattn.api.checks import check_finite, named_options
from vlmattn.api.endings import end_tokens, setting, written_answers
from vlmattn.api.findings import Findings
from vlmattn.api.general import GeneralPasses
from vlmattn.api.request import DEFAULT_SPEC, Prompt, Request
from vlmattn.api.run import Run
from vlmattn.api.studies import HeadStudies
from vlmattn.api.tower import seen_apart
from vlmattn.api.writing import searched, searches, steered_settings, steering_in
from vlmattn.capture import CaptureEstimate, CaptureSpec, Session, Steering, model_sites
from vlmattn.capture.cost import home_of
from vlmattn.core.errors import ImageError, SpecError
from vlmattn.core.images import load_image
from vlmattn.core.layout import TokenLayout, extend_layout
from vlmattn.core.provenance import Provenance
from vlmattn.core.videos import Video, Visual
from vlmattn.display import Facts
from vlmattn.trace import Trace, trace_from_kept

if TYPE_CHECKING:
    from vlmattn.api.verify import Verification
    from vlmattn.core.head_preset import HeadPreset
    from vlmattn.detection import Calibration, Detector
    from vlmattn.sinks import SinkCoordinates


class Vlm(Findings, HeadStudies):
    """A model with its processor; made by :func:`vlmattn.load`.

    Attributes:
        model, processor: the transformers objects. adapter: what knows the family.
        name, revision: where they came from.
        sink_coordinates: of :meth:`known_sinks`, once they are known; may be set, such as to a loaded calibration.
        head_presets: heads that :meth:`use_heads` was told, by name.
        detector: what risks of words go by, of :meth:`use_detector`; None for none.
        general: passes of a general prompt, kept per picture for refinement.
    """

    def __init__(self, model: Any, processor: Any, *, name: str, revision: str | None = None) -> None:
        self.model, self.processor = model, processor
        self.adapter = adapter_for(model, processor)
        self.name, self.revision = name, revision
        self.sink_coordinates: SinkCoordinates | None = None
        self.head_presets: dict[str, HeadPreset] = {}
        self.detector: Detector | Calibration | None = None
        self._steering: tuple[Steering, ...] = ()
        self.general = GeneralPasses()
        self._running = threading.RLock()

    @property
    def family(self) -> str:
        """Name of the model's family."""
        return self.adapter.spec.name

    @property
    def device(self) -> Any:
        """Where the input goes: the device that the embeddings are computed on."""
        return home_of(self.model.get_input_embeddings())

    @property
    def dtype(self) -> Any:
        """Numeric type of the model's floating-point input."""
        return self.model.dtype

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(
        self,
        image: Any,
        question: Prompt,
        *,
        answer: str | Sequence[int] | None = None,
        system: str | None = None,
        capture: CaptureSpec = DEFAULT_SPEC,
        max_new_tokens: int = 64,
        seed: int | None = None,
        steering: Sequence[Steering] = (),
        check: Check | bool = False,
        **generate: Any,
    ) -> Run:
        """Ask about one picture or video, or about several at once, and keep where the model looked.

        Args:
            image: a path, bytes, PIL picture or array, or a :class:`vlmattn.Video`; or a list of them for a question
                about several.
            question: text, or chat messages.
            answer: a given answer, as text or token ids: nothing is generated, and the rows are those of this answer.
            system: system text, for models whose template has a place for it.
            capture: what to keep; default: rows of all question and answer tokens, all layers and heads.
            max_new_tokens: how much the model may write.
            seed: of sampling (with ``do_sample=True``).
            steering: changes to make while it runs, after those of :meth:`steer`.
            check: look for words that nothing supports, told in ``run.checked``; a :class:`vlmattn.api.Check` says by
                what, and what is done then: mark, abstain, look again, or answer under other steering.
            generate: goes to ``model.generate`` (``do_sample``, ``num_beams``, ``temperature`` …).

        Raises:
            ImageError, PromptError: what was given cannot be used.
            BudgetExceeded: before anything runs, if too much would be kept.
        """
        return self.ask_many(
            [(image, question)],
            answers=None if answer is None else [answer],
            system=system,
            capture=capture,
            max_new_tokens=max_new_tokens,
            seed=seed,
            steering=steering,
            check=check,
            **generate,
        )[0]

    def ask_many(
        self,
        items: Sequence[tuple[Any, Prompt]],
        *,
        answers: Sequence[str | Sequence[int]] | None = None,
        system: str | None = None,
        capture: CaptureSpec = DEFAULT_SPEC,
        max_new_tokens: int = 64,
        seed: int | None = None,
        steering: Sequence[Steering] = (),
        check: Check | bool | Sequence[Check | bool] = False,
        **generate: Any,
    ) -> list[Run]:
        """Ask (image, question) pairs in one padded batch, one :class:`Run` each; ``check`` for all, or one each."""
        if not isinstance(items, (list, tuple)) or not isinstance(steering, (list, tuple)):
            wrong = steering if isinstance(items, (list, tuple)) else items
            raise SpecError(f"items must be a list of (image, question) pairs, steering a list; got {wrong!r}")
        wanted = checks_of(self, check, len(items))
        request = Request(tuple(items), system=system, capture=capture, steering=(*self._steering, *steering))
        if answers is not None:
            return checked(self.run(replace(request, answers=tuple(answers))), wanted)
        return checked(self.run(replace(request, max_new_tokens=max_new_tokens, seed=seed, generate=generate)), wanted)

    def run(self, request: Request) -> list[Run]:
        """Run a request exactly as it stands, without the steering of :meth:`steer`; one :class:`Run` per item.

        Threads that share this object take turns at the model. Items run in one padded batch, or one after the other
        where the family's spec says that a batch would change what the model computes.
        """
        pictures = [self._pictures(image) for image, _ in request.items]
        alone = searches(request) or not may_run_together(self.adapter.spec, pictures)
        if len(request.items) > 1 and alone:
            return [run for number in range(len(request.items)) for run in self.run(request.at(number))]
        encoded = self.encode(pictures, [question for _, question in request.items], system=request.system)
        request = steering_in(self, request)
        for change in request.steering:
            encoded = change.edit_input(encoded)
        with self._running:
            if searches(request):
                request = replace(request, answers=(searched(self, encoded, request),))
            traces = (
                self._follow(encoded, request, pictures)
                if request.answers is not None
                else self._write(encoded, request, pictures)
            )
        parts = zip(pictures, request.items, traces, strict=True)
        return [Run(self, group, trace, request.only(group, item[1])) for group, item, trace in parts]

    @contextmanager
    def steer(self, *steering: Steering) -> Iterator[Vlm]:
        """Apply steering to every question asked inside the context; contexts nest, and are undone on leaving."""
        before = self._steering
        self._steering = (*before, *steering)
        try:
            yield self
        finally:
            self._steering = before

    @contextmanager
    def alone(self) -> Iterator[Vlm]:
        """Keep other threads that share this object from the model meanwhile."""
        with self._running:
            yield self

    # -- before running ------------------------------------------------------------------------------------------------

    def encode(
        self, pictures: Sequence[Sequence[Visual]], prompts: Sequence[Prompt], *, system: str | None = None
    ) -> Encoded:
        """Model inputs and token layouts of a batch, on the model's device."""
        images = [_prepared(group) for group in pictures]
        encoded = self.adapter.encode(images, list(prompts), system=system)
        return encoded.to(self.device, self.dtype)

    def plan(
        self,
        image: Any,
        question: Prompt,
        *,
        capture: CaptureSpec = DEFAULT_SPEC,
        max_new_tokens: int = 64,
    ) -> tuple[TokenLayout, CaptureEstimate]:
        """The token layout of a question, and what its capture would cost in bytes; nothing runs."""
        group = self._pictures(image)
        encoded = self.adapter.encode([_prepared(group)], [question])
        return encoded.layouts[0], capture.estimate(self.model, encoded, max_new_tokens=max_new_tokens)

    def verify(self, image: Any = None, question: str = "What is in the picture?", **options: Any) -> Verification:
        """Prove on this model that capture changes neither tokens nor logits; see :func:`vlmattn.api.verify.verify`."""
        from vlmattn.api.verify import verify

        return verify(self, image, question, **options)

    def describe(self) -> Facts:
        """Plain values: model, family, tower, layers, kernel."""
        sites = model_sites(self.model)
        kernel = self._kernel()
        told = self.adapter.describe() | {
            "model": self.name,
            "revision": self.revision,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "attention": kernel,
            "layers": list(sites.layers),
            "heads": sites.attention[0].heads,
            "windowed_layers": [s.layer_idx for s in sites.attention if s.windowed],
            "bypassing": list(sites.bypassing),
        }
        return Facts(told)

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()

    def __repr__(self) -> str:
        kernel, dtype = self._kernel(), str(self.dtype).removeprefix("torch.")
        return f"<Vlm {self.name!r} ({self.family}), {dtype}, {kernel}, on {self.device}>"

    # -- running -------------------------------------------------------------------------------------------------------

    def _write(self, encoded: Encoded, request: Request, pictures: Sequence[Sequence[Visual]]) -> list[Trace]:
        import torch

        settings = self._settings(request)
        _check_one_token_per_pass(request.capture, lambda name: setting(self.model, settings, name))
        session = Session(
            self.model,
            encoded.layouts,
            request.capture,
            request.steering,
            pad_left=encoded.pad_left,
            max_new_tokens=request.max_new_tokens,
            beams=int(setting(self.model, settings, "num_beams") or 1),
            tower_apart=seen_apart(self, encoded.layouts, request.capture),
        )
        with (
            steered_settings(self.model, encoded, request, settings) as steered,
            session,
            torch.no_grad(),
            _seeded(request.seed),
            named_options(request.generate),
        ):
            output = self.model.generate(**encoded.inputs, **steered)
        pairs = zip(encoded.layouts, encoded.pad_left, strict=True)
        prompt = max(pad + layout.answer_start - layout.memory for layout, pad in pairs)
        written = written_answers(self.model, self.adapter.tokenizer, output.sequences, prompt, settings)
        beam_indices = getattr(output, "beam_indices", None)
        kept = session.finish(beam_indices, [len(ids) for ids in written], output.sequences)
        return [
            self._trace(one, layout, ids, group, request)
            for one, layout, ids, group in zip(kept, encoded.layouts, written, pictures, strict=True)
        ]

    def _follow(self, encoded: Encoded, request: Request, pictures: Sequence[Sequence[Visual]]) -> list[Trace]:
        import torch

        from vlmattn.api.follow import with_answers

        longer, written = with_answers(self.adapter, encoded, request.answers or ())
        session = Session(
            self.model,
            longer.layouts,
            request.capture,
            request.steering,
            pad_left=longer.pad_left,
            max_new_tokens=0,
            tower_apart=seen_apart(self, longer.layouts, request.capture),
        )
        with session, torch.no_grad():
            self.model(**longer.inputs, use_cache=False)
        kept = session.finish()
        return [
            self._trace(k, layout, ids, group, request)
            for k, layout, ids, group in zip(kept, encoded.layouts, written, pictures, strict=True)
        ]

    def _settings(self, request: Request) -> dict[str, Any]:
        options = dict(request.generate)
        settings: dict[str, Any] = {"max_new_tokens": request.max_new_tokens}
        if options.get("stop_strings"):
            settings["tokenizer"] = self.adapter.tokenizer
        if "generation_config" not in options:
            settings["do_sample"] = False
        if not (options.get("do_sample", False) or "generation_config" in options):
            # Sampling settings of a checkpoint mean nothing to greedy decoding and would only raise a warning.
            settings |= {"temperature": None, "top_p": None, "top_k": None}
        if self._pad_token() is not None:
            settings["pad_token_id"] = self._pad_token()
        processors = [p for p in (s.logits_processor() for s in request.steering) if p is not None]
        if processors:
            options["logits_processor"] = [*(options.get("logits_processor") or ()), *processors]
        return self.adapter.generation() | settings | options | {"return_dict_in_generate": True}

    def _pad_token(self) -> int | None:
        tokenizer = self.adapter.tokenizer
        for value in (tokenizer.pad_token_id, *end_tokens(self.model, {}), tokenizer.eos_token_id):
            if value is not None:
                return int(value)
        return None

    def _trace(
        self, kept: Any, layout: TokenLayout, ids: np.ndarray, group: Sequence[Visual], request: Request
    ) -> Trace:
        text, spans = self.adapter.decode_answer(ids)
        whole = extend_layout(layout, ids, text, spans)
        wrote = request.answers is None or any(s.searches() for s in request.steering)
        how = "generated" if wrote else "given answer"
        acting = [s for s in request.steering if request.answers is None or s.acts_without_writing()]
        notes = [note for picture in group for note in picture.notes]
        provenance = Provenance(
            model=self.name,
            revision=self.revision,
            family=self.family,
            dtype=str(self.dtype).removeprefix("torch."),
            attention=self._kernel(),
            prompt=layout.text,
            question=layout.text[slice(*layout.question_span)],
            answer=text.strip(),
            image=", ".join(picture.name for picture in group),
            rows=" + ".join(str(rule) for rule in request.capture.row_rules),
            convention=request.capture.convention or "",
            steps=(*notes, how, *(s.describe() for s in acting)),
            seed=request.seed,
        )
        trace = trace_from_kept(kept, whole, provenance, depth=model_sites(self.model).depth)
        check_finite(trace)
        return trace

    def _pictures(self, image: Any) -> tuple[Visual, ...]:
        if not isinstance(image, (list, tuple)):
            return (image,) if isinstance(image, Video) else (load_image(image),)
        return tuple(_picture(one, number, len(image)) for number, one in enumerate(image))

    def _kernel(self) -> str:
        config = model_sites(self.model).attention[0].module.config
        return str(getattr(config, "_attn_implementation", "") or "eager")


def _check_one_token_per_pass(capture: CaptureSpec, setting: Callable[[str], Any]) -> None:
    several = [n for n in ("prompt_lookup_num_tokens", "assistant_model") if setting(n) is not None]
    if not several and capture.answer_rows() and setting("use_cache") is False:
        several = ["use_cache=False"]
    if several:
        raise SpecError(f"{several[0]} runs several tokens in one pass, so their rows cannot be kept: leave it out")


def _prepared(group: Sequence[Visual]) -> list[Any]:
    return [seen if isinstance(seen, Video) else seen.image for seen in group]


def _picture(source: Any, number: int, count: int) -> Visual:
    if isinstance(source, Video):
        return source
    try:
        return load_image(source)
    except ImageError as error:
        if count == 1:
            raise
        raise ImageError(f"picture {number} of {count} (counted from 0): {error}") from error


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    import torch

    if seed is None:
        yield
        return
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
