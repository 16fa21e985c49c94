"""What a model family is, as data: the part of an adapter that needs no code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmattn.adapters.videos import VideoSpec
from vlmattn.core.errors import SpecError


@dataclass(frozen=True)
class FamilySpec:
    """One model family.

    Attributes:
        name: what users call the family.
        model_types: values of ``config.model_type`` that belong to it.
        processors: class names of processors that it is prepared with.
        image_processors: class names of image processors whose geometry is known.
        towers: ``vision_config.model_type`` of vision towers whose tokens are known; families of one model type are
            told apart by them.
        geometry: names of the rules that place image tokens, for the reader.
        strategy: ``config`` if ``vision_feature_select_strategy`` decides whether the first vision token is dropped;
            ``default`` if the model always drops it.
        max_images: most pictures per prompt; None for no limit of its own.
        prompt: what a question is wrapped in when the processor has no chat template.
        own_prompt: whether ``prompt`` is used even where the processor has a chat template.
        after_image: what follows each picture's placeholder in ``prompt``.
        notes: what a reader should know.
        batches: whether the model gives prompts of a padded batch what it gives them alone. Where it does not (it picks
            keys by blocks that padding shifts, or places pictures by their number in the batch), prompts that are asked
            together are run one after the other. mixed_batches: the same for prompts with different numbers of
            pictures, where equal numbers do no harm.
        videos: what it makes of videos; None if it is given none. no_videos: why not.
        encoder_decoder: whether the language model has an encoder of its own; families of one model type are told apart
            by it where both say so.
    """

    name: str
    model_types: tuple[str, ...]
    processors: tuple[str, ...]
    image_processors: tuple[str, ...]
    towers: tuple[str, ...]
    geometry: tuple[str, ...]
    strategy: str = "config"
    max_images: int | None = None
    prompt: str = "USER: {images}{question} ASSISTANT:"
    own_prompt: bool = False
    after_image: str = "\n"
    notes: str = ""
    batches: bool = True
    mixed_batches: bool = True
    videos: VideoSpec | None = None
    no_videos: str = "its model is made for pictures"
    encoder_decoder: bool | None = None

    def runs_together(self, pictures: Sequence[int]) -> bool:
        """Whether prompts with these numbers of pictures may be run in one padded batch."""
        return self.batches and (self.mixed_batches or len(set(pictures)) == 1)

    def __post_init__(self) -> None:
        if not self.name or not self.model_types:
            raise SpecError(f"a family needs a name and at least one model type, got {self.name!r}, {self.model_types}")
        if self.strategy not in ("config", "default"):
            raise SpecError(f"strategy must be 'config' or 'default', got {self.strategy!r}")
        if "{images}" not in self.prompt or "{question}" not in self.prompt:
            raise SpecError(f"prompt must hold {{images}} and {{question}}, got {self.prompt!r}")
