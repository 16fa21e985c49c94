"""Thin methods of :class:`~vlmattn.api.vlm.Vlm` and :class:`~vlmattn.api.run.Run` that study heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmattn.gaze import Scanpath
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

    def scanpath(self, order: str = "tokens", what: Any = None, **options: Any) -> Scanpath:
        """A scanpath of the model on the picture: fixations in order, in pixels and seconds.

        Args:
            order: ``tokens`` or ``words``: one fixation for each of the answer, in the model's own order; places in a
                row that are one make one longer fixation. ``layers``: one for each layer that sees the picture.
                ``map``: winner-take-all with inhibition of return on one map; ``sampled``: drawn from it.
            what: whose map, for the last three; default: the whole answer.
            options: ``image``; ``durations``, a :class:`vlmattn.gaze.models.Durations`; ``seed`` of what is drawn;
                ``at`` (``peak`` or ``centroid``) and ``merge_px`` of the first three; ``count``, ``inhibition``,
                ``start``, ``centre`` of ``map`` and ``sampled``, which also takes ``temperature`` and ``reach_px``.
                Others go to :meth:`Run.map`, as ``method``, ``layers``, ``heads``.

        A model attends; it has no eyes: what order and durations stand for is an assumption, see ``docs/gaze.md``.

        Raises:
            SpecError: another order or option. MapError, WordNotFound: as of :meth:`Run.map`.
        """
        from vlmattn.api.scanpath import scanpath_of

        return scanpath_of(self, order, what, **options)  # type: ignore[arg-type]
