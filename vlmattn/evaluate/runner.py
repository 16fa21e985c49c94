"""Has a benchmark answered by a model: in batches, by one process or many, killed and resumed at will."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import FileError, SpecError, VlmattnError
from vlmattn.evaluate.manifest import Manifest, manifest_of
from vlmattn.evaluate.plan import batches, mine, seed_of
from vlmattn.evaluate.store import Answer, Store, locked

if TYPE_CHECKING:
    from vlmattn.api import Vlm
    from vlmattn.capture import Steering
    from vlmattn.hallucination import Benchmark, Item

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Decoding:
    """How answers are written.

    Attributes:
        max_new_tokens: limit. system: system text. seed: of sampling; every item gets one of its own from it. generate:
            further arguments of ``model.generate``, plain values: ``do_sample``, ``temperature``, ``num_beams`` …

    Raises:
        SpecError: no room for an answer, or an argument that is no plain value.
    """

    max_new_tokens: int = 64
    system: str | None = None
    seed: int = 0
    generate: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise SpecError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        odd = [n for n, v in self.generate.items() if not isinstance(v, (bool, int, float, str, type(None)))]
        if odd:
            raise SpecError(f"{', '.join(odd)} cannot be written into a manifest: give plain values")

    @property
    def samples(self) -> bool:
        """Whether chance decides."""
        return bool(self.generate.get("do_sample", False))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        told: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "system": self.system, "seed": self.seed}
        return told | {"generate": dict(self.generate)}


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        folder: where it is. answers: by item id. answered: how many items were answered in this sitting.
    """

    folder: Path
    answers: Mapping[str, str]
    answered: int


def evaluate(
    vlm: Vlm,
    benchmark: Benchmark,
    folder: str | Path,
    *,
    steering: Sequence[Steering] = (),
    decoding: Decoding | None = None,
    batch: int = 8,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Finished:
    """Answer all items of a benchmark that have no answer in the folder yet.

    Started by ``accelerate launch --multi_gpu`` (or ``torchrun``; on CPUs too) with several processes, they share the
    work; the results are the same, item for item. With sampling, items are answered one by one, each with its own seed.

    Args:
        vlm: the model, on this process's device. folder: of the run; an earlier run with the same settings goes on.
        steering: as in :meth:`Vlm.ask`. decoding: default: greedy, 64 tokens. batch: items at once. limit: only the
            first so many items. progress: called with how many items are done, and of how many.

    Raises:
        SpecError: items that cannot be told apart, or a folder of another run. RunInProgress: another run is writing
            it. FileError: it cannot be written; what was answered stays.
    """
    state, told = processes(), decoding if decoding is not None else Decoding()
    items = _first(benchmark.items(), limit)
    size = 1 if told.samples else batch
    plan = batches(items, size)
    store = Store(folder)
    now = manifest_of(
        vlm,
        benchmark.name,
        items,
        decoding=told.to_dict(),
        steering=[one.describe() for one in steering],
        batch=size,
    )
    if not state.is_main_process:
        return _share(vlm, items, plan, store, steering, told, state, progress)
    with locked(store.folder):
        before = Manifest.load(store.folder)
        if before is None and store.committed():
            raise FileError(f"{folder} holds answers, and no manifest that says of what: give another folder")
        (now if before is None else before.joined_by(now)).save(store.folder)
        return _share(vlm, items, plan, store, steering, told, state, progress)


def processes() -> Any:
    """Who this process is among those that share the work: accelerate's state, on CPUs where there is no GPU."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def _first(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    if limit is not None and limit < 1:
        raise SpecError(f"limit must be at least 1, got {limit}")
    return items[:limit]


def _share(
    vlm: Vlm,
    items: Sequence[Item],
    plan: Sequence[tuple[Item, ...]],
    store: Store,
    steering: Sequence[Steering],
    decoding: Decoding,
    state: Any,
    progress: Progress | None,
) -> Finished:
    """This process's part of the work; the main process joins all parts."""
    state.wait_for_everyone()  # the manifest is written, nothing else is
    done = store.committed()
    state.wait_for_everyone()  # everybody has seen the same
    numbers = mine(len(plan), list(done), state.process_index, state.num_processes)
    count = sum(len(answers) for answers in done.values())
    if progress is not None:
        progress(count, len(items))
    answered = 0
    with store.writing(state.process_index):
        for number in numbers:
            store.commit(number, _answered(vlm, plan[number], steering, decoding))
            answered += len(plan[number])
            if progress is not None:
                progress(min(count + answered * state.num_processes, len(items)), len(items))
    state.wait_for_everyone()
    if state.is_main_process:
        store.join([item.id for item in items])
    state.wait_for_everyone()
    found = {one.id: one.answer for answers in store.committed().values() for one in answers}
    return Finished(store.folder, {item.id: found[item.id] for item in items}, answered)


def _answered(vlm: Vlm, part: Sequence[Item], steering: Sequence[Steering], decoding: Decoding) -> list[Answer]:
    from vlmattn.api.answers import answers_of
    from vlmattn.api.request import Request

    try:
        request = Request(
            items=tuple((list(item.images), item.prompt) for item in part),
            system=decoding.system,
            steering=tuple(steering),
            max_new_tokens=decoding.max_new_tokens,
            seed=seed_of(decoding.seed, part[0].id) if decoding.samples else None,
            generate=dict(decoding.generate),
        )
        written = answers_of(vlm, request)
    except VlmattnError as error:
        raise type(error)(f"items {', '.join(item.id for item in part)[:200]}: {error}") from error
    return [Answer(item.id, one.text, len(one.ids), one.ended) for item, one in zip(part, written, strict=True)]
