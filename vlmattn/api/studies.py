"""Thin methods of :class:`~vlmattn.api.vlm.Vlm` and :class:`~vlmattn.api.run.Run` that study heads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from vlmattn.api.checking import Checked
    from vlmattn.api.detection import Detection
    from vlmattn.api.hallucination_heads import HallucinationHeads, Named
    from vlmattn.detection import MentionTable
    from vlmattn.export import Written
    from vlmattn.gaze import Scanpath
    from vlmattn.heads import HeadCircuits, HeadPursuit, JointEmbedding, KnockoutSweep, Reasoning
    from vlmattn.report import Panel


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
    """What can be found out about one answer.

    Attributes:
        checked: what ``ask(check=…)`` found; None where it was not asked to.
    """

    checked: Checked | None = None

    def _repr_html_(self) -> str:
        from vlmattn.api.shown import run_html

        return run_html(self)  # type: ignore[arg-type]

    def detect(self, **options: Any) -> Detection:
        """Which words and objects of the answer are likely made up: scores, all higher for more likely, and risk.

        Scores of where attention lies on a picture (spread, dispersion, agreement) are of the first picture.

        Args:
            options: ``scores``, names of :data:`vlmattn.detection.SCORES` (default: all that can be made here; the
                others are told in ``missing``); ``objects``, phrases or a synonym table (default: things of drawn
                scenes and COCO's objects); ``by``, a :class:`vlmattn.detection.Detector` or ``Calibration`` for the
                risk (default: that of ``vlm.use_detector``); ``over_tokens``, how tokens of a word are made one:
                ``mean``, ``max``, ``first`` or ``last``; ``layers`` of states; ``about``, a phrase of the question,
                such as what a *yes* claims, whose own states are then read too.

        Raises:
            SpecError: no such score or layer, or a detector of another model. MapError: rows or what a score needs was
            not kept, or the answer has no word. UnsupportedModel: a score that was asked for is not for this family.
        """
        from vlmattn.api.detection import detect

        return detect(self, **options)  # type: ignore[arg-type]

    def mentions(self, there: Collection[str], *, image: str, **options: Any) -> MentionTable:
        """The objects that the answer names, with scores, features and truth: what detectors are fitted on.

        Args:
            there: names of the objects that are in the picture. image: name of the picture, by which tables are split.
            options: ``objects``, ``scores`` and ``over_tokens`` as in :meth:`detect`; ``features``, some of ``heads``
                and ``states:LAYER``.

        Raises:
            MapError: the answer names no object. Others as in :meth:`detect`.
        """
        from vlmattn.api.detection import mentions

        return mentions(self, there, image=image, **options)  # type: ignore[arg-type]

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

    def panels(self, **options: Any) -> list[Panel]:
        """What a report shows of this answer, one panel per method, before it is a page.

        Args:
            options: ``methods``, of :meth:`Run.map` (default ``("raw",)``); ``heads``, names or presets to choose from
                besides all heads (default: the model's own); ``sinks``: True looks for sinks and marks them, False does
                not (default: those that were looked for before); ``risk`` and ``test``, as in :meth:`Run.grounding`,
                which colour the words (default: what ``ask(check=…)`` found); ``boxes``, to draw: (label, box) in
                original pixels, or (label, box, number of the picture); ``title``, default: the model and its steering.

        Methods other than ``raw`` make one map at a time and may run the model once more or many times.

        Raises:
            SpecError: an option that does not exist. MapError: no word has a map.
        """
        from vlmattn.api.reporting import panels_of_run

        return panels_of_run(self, **options)  # type: ignore[arg-type]

    def report(self, path: str | Path, *, beside: Sequence[Any] = (), **options: Any) -> Path:
        """Write a page that shows this answer word by word; see :func:`vlmattn.report.write_report`.

        Args:
            path: of the HTML file. beside: other runs, side by side with this one on one colour scale.
            options: of the page (``title``, ``colours``) and of :meth:`panels`.
        """
        from vlmattn.report import write_report

        return write_report(path, [self, *beside], **options)

    def export(self, path: str | Path, what: Any = None, *, format: str | None = None, **options: Any) -> Written:
        """Write maps of words as figures, animations, annotations, tables, or the whole run to be loaded again.

        Args:
            path: a file, or a folder for annotations. what: a word, phrase or token, or several; default: all words of
                the answer. format: one of :data:`vlmattn.api.EXPORTS`; default: what the ending says, as ``.pdf``,
                ``.mp4``, ``.parquet`` (words) or ``.safetensors`` (the run; see :func:`vlmattn.load_run`).
            options: of the format, told in ``docs/export.md``; all others go to :meth:`Run.map`.

        Maps that cannot be exported, such as flat ones as boxes, are told in ``skipped``.

        Raises:
            SpecError: no such format or option. FileError: a place that cannot be written. Others as :meth:`Run.map`.
        """
        from vlmattn.api.exporting import export_run

        return export_run(self, path, what, format, options)  # type: ignore[arg-type]
