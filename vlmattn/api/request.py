"""Everything that decides what a run does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
        PromptError: no item, or a number of answers that differs. SpecError: no room for an answer.
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
        if self.answers is not None and len(self.answers) != len(self.items):
            raise PromptError(f"{len(self.items)} questions came with {len(self.answers)} answers: give one each")
        if self.max_new_tokens < 1:
            raise SpecError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")

    def only(self, pictures: Any, prompt: Prompt) -> Request:
        """The same request for one item."""
        return replace(self, items=((list(pictures), prompt),), answers=None)
