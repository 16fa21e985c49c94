"""Everything that decides what a run does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

from vlmattn.api.checks import check_generate
from vlmattn.capture import CaptureSpec, Steering
from vlmattn.core.errors import PromptError, SpecError

Prompt = str | Sequence[Mapping[str, Any]]
DEFAULT_SPEC = CaptureSpec(rows=("question", "answer"))


@dataclass(frozen=True)
class Request:
    """A batch of questions and how to run them.

    Attributes:
        items: (picture or pictures, question) pairs. answers: given answers, as text or token ids, one per item; None
            to generate. system: system text. capture: what to keep. steering: changes to make, in order.
        max_new_tokens, seed, generate: as in :meth:`Vlm.ask`.

    Raises:
        PromptError: no item, one that is no such pair, or a number of answers that differs. SpecError: no room for an
            answer, a seed that is none, several answers to one question, something else in place of a capture spec or
            steering, or generation options that cannot be.
    """

    items: tuple[tuple[Any, Prompt], ...]
    answers: tuple[str | Sequence[int], ...] | None = None
    system: str | None = None
    capture: CaptureSpec = DEFAULT_SPEC
    steering: tuple[Steering, ...] = ()
    max_new_tokens: int = 64
    seed: int | None = None
    generate: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.items:
            raise PromptError("no question was given")
        for item in self.items:
            _check_item(item)
        if self.answers is not None and len(self.answers) != len(self.items):
            raise PromptError(f"{len(self.items)} questions came with {len(self.answers)} answers: give one each")
        if not isinstance(self.system, str | None):
            raise PromptError(f"system text must be text, got {type(self.system).__name__}")
        if not isinstance(self.max_new_tokens, Integral) or self.max_new_tokens < 1:
            raise SpecError(f"max_new_tokens must be a whole number, at least 1, got {self.max_new_tokens!r}")
        if self.seed is not None and not (isinstance(self.seed, Integral) and -(2**63) <= self.seed < 2**63):
            raise SpecError(f"seed must be a whole number of 64 bits, got {self.seed!r}")
        if not isinstance(self.capture, CaptureSpec):
            raise SpecError(f"capture must be a CaptureSpec, got {type(self.capture).__name__}")
        for change in self.steering:
            if not isinstance(change, Steering):
                raise SpecError(f"steering must be Steering objects, got {change!r}")
        check_generate(self.generate, len(self.items))

    def at(self, number: int) -> Request:
        """The same request for item ``number`` alone, with its answer if one was given."""
        answers = None if self.answers is None else (self.answers[number],)
        return replace(self, items=(self.items[number],), answers=answers)

    def only(self, pictures: Any, prompt: Prompt) -> Request:
        """The same request for one item."""
        return replace(self, items=((list(pictures), prompt),), answers=None)


def _check_item(item: Any) -> None:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise PromptError(f"each item must be a pair (picture, question), got {type(item).__name__}")
    question = item[1]
    if not isinstance(question, Sequence):
        raise PromptError(f"a question must be text or chat messages, got {type(question).__name__}")
