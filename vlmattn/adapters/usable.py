"""Whether a processor goes with its model, and whether what was given can be prepared; told before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmattn.adapters.videos import check_videos, pictures_of
from vlmattn.core.errors import ImageError, LayoutError, ModelError, PromptError

if TYPE_CHECKING:
    from vlmattn.adapters.adapter import Adapter


def told_id(adapter: Adapter) -> int:
    """The token that stands for pictures, as the model's configuration says. Raises LayoutError if it does not."""
    if getattr(adapter.config, "image_token_id", None) is None:
        raise LayoutError(
            f"the model's configuration does not say which token stands for pictures: set config.image_token_id to"
            f" that of {adapter.image_token!r}"
        )
    return int(adapter.config.image_token_id)


def check_tokenizer(adapter: Adapter) -> None:
    """Raises ModelError for a tokenizer without offsets, LayoutError where it has another image token.

    Where no token stands for pictures (-1), there is none to compare.
    """
    if not getattr(adapter.tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(adapter.tokenizer).__name__} gives no character offsets, so words cannot be found in the prompt:"
            " load the fast tokenizer (tokenizer.json)"
        )
    if adapter.image_token_id < 0:
        return
    written = adapter.tokenizer.convert_tokens_to_ids(adapter.image_token)
    if written != adapter.image_token_id:
        raise LayoutError(
            f"the processor's image token {adapter.image_token!r} is token {written}, but the model expects"
            f" image_token_id {adapter.image_token_id}: processor and model do not belong together"
        )


def check_image_processor(adapter: Adapter) -> None:
    """Raises LayoutError for an image processor whose geometry is not known."""
    name = type(adapter.image_processor).__name__
    if name.removesuffix("Pil").removesuffix("Fast") not in adapter.spec.image_processors:
        raise LayoutError(
            f"the geometry of image processor {name} is not known for family {adapter.spec.name!r}."
            f" Known: {', '.join(adapter.spec.image_processors)}"
        )


def check_group(adapter: Adapter, group: Sequence[Any], index: int | None, text_only: bool) -> None:
    """Raises PromptError, ImageError or UnsupportedModel for pictures and videos that one prompt cannot have.

    ``index``: of the prompt in its batch, for the message.
    """
    where = "" if index is None else f"prompt {index}: "
    if not group and (adapter.needs_picture or not text_only):
        always = f": {adapter.spec.name} takes no prompt without one" if text_only else ""
        raise PromptError(f"{where}no picture was given{always}")
    check_videos(adapter, group, where)
    pictures = pictures_of(group)
    if adapter.max_images is not None and len(pictures) > adapter.max_images:
        raise PromptError(
            f"{where}{len(pictures)} pictures, but {adapter.spec.name} takes at most {adapter.max_images}"
        )
    for number, picture in enumerate(pictures):
        if getattr(picture, "mode", None) != "RGB" or not hasattr(picture, "size"):
            got = getattr(picture, "mode", None) or type(picture).__name__
            raise ImageError(f"{where}picture {number} must be a PIL image in mode RGB, got {got}")
