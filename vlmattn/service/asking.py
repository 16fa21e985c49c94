"""From requests to runs of the model, and everything that needs its passes; all of it in the worker's thread."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import MapError, SpecError
from vlmattn.service.reading import Wanted
from vlmattn.service.worker import Job, check_wanted, stopped_when_given_up

if TYPE_CHECKING:
    from vlmattn.api import Look, Run, Vlm, WordGrounding
    from vlmattn.api.refinement import Refinement
    from vlmattn.trace import Span


@dataclass
class Found:
    """What the model's passes gave for one request. ``whys``: why a word has no map; ``looks`` has None there."""

    wanted: Wanted
    run: Run
    together: int
    spans: list[Span] = field(default_factory=list)
    left_out: int = 0
    words: list[WordGrounding] = field(default_factory=list)
    looks: list[Look | None] = field(default_factory=list)
    whys: list[str | None] = field(default_factory=list)
    drawn: Look | None = None
    second: tuple[Refinement, Run] | None = None
    waited: float = 0.0
    ran: float = 0.0


def key_of(wanted: Wanted) -> Hashable:
    """Requests of equal keys may run in one batch."""
    return wanted.asked.answer is None, wanted.asked.max_new_tokens


def check_choices(vlm: Vlm, wanted: Wanted) -> None:
    """Refuse what this model cannot do, before anything runs.

    Raises:
        SpecError: layers or heads that it does not have. PromptError: a question that it cannot be asked.
    """
    from vlmattn.adapters.messages import check_encodable, conversation
    from vlmattn.api.own_heads import own_heads
    from vlmattn.capture import model_sites

    asked, sites = wanted.asked, model_sites(vlm.model)
    for text in (asked.answer, asked.overlay_of, *asked.words):
        check_encodable(text or "")
    conversation(asked.question, ("image",), system=None, placeholders=())
    _check_numbers("layers", asked.layers, sites.depth)
    _check_numbers("heads", asked.heads, max(site.heads for site in sites.attention))
    own_heads(vlm, asked.heads)


def _check_numbers(name: str, chosen: Any, count: int) -> None:
    for number in chosen if isinstance(chosen, list) else ():
        if not -count <= number < count:
            raise SpecError(f"{name} {number} does not exist: the model has 0 to {count - 1} (or -{count} to -1)")


def run_batch(vlm: Vlm, jobs: Sequence[Job], max_words: int) -> list[Any]:
    """A :class:`Found` or an exception for each job; one that cannot be run in a batch is run by itself."""
    start, together = time.monotonic(), len(jobs)
    try:
        with stopped_when_given_up(vlm.model, jobs):
            runs: Sequence[Run | Exception] = _asked(vlm, jobs)
    except Exception as error:  # noqa: BLE001 (told to the one who asked)
        runs = [error] if together == 1 else [_alone(vlm, job) for job in jobs]
        together = 1
    asking = time.monotonic() - start
    return [
        run if isinstance(run, Exception) else _finished(job, run, together, asking, max_words)
        for job, run in zip(jobs, runs, strict=True)
    ]


def _asked(vlm: Vlm, jobs: Sequence[Job]) -> list[Run]:
    wanted: list[Wanted] = [job.payload for job in jobs]
    answers = [one.asked.answer for one in wanted]
    return vlm.ask_many(
        [(one.picture, one.asked.question) for one in wanted],
        answers=None if None in answers else answers,
        max_new_tokens=wanted[0].asked.max_new_tokens,
    )


def _alone(vlm: Vlm, job: Job) -> Run | Exception:
    try:
        with stopped_when_given_up(vlm.model, [job]):
            return _asked(vlm, [job])[0]
    except Exception as error:  # noqa: BLE001 (told to the one who asked)
        return error


def _finished(job: Job, run: Run, together: int, asking: float, max_words: int) -> Found | Exception:
    start = time.monotonic()
    try:
        with stopped_when_given_up(run.vlm.model, [job]):
            found = _found(job, run, together, max_words)
    except Exception as error:  # noqa: BLE001 (told to the one who asked)
        return error
    found.waited, found.ran = job.waited, asking + time.monotonic() - start
    return found


def _found(job: Job, run: Run, together: int, max_words: int) -> Found:
    from vlmattn.api.checking import check_of, checked
    from vlmattn.api.whole import one_pass

    wanted: Wanted = job.payload
    asked = wanted.asked
    check = check_of(run.vlm, True) if asked.check else None
    run = run if check is None else checked([run], [check])[0]
    found = Found(wanted, run, together)
    with one_pass(run):
        _add_words(found, max_words)
        for span in found.spans:
            check_wanted([job])
            _add_look(found, span)
        if asked.overlay != "none":
            found.drawn = _drawn(run, asked)
    if asked.refine is not None:
        look = run.refine(asked.refine)
        found.second = (look, look.ask_again())
    return found


def read_of(asked: Any) -> dict[str, Any]:
    """The options of :meth:`Run.grounding` that a request says."""
    return {"method": asked.method, "layers": asked.layers, "heads": asked.heads}


def _add_words(found: Found, max_words: int) -> None:
    run, asked = found.run, found.wanted.asked
    if asked.words:
        spans = [run.trace.find(word) for word in asked.words]
    else:
        spans = [word for word in run.words() if any(c.isalnum() for c in word.text)]
    found.spans, found.left_out = spans[:max_words], max(len(spans) - max_words, 0)
    judged = asked.risk and run.vlm.detector is not None
    found.words = run.grounding(**read_of(asked), words=found.spans, risk=judged, test=asked.risk and not judged)


def _add_look(found: Found, span: Span) -> None:
    asked = found.wanted.asked
    try:
        look: Look | None = found.run.map(span, normalise=asked.normalise, **read_of(asked))
        why = None
    except MapError as error:
        look, why = None, str(error)
    found.looks.append(look)
    found.whys.append(why)


def _drawn(run: Run, asked: Any) -> Look | None:
    if asked.overlay_of is None and not run.answer:
        return None
    return run.map(asked.overlay_of, normalise=asked.normalise, **read_of(asked))
