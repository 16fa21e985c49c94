"""Thin methods of :class:`~vlmattn.api.vlm.Vlm` and :class:`~vlmattn.api.run.Run` that study heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmattn.api.hallucination_heads import HallucinationHeads, Named
    from vlmattn.heads import HeadCircuits, HeadPursuit, JointEmbedding, KnockoutSweep, Reasoning


class HeadStudies:
    """What can be found out about a model's heads."""

    def knockout_sweep(self, samples: Any, *args: Any, **options: Any) -> KnockoutSweep:
        """What answers lose without attention; see :func:`vlmattn.api.knockout_sweep`."""
        from vlmattn.api.knockout import knockout_sweep

        return knockout_sweep(self, samples, *args, **options)  # type: ignore[arg-type]

    def pursue_heads(self, samples: Any, words: Sequence[str | int] | None = None, **options: Any) -> HeadPursuit:
        """The words that heads write; see :func:`vlmattn.api.pursue_heads`."""
        from vlmattn.api.circuits import pursue_heads

        return pursue_heads(self, samples, words, **options)  # type: ignore[arg-type]

    def head_circuits(self, tokens: Sequence[str | int] | None = None, **options: Any) -> HeadCircuits:
        """What heads do by their weights alone; see :func:`vlmattn.api.head_circuits`."""
        from vlmattn.api.circuits import head_circuits

        return head_circuits(self, tokens, **options)  # type: ignore[arg-type]

    def hallucination_heads(self, objects: Sequence[Named], **options: Any) -> HallucinationHeads:
        """Heads that raise things which are not there; see :func:`vlmattn.api.hallucination_heads`."""
        from vlmattn.api.hallucination_heads import hallucination_heads

        return hallucination_heads(self, objects, **options)  # type: ignore[arg-type]


class AnswerStudies:
    """What can be found out about one answer."""

    def knockout(self, *args: Any, **options: Any) -> KnockoutSweep:
        """What this answer loses without attention; see :func:`vlmattn.api.knockout_sweep`."""
        from vlmattn.api.knockout import knockout_sweep

        return knockout_sweep(self.vlm, self, *args, **options)  # type: ignore[attr-defined]

    def reasoning(self, **options: Any) -> Reasoning:
        """How attention moves over this answer; see :func:`vlmattn.api.reasoning_of`."""
        from vlmattn.api.reading import reasoning_of

        return reasoning_of(self, **options)  # type: ignore[arg-type]

    def joint_embedding(self, heads: Sequence[tuple[int, int]] | None = None, **options: Any) -> JointEmbedding:
        """Queries and keys of heads in one space; see :func:`vlmattn.api.joint_embedding`."""
        from vlmattn.api.reading import joint_embedding

        return joint_embedding(self, heads, **options)  # type: ignore[arg-type]
