"""What is found out about a model once, and known from then on: its sinks, and its heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.capture import model_sites
from vlmattn.core.errors import SpecError
from vlmattn.core.head_preset import HeadPreset

if TYPE_CHECKING:
    from vlmattn.api.request import Prompt
    from vlmattn.detection import Calibration, Detector
    from vlmattn.heads import HeadAtlas, HeadSample
    from vlmattn.sinks import Rules, SinkCoordinates


class Findings:
    """The part of a :class:`~vlmattn.Vlm` that holds what was found out about the model."""

    name: str
    model: Any
    sink_coordinates: SinkCoordinates | None
    head_presets: dict[str, HeadPreset]
    detector: Detector | Calibration | None

    def calibrate_sinks(
        self, items: Sequence[tuple[Any, Prompt]] | None = None, *, rules: Rules | None = None
    ) -> SinkCoordinates:
        """Find the model's sink coordinates, or that it has none, with a confidence; remembered for later.

        Args:
            items: (picture, question) pairs, at least two; the first few (at most four) to find candidates, the others
                to check them. Default: twelve drawn scenes. rules: when a coordinate counts.

        Raises:
            SpecError: fewer than two prompts. UnsupportedModel: a decoder that reads hardly any token of a prompt.
        """
        from vlmattn.api.sinks import calibrate

        self.sink_coordinates = calibrate(self, items, rules=rules)  # type: ignore[arg-type]
        return self.sink_coordinates

    def known_sinks(self) -> SinkCoordinates:
        """The model's sink coordinates: those calibrated or set before, else published ones of a checkpoint of this
        name, width and depth, else those of a calibration on twelve drawn scenes, which runs now."""
        from vlmattn.api.sinks import known_sinks

        return known_sinks(self)  # type: ignore[arg-type]

    def head_atlas(self, samples: Sequence[HeadSample | tuple[Any, Any]] | None = None, **options: Any) -> HeadAtlas:
        """Scores of every head on samples; nothing is remembered unless :meth:`use_heads` is told to.

        Args:
            samples: (picture, question) pairs or :class:`vlmattn.heads.HeadSample`; default: forty questions about
                drawn scenes. options: ``scores``, ``variant``, ``max_new_tokens``, ``keep``, ``progress``, ``seed``,
                ``resamples``; see :func:`vlmattn.api.heads.head_atlas`.

        Raises:
            SpecError, FileError, UnsupportedModel, CaptureError: as there.
        """
        from vlmattn.api.heads import head_atlas

        return head_atlas(self, samples, **options)  # type: ignore[arg-type]

    def pointing_heads(self, samples: Sequence[HeadSample], **options: Any) -> HeadPreset:
        """The set of heads that points best at the boxes of samples; see :func:`vlmattn.api.heads.pointing_heads`."""
        from vlmattn.api.heads import pointing_heads

        return pointing_heads(self, samples, **options)  # type: ignore[arg-type]

    def use_heads(self, found: HeadAtlas | HeadPreset | str | Path) -> dict[str, HeadPreset]:
        """Let ``heads="NAME"`` mean heads that were found: of an atlas (each score by its name), one preset, or a file
        of either; the model's own names after that. They come before published ones of the same name.

        Raises:
            SpecError: heads that this model does not have. FileError: a file that holds neither.
        """
        from vlmattn.api.own_heads import presets_in

        presets = presets_in(found)
        for one in presets:
            check_fits(self, one)
        self.head_presets |= {one.name: one for one in presets}
        return self.known_heads()

    def known_heads(self) -> dict[str, HeadPreset]:
        """Heads by name: those of :meth:`use_heads`, then those of a file ``vlmattn_heads.json`` beside the model, or
        that ship with a model in the box.

        Raises:
            FileError, SpecError: the file beside the model is damaged, or is another model's.
        """
        from vlmattn.heads.known import found_presets

        found = found_presets(self.name)
        for one in found.values():
            check_fits(self, one)
        return found | self.head_presets

    def use_detector(self, found: Detector | Calibration | str | Path | None) -> None:
        """What risks of words go by from now on, in :meth:`Run.detect`, ``run.grounding(risk=True)`` and
        ``ask(check=True)``: a detector, a calibration of one score, or a detector's file; None for none.

        Raises:
            SpecError: a detector of another model, or something else. FileError: a file that holds none.
        """
        from vlmattn.api.detected import usable

        self.detector = None if found is None else usable(self, found)  # type: ignore[arg-type]


def check_fits(vlm: Any, preset: HeadPreset) -> None:
    """Raises SpecError for heads that a model does not have."""
    sites = model_sites(vlm.model)
    if preset.depth != sites.depth and preset.pairs:
        raise SpecError(
            f"head preset {preset.name!r} is for a model of {preset.depth} layers ({preset.source}), and this one has "
            f"{sites.depth}: heads cannot be carried over; find its own: vlm.use_heads(vlm.head_atlas())"
        )
    heads = {site.layer_idx: site.heads for site in sites.attention}
    wrong = [pair for pair in preset.pairs if not 0 <= pair[1] < heads.get(pair[0], 0)]
    if wrong:
        raise SpecError(f"head preset {preset.name!r} names heads {wrong} (layer, head) that this model does not have")
