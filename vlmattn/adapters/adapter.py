"""An adapter: turns pictures and a prompt into model inputs whose every token has a known meaning and place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.decode import decoded
from vlmattn.adapters.encoded import TYPE_KEYS, Encoded, left_padded, pad_id_of
from vlmattn.adapters.messages import Prompt, conversation, is_batch
from vlmattn.adapters.paint import merged_embeddings
from vlmattn.adapters.plan import ImagePlan
from vlmattn.adapters.processing import UNPADDED, grouped, joined, with_videos
from vlmattn.adapters.render import Rendered, order_of, plain_template, render, render_raw, template_of
from vlmattn.adapters.spans import check_counts, counts_written, inside, token_layout, unexpanded
from vlmattn.adapters.spec import FamilySpec
from vlmattn.adapters.tower import Tower, tower_of
from vlmattn.adapters.tower_cells import fixed_cells, layers_read
from vlmattn.adapters.usable import check_group, check_image_processor, check_tokenizer, told_id
from vlmattn.adapters.videos import as_given, kinds_of, pictures_of, size_of, videos_of
from vlmattn.core.errors import ImageError, LayoutError, PromptError, SpecError
from vlmattn.core.layout import ImageLayout, TokenLayout
from vlmattn.core.tower_cells import TowerCells

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmattn.core.videos import Video

Visuals = Sequence["Image | Video"] | Sequence[Sequence["Image | Video"]]
_TOKEN_KEYS = ("input_ids", "attention_mask", "offset_mapping", "text_replacement_offsets", *TYPE_KEYS)


class Adapter:
    """One model with its processor. A family overrides :meth:`plan`, or :meth:`read`; the rest is shared.

    Attributes:
        reads: whether the grids are read off what the processor made (:meth:`read`) rather than planned before it.
        drops: what the processor makes that the model does not take.
        asks: further options of the processor's call, for what the model needs and the processor makes only on demand.
        image_tensors: whether the processor itself needs what its image processor makes as tensors, not as lists.
        nested: whether the processor takes one list of pictures per prompt, rather than one of all. empties: whether
            a prompt without pictures beside others then has an empty list.
        one_by_one: whether the processor takes one prompt at a time.
        needs_picture: whether the processor takes no prompt without a picture.
        answer_types: what TYPE_KEYS say of tokens of an answer, where that is not 0.
        own_scale: whether the processor scales each picture by its own mean and deviation.
        answers_apart: whether a decoder of its own writes answers, from ``decoder_input_ids``.
        rows_of_tokens: inputs (B, N, …) with a row per token; tokens of an answer have that of the last prompt token.
        placeholder: what stands for a picture in a prompt. image_token: what the processor writes in its place, once
            or many times over. video_token: the same for a video.

    Raises on construction: UnsupportedModel or LayoutError if model and processor cannot work together.
    """

    reads = False
    drops: tuple[str, ...] = ()
    asks: Mapping[str, Any] = MappingProxyType({})
    image_tensors = False
    nested = True
    empties = False
    one_by_one = False
    needs_picture = False
    answer_types: Mapping[str, int] = MappingProxyType({})
    own_scale = False
    answers_apart = False
    rows_of_tokens: tuple[str, ...] = ()

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        self.spec = spec
        self.model = model
        self.processor = processor
        self.config = self.find_config()
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        configured = getattr(self.config, "vision_feature_select_strategy", "full")
        self.strategy = str(configured) if spec.strategy == "config" else spec.strategy
        self.placeholder, self.image_token = self.find_tokens()
        self.image_token_id = self.find_image_token_id()
        check_tokenizer(self)
        check_image_processor(self)
        self.tower = self.find_tower()
        self._slots, self.video_token = {"image": self.placeholder}, self.image_token
        if spec.videos is not None and getattr(processor, "video_processor", None) is not None:
            self._slots["video"], self.video_token = self.find_video_tokens()
        wording = (self._slots, spec.prompt, spec.after_image)
        self._template = plain_template(*wording) if spec.own_prompt else template_of(processor, *wording)

    # --- what a family adds ---------------------------------------------------------------------------------------

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """The image tokens of a picture of ``image_wh`` pixels that is one of ``pictures`` in its prompt.

        Needs no pixels and no weights. Raises ImageError for a size that cannot be prepared. Families that read
        prepare a blank picture of that size.
        """
        from PIL import Image

        blank = [Image.new("RGB", image_wh)] * pictures
        return self.read(image_wh, self._processed([blank], [self.placeholder * pictures]), 0)

    def read(self, image_wh: tuple[int, int], outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """The image tokens of picture ``number`` of a batch, of ``image_wh`` pixels, from what was made of it.

        ``outputs`` are the processor's, unpadded, as lists. Families with :attr:`reads` have it.
        """
        raise NotImplementedError

    def read_video(self, video: Video, outputs: Mapping[str, Any], number: int) -> ImagePlan:
        """The tokens of video ``number`` of a batch, from what was made of it; see :meth:`read`.

        Families whose spec has ``videos`` have it. Raises LayoutError if processor and model disagree on videos.
        """
        raise NotImplementedError

    def find_tokens(self) -> tuple[str, str]:
        """What stands for a picture in a prompt, and the token that the processor writes in its place."""
        return str(self.processor.image_token), str(self.processor.image_token)

    def find_image_token_id(self) -> int:
        """The token that stands for pictures in the model's input, -1 where none does."""
        return told_id(self)

    def find_video_tokens(self) -> tuple[str, str]:
        """What stands for a video in a prompt, and the token that the processor writes in its place."""
        return str(self.processor.video_token), str(self.processor.video_token)

    def find_config(self) -> Any:
        """The configuration that says what stands for pictures and what prepares them."""
        return self.model.config

    def find_tower(self) -> Tower:
        """The vision tower. Raises UnsupportedModel if its tokens are not known."""
        return tower_of(self.config, towers=self.spec.towers, strategy=self.strategy)

    def video_settings(self, video_processor: Any) -> Mapping[str, Any]:
        """Further options of the video processor."""
        return {}

    def generation(self) -> dict[str, Any]:
        """What ``generate`` needs besides the inputs, so that every layer computes all rows of the prompt."""
        return {}

    def call_processor(self, **options: Any) -> Mapping[str, Any]:
        """The processor's output with the offsets of its tokens and of what it wrote in place of pictures."""
        return cast(Mapping[str, Any], self.processor(**options))

    def completed(self, rendered: Rendered) -> Rendered:
        """The prompt with what the processor writes of its own besides pictures; :meth:`given` takes it off again."""
        return rendered

    def given(self, text: str) -> str:
        """What the processor is given so that the model reads ``text``, pictures aside."""
        return text

    def language_inputs(self, given: Mapping[str, Any]) -> Any:
        """(B, N, d) what the language model gets of every token, out of the keywords that it is called with."""
        return given.get("inputs_embeds")

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """The tokens of the vision tower that each cell of a picture is made of, as its attention layers order them.

        Here: of towers with an input of one size, every tile is a view, its patches row by row. Raises UnsupportedModel
        if a family's are not known.
        """
        return fixed_cells(self, picture)

    def tower_layers(self, depth: int) -> int:
        """How many of the vision tower's ``depth`` layers reach the language model."""
        return layers_read(self.config, depth)

    def states_seen(self, inputs: Mapping[str, Any]) -> Any:
        """(B, N, d) what stands behind every token of the layouts, those beside the prompt too."""
        return merged_embeddings(self.model, inputs, self.language_inputs)

    def setting(self, name: str) -> Any:
        """A setting of the image processor: what the processor tells it comes before what it says itself."""
        told = getattr(self.processor, "images_kwargs", {})
        return told[name] if name in told else getattr(self.image_processor, name, None)

    # --- what users call ------------------------------------------------------------------------------------------

    @property
    def max_images(self) -> int | None:
        """Most pictures per prompt; None for no limit but the context length."""
        return self.spec.max_images

    @property
    def max_tokens(self) -> int | None:
        """Positions that the language model knows; None if its configuration does not say."""
        text = self.config.get_text_config()
        limit = getattr(text, "max_position_embeddings", None)
        return int(limit) if limit else None

    def encode(
        self,
        images: Visuals,
        prompt: Prompt | Sequence[Prompt],
        *,
        system: str | None = None,
        raw: bool = False,
        question: str | None = None,
        text_only: bool = False,
    ) -> Encoded:
        """Model inputs and token layouts for one prompt, or for a batch of them.

        Args:
            images: upright RGB pictures, and videos, of one prompt; for a batch, one list per prompt, or one each.
            prompt: a question, or chat messages (dicts with role and content); a list of these is a batch.
            system: system text, for models whose template has a place for it.
            raw: ``prompt`` is already rendered: placeholders in it are picture places, nothing is added.
            question: with ``raw``, the user's words in it; guessed from the template if not given.
            text_only: allow a prompt without pictures.

        Raises:
            PromptError: no text, picture places that do not match the pictures, or more tokens than positions.
            ImageError: not an RGB picture, or one of a shape that cannot be prepared.
            LayoutError: processor and model disagree on the image tokens.
            UnsupportedModel: a video, and the family takes none.
        """
        prompts = list(prompt) if is_batch(prompt) else [cast(Prompt, prompt)]
        groups = grouped(images, len(prompts), batch=is_batch(prompt))
        for index, group in enumerate(groups):
            check_group(self, group, index if len(groups) > 1 else None, text_only)
        if question is not None and not raw:
            raise SpecError("question= only goes with raw=True: otherwise the prompt itself is the question")
        pairs = zip(prompts, groups, strict=True)
        rendered = [self._rendered(p, kinds_of(g), system, raw, question) for p, g in pairs]
        pictures = [pictures_of(g) for g in groups]
        planned = [] if self.reads else [[self.plan(one.size, len(g)) for one in g] for g in pictures]
        outputs = self._processed(groups, [self.given(r.text) for r in rendered])
        stills = self._read(pictures, outputs) if self.reads else planned
        plans = as_given(groups, stills, lambda video, number: self.read_video(video, outputs, number))
        layouts = [self._layout(r, p, outputs, i) for i, (r, p) in enumerate(zip(rendered, plans, strict=True))]
        return self._encoded(outputs, layouts, groups, [p for ps in stills for p in ps])

    def decode_answer(self, token_ids: Any) -> tuple[str, NDArray[np.int32]]:
        """The text of M answer tokens and the (M, 2) characters each wrote; (-1, -1) for special tokens."""
        return decoded(self.tokenizer, np.asarray(token_ids).reshape(-1).tolist())

    def describe(self) -> dict[str, Any]:
        """What this adapter knows of its model, as plain values."""
        return {
            "family": self.spec.name,
            "model_type": str(self.config.model_type),
            "processor": type(self.processor).__name__,
            "image_processor": type(self.image_processor).__name__,
            "tower": asdict(self.tower),
            "strategy": self.strategy,
            "geometry": list(self.spec.geometry),
            "image_token": self.image_token,
            "image_token_id": self.image_token_id,
            "max_images": self.max_images,
            "max_tokens": self.max_tokens,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec.name!r}, tower={self.tower.name!r}, {self.tower.size_told})"

    # --- steps of encode ------------------------------------------------------------------------------------------

    def _rendered(
        self, prompt: Prompt, kinds: Sequence[str], system: str | None, raw: bool, question: str | None
    ) -> Rendered:
        if raw:
            if not isinstance(prompt, str) or system is not None:
                raise PromptError("raw=True takes a rendered prompt as text, without system")
            return self.completed(render_raw(prompt, kinds, self._template, self._slots, question))
        video = getattr(self.processor, "video_token", None)
        marks = tuple(dict.fromkeys((self.placeholder, self.image_token, *([str(video)] if video else []))))
        messages = conversation(prompt, kinds, system=system, placeholders=marks)
        return self.completed(render(messages, self._template, self._slots))

    def _processed(self, groups: Sequence[Sequence[Any]], texts: list[str]) -> Mapping[str, Any]:
        """The processor's output, unpadded, as lists."""
        bos = getattr(self.tokenizer, "bos_token", None)
        own_bos = [bool(bos) and t.startswith(str(bos)) for t in texts]
        if any(own_bos) != all(own_bos):
            raise PromptError(f"either all or none of the prompts of a batch may start with {bos!r}")
        pairs = [([g], [t]) for g, t in zip(groups, texts, strict=True)] if self.one_by_one else [(groups, texts)]
        try:
            parts = [self.prepared(g, t, add_special_tokens=not all(own_bos)) for g, t in pairs]
        # Some divide by a side that they rounded to nothing, or resize to no pixels.
        except (ValueError, ArithmeticError, RuntimeError) as error:
            sizes = ", ".join("{} x {}".format(*size_of(one)) for g in groups for one in g)
            name = type(self.processor).__name__
            raise ImageError(f"{name} cannot prepare the pictures ({sizes}): {error}") from error
        if len(parts) == 1:
            return parts[0]
        return {k: joined([part[k] for part in parts if k in part]) for part in parts for k in part}

    def prepared(
        self, groups: Sequence[Sequence[Any]], texts: list[str], *, add_special_tokens: bool
    ) -> Mapping[str, Any]:
        """What the processor makes of prompts, their pictures and their videos, as :data:`UNPADDED` says."""
        lists = [pictures_of(g) for g in groups]
        lists = lists if self.empties and any(lists) else [one for one in lists if one]
        pictures = lists if self.nested else [i for one in lists for i in one]
        clips = [clip for g in groups for clip in videos_of(g)]
        options = {**UNPADDED, **self.asks, **({} if add_special_tokens else {"add_special_tokens": False})}
        if self.image_tensors:
            options["text_kwargs"] = {"return_tensors": options.pop("return_tensors")}
            options["images_kwargs"] = {"return_tensors": "pt"}
        if clips:
            options = with_videos(options, clips, self.video_settings(self.processor.video_processor))
        return self.call_processor(images=pictures or None, text=texts, **options)

    def _read(self, groups: Sequence[Sequence[Image]], outputs: Mapping[str, Any]) -> list[list[ImagePlan]]:
        sizes = [[i.size for i in g] for g in groups]
        starts = np.cumsum([0, *(len(g) for g in groups)]).tolist()
        return [
            [self.read(wh, outputs, start + k) for k, wh in enumerate(own)]
            for start, own in zip(starts[:-1], sizes, strict=True)
        ]

    def _layout(
        self, rendered: Rendered, plans: list[ImagePlan], outputs: Mapping[str, Any], index: int
    ) -> TokenLayout:
        ids = np.asarray(outputs["input_ids"][index], dtype=np.int64)
        offsets = np.asarray(outputs["offset_mapping"][index], dtype=np.int64).reshape(-1, 2)
        replaced = outputs["text_replacement_offsets"][index] if plans else []
        kinds = ["video" if p.layout.times else "image" for p in plans]
        order = order_of(rendered.text, self._slots, kinds) if "video" in kinds else list(range(len(plans)))
        written = counts_written(replaced, order, kinds, {"image": self.image_token, "video": self.video_token})
        marks = self._mark_ids(kinds)
        sizes = [p.layout.image_wh for p in plans]
        check_counts(int(np.isin(ids, marks).sum()), written, plans, sizes)
        if self.max_tokens is not None and len(ids) > self.max_tokens:
            raise PromptError(
                f"the prompt has {len(ids)} tokens ({sum(written)} of them from pictures), but the model has"
                f" {self.max_tokens} positions: shorten the text or give fewer pictures"
                + (" or frames" if "video" in kinds else "")
            )
        return token_layout(
            rendered,
            ids,
            unexpanded(offsets, replaced),
            plans,
            inside=inside(offsets, replaced),
            placeholders=[self._slots[kind] for kind in dict.fromkeys(("image", *kinds))],
            image_token_ids=marks,
            bos_token_id=getattr(self.tokenizer, "bos_token_id", None),
            order=order,
        )

    def _mark_ids(self, kinds: Sequence[str]) -> list[int]:
        if "video" not in kinds:
            return [self.image_token_id]
        return sorted({self.image_token_id, int(self.tokenizer.convert_tokens_to_ids(self.video_token))})

    def _encoded(
        self,
        outputs: Mapping[str, Any],
        layouts: list[TokenLayout],
        groups: Sequence[Sequence[Any]],
        plans: list[ImagePlan],
    ) -> Encoded:
        extra = {k: [np.asarray(r, dtype=np.int64) for r in outputs[k]] for k in TYPE_KEYS if k in outputs}
        inputs, pads = left_padded([t.input_ids[t.memory :] for t in layouts], extra, pad_id_of(self.tokenizer))
        pixels = {k: v for k, v in outputs.items() if k not in (*_TOKEN_KEYS, *self.drops)}
        inputs |= self.tensors(pixels)
        self.check_views(inputs, plans)
        return Encoded(inputs, tuple(layouts), pads, tuple(tuple(g) for g in groups))

    def tensors(self, pixels: dict[str, Any]) -> dict[str, Any]:
        """What the processor made besides tokens, as the model takes it."""
        from transformers import BatchFeature

        return dict(BatchFeature(pixels, tensor_type="pt"))

    def check_views(self, inputs: Mapping[str, Any], plans: list[ImagePlan]) -> None:
        """The pixels that came out must have the size that the geometry says."""
        pixels = inputs.get("pixel_values")
        for plan in plans if pixels is not None else ():
            got_hw = tuple(int(s) for s in cast(Any, pixels).shape[-2:])
            if got_hw != plan.view_hw:
                raise LayoutError(
                    f"the image processor makes views of {got_hw} pixels (height, width), but its settings say"
                    f" {plan.view_hw}: its class does more than vlmattn knows of"
                )


def check_agreement(adapter: Adapter, name: str, processor_says: Any, model_says: Any) -> None:
    """Raises LayoutError where processor and model say different things of ``name``."""
    if processor_says != model_says:
        raise LayoutError(
            f"processor and model disagree on {name}: the processor says {processor_says}, the model {model_says}."
            f" {adapter.spec.name} would place image tokens wrongly; set it on the processor to {model_says}"
        )
