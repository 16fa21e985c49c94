"""Families whose gated cross attention layers look at patches, or at the latents of a perceiver beside the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.beside import OneView, side_by_side
from vlmattn.adapters.encoded import Encoded
from vlmattn.adapters.plan import ImagePlan, nowhere, places
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.core.errors import LayoutError, PromptError
from vlmattn.core.layout import TokenLayout

_TURN = "<end_of_utterance>"


@register(
    FamilySpec(
        name="idefics",
        model_types=("idefics",),
        processors=("IdeficsProcessor",),
        image_processors=("IdeficsImageProcessor",),
        towers=("idefics_vision",),
        geometry=(
            "base: stretched to a square; with use_resampler seen through latents, so maps are composed of two hops",
        ),
        prompt=f"User:{{images}}{{question}}{_TURN}\nAssistant:",
        after_image="",
        notes="IDEFICS. Only its cross attention layers look at pictures; maps leave the others out. A word sees the "
        "last picture before it and no other; what stands before the first picture sees none (its rows are thrown away "
        "by the gate). Without use_resampler rows lie on the patches themselves.",
    )
)
class Idefics(OneView):
    """IDEFICS: pictures of a batch are padded to the most of any prompt; the padding is masked."""

    rows_of_tokens = ("image_attention_mask",)

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        if _TURN not in processor.tokenizer.get_vocab():  # of models that were not trained to chat
            spec = replace(spec, prompt=spec.prompt.replace(_TURN, ""))
        super().__init__(spec, model, processor)
        if self.config.use_resampler:
            self.own_keys = int(self.config.perceiver_config.resampler_n_latents)

    def find_tokens(self) -> tuple[str, str]:
        """One token for each picture, between two marks."""
        return "<image>", "<image>"

    def find_image_token_id(self) -> int:
        """That of the processor: the configuration does not say it."""
        return int(self.processor.image_token_id)

    def completed(self, rendered: Rendered) -> Rendered:
        """Behind the bos token, without the spaces around it that the processor drops."""
        bos = str(self.tokenizer.bos_token)
        rest = rendered.text.removeprefix(bos).lstrip(" ")
        moved = len(bos) - (len(rendered.text) - len(rest))
        start, end = (place + moved for place in rendered.question_span)
        return Rendered(bos + rest.rstrip(" "), (start, end))

    def given(self, text: str) -> str:
        """As it is, if it is text to the processor."""
        from transformers.models.idefics.processing_idefics import is_url

        for piece in self._pieces(text):
            if is_url(piece.strip(" ")):
                raise PromptError(f"the processor would fetch {piece.strip()!r} as a picture: put a word beside it")
        return text

    def _pieces(self, text: str) -> list[str]:
        """What stands before, between and after the pictures."""
        return text.removeprefix(str(self.tokenizer.bos_token)).split(self.placeholder)

    def call_processor(self, **options: Any) -> Mapping[str, Any]:
        """Prompt by prompt, in pieces of text and pictures; pictures are then padded to the most of any prompt."""
        import torch

        parts = [self._prepared(text, own) for text, own in zip(options["text"], options["images"], strict=True)]
        most = max(len(part["image_attention_mask"][0]) for part in parts)
        pixels = [torch.nn.functional.pad(p.pop("pixel_values"), (0,) * 7 + (most - p.pop("count"),)) for p in parts]
        outputs = {name: [part[name] for part in parts] for name in parts[0]}
        seen = [np.pad(rows, ((0, 0), (0, most - rows.shape[1]))) for rows in outputs["image_attention_mask"]]
        return outputs | {"pixel_values": torch.stack(pixels), "image_attention_mask": seen}

    def _prepared(self, text: str, pictures: Sequence[Any]) -> dict[str, Any]:
        sample: list[Any] = []
        for number, piece in enumerate(self._pieces(text)):
            sample += [*([piece] if piece.strip(" ") else []), *pictures[number : number + 1]]
        made = self.processor(text=sample, add_end_of_utterance_token=False, return_tensors="pt")
        written, replaced = self._written(text)
        told = self.tokenizer(written, add_special_tokens=False, return_offsets_mapping=True)
        if made["input_ids"][0].tolist() != list(told["input_ids"]):
            raise LayoutError(f"{type(self.processor).__name__} writes pictures into the prompt in another way")
        return {
            "input_ids": list(told["input_ids"]),
            "offset_mapping": told["offset_mapping"],
            "text_replacement_offsets": replaced,
            "pixel_values": made["pixel_values"][0],
            "image_attention_mask": made["image_attention_mask"][0].numpy().astype(np.int64),
            "count": len(pictures),
        }

    def _written(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The prompt with pictures written out, and where each of them stands; spaces beside them are dropped."""
        found: list[dict[str, Any]] = []
        around, written, last = "<fake_token_around_image>", "", 0
        for place in re.finditer(f" *{re.escape(self.placeholder)} *", text):
            again = bool(found) and place.start() == last
            written += text[last : place.start()]
            said = self.image_token + around if again else around + self.image_token + around
            spans = {"span": place.span(), "new_span": (len(written), len(written) + len(said))}
            found.append({"replacement": said, **spans})
            written, last = written + said, place.end()
        return written + text[last:], found

    def keys(
        self, plans: Sequence[ImagePlan], outputs: Mapping[str, Any], index: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """All prompts of a batch have as many keys as the one with most pictures."""
        place, image = super().keys(plans, outputs, index)
        empty = (len(outputs["pixel_values"][index]) - len(plans)) * len(plans[0])
        return places([place, nowhere(empty)]), np.pad(image, (0, empty), constant_values=-1)

    def queries(self, plans: Sequence[ImagePlan], outputs: Mapping[str, Any], index: int) -> NDArray[np.int32]:
        """The latents of each picture, where there are some, and of those that pad the batch."""
        pictures = [*range(len(plans)), *[-1] * (len(outputs["pixel_values"][index]) - len(plans))]
        return np.repeat(np.array(pictures, dtype=np.int32), self.own_keys)

    def states_seen(self, inputs: Mapping[str, Any]) -> Any:
        """States of the vision tower, latents where there are some, then the embeddings of the words."""
        import torch

        pixels, core = inputs["pixel_values"], self.model.model
        with torch.no_grad():
            states = core.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
            latents = core.perceiver_resampler(states) if self.own_keys else states[:, :0]
            words = core.embed_tokens(inputs["input_ids"])
        keys = torch.nn.functional.pad(states, (0, 0, 0, self.own_keys))
        return side_by_side([part.reshape(len(words), -1, part.shape[-1]) for part in (keys, latents)] + [words])

    def _encoded(
        self, outputs: Mapping[str, Any], layouts: list[TokenLayout], groups: Any, plans: list[ImagePlan]
    ) -> Encoded:
        import torch

        (name,) = self.rows_of_tokens
        encoded = super()._encoded({k: v for k, v in outputs.items() if k != name}, layouts, groups, plans)
        padded = [np.pad(rows, ((pad, 0), (0, 0))) for rows, pad in zip(outputs[name], encoded.pad_left, strict=True)]
        return replace(encoded, inputs=encoded.inputs | {name: torch.from_numpy(np.stack(padded))})
