"""Families whose language model sees pictures through the queries of a resampler: maps are composed of two hops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import check_agreement
from vlmattn.adapters.beside import OneView, Resampled
from vlmattn.adapters.encoded import Encoded
from vlmattn.adapters.plan import ImagePlan
from vlmattn.adapters.registry import register
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spec import FamilySpec
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import TokenLayout

_TWO_HOPS = "base: stretched to a square; seen through a resampler's queries, so maps are composed of two hops"


class BeforePrompt(OneView, Resampled):
    """One view of a picture, whose queries the processor itself puts before the prompt."""

    nested = False

    def given(self, text: str) -> str:
        """Without the placeholder, in place of which the processor puts the queries before everything."""
        cut = len(self.placeholder)
        if not text.startswith(self.placeholder):
            raise LayoutError(f"{self.spec.name} sees its picture before the prompt: put {self.placeholder} first")
        return text[cut:]

    def call_processor(self, **options: Any) -> Mapping[str, Any]:
        """It writes nothing in place of pictures, so it is not asked where."""
        return super().call_processor(**{k: v for k, v in options.items() if k != "return_text_replacement_offsets"})


BLIP_2 = FamilySpec(
    name="blip-2",
    model_types=("blip-2",),
    processors=("Blip2Processor",),
    image_processors=("BlipImageProcessor",),
    towers=("blip_2_vision_model",),
    geometry=(_TWO_HOPS,),
    max_images=1,
    prompt="{images}Question: {question} Answer:",
    after_image="",
    notes="With a decoder-only language model (OPT). One picture per prompt, before the text.",
    encoder_decoder=False,
)


@register(BLIP_2)
class Blip2(BeforePrompt):
    """BLIP-2: the queries stand before the bos token and the prompt."""

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        check_agreement(self, "num_query_tokens", processor.num_query_tokens, self.config.num_query_tokens)

    def find_tokens(self) -> tuple[str, str]:
        """The token of a query; the prompt that the processor is given has no placeholder."""
        token = str(getattr(self.processor.image_token, "content", self.processor.image_token))
        return token, token

    def written(self, plan: ImagePlan) -> int:
        """One token per query."""
        return int(self.config.num_query_tokens)

    def spans(self, rendered: Rendered, outputs: Mapping[str, Any], index: int) -> NDArray[np.int64]:
        """Behind the placeholder; queries cover none."""
        offsets = super().spans(rendered, outputs, index)
        moved = offsets + len(self.placeholder) * (offsets[:, 1:] > offsets[:, :1])
        moved[: int(self.config.num_query_tokens)] = 0
        return moved


INSTRUCTBLIP = FamilySpec(
    name="instructblip",
    model_types=("instructblip",),
    processors=("InstructBlipProcessor",),
    image_processors=("BlipImageProcessor",),
    towers=("instructblip_vision_model",),
    geometry=(_TWO_HOPS,),
    max_images=1,
    prompt="{images}{question}",
    after_image="",
    notes="With a decoder-only language model (Vicuna). One picture per prompt, before the text. The prompt also "
    "goes to the resampler, so what its queries look at depends on the question.",
    encoder_decoder=False,
)


@register(INSTRUCTBLIP)
class InstructBlip(Blip2):
    """InstructBLIP: the resampler reads the prompt, too."""

    def tensors(self, pixels: dict[str, Any]) -> dict[str, Any]:
        """Prompts for the resampler are padded on the right, where its mask hides them."""
        texts = {name: pixels[name] for name in ("qformer_input_ids", "qformer_attention_mask") if name in pixels}
        longest = max(len(row) for rows in texts.values() for row in rows)
        padded = {n: [np.pad(row, (0, longest - len(row))).tolist() for row in rows] for n, rows in texts.items()}
        return super().tensors(pixels | padded)


@register(
    FamilySpec(
        name="kosmos-2",
        model_types=("kosmos-2",),
        processors=("Kosmos2Processor",),
        image_processors=("CLIPImageProcessor",),
        towers=("kosmos_2_vision_model",),
        geometry=(
            "base: shortest side resized and centre crop; seen through a resampler's queries, so maps are composed of "
            "two hops",
        ),
        max_images=1,
        prompt="{images}<grounding> Question: {question} Answer:",
        after_image="",
        notes="One picture per prompt, before the text. The model does not see the ends of long pictures. transformers "
        "counts the positions of written tokens with the padding of a batch, so ask questions of different length one "
        "at a time.",
    )
)
class Kosmos2(BeforePrompt):
    """KOSMOS-2: places of the prompt, not a token of their own, say where queries stand."""

    one_by_one = True
    rows_of_tokens = ("image_embeds_position_mask",)

    def __init__(self, spec: FamilySpec, model: Any, processor: Any) -> None:
        super().__init__(spec, model, processor)
        self.own_keys = int(self.config.latent_query_num)
        check_agreement(self, "num_image_tokens", processor.num_image_tokens, self.own_keys)

    def find_tokens(self) -> tuple[str, str]:
        """The token that begins a picture stands for it in a prompt."""
        return str(self.processor.boi_token), str(self.processor.boi_token)

    def written(self, plan: ImagePlan) -> int:
        """One token per query."""
        return self.own_keys

    def image_tokens(self, ids: NDArray[np.int64], outputs: Mapping[str, Any], index: int) -> NDArray[np.bool_]:
        """Where the processor says that queries stand."""
        return np.asarray(outputs["image_embeds_position_mask"][index]).astype(np.bool_)

    def spans(self, rendered: Rendered, outputs: Mapping[str, Any], index: int) -> NDArray[np.int64]:
        """Behind what the processor writes before the prompt."""
        offsets = super().spans(rendered, outputs, index)
        said = rendered.text[len(self.placeholder) :]
        begin = str(self.processor.boi_token)
        before = " ".join([begin, *[begin] * self.own_keys, str(self.processor.eoi_token)])
        first = len(f"{self.tokenizer.bos_token}{before} ")
        lead = len(self.placeholder) + len(said) - len(said.lstrip())
        return np.where(offsets >= first, offsets - first + lead, 0)

    def language_inputs(self, given: Mapping[str, Any]) -> Any:
        """Queries are put among words inside the language model; these are the words."""
        return self.model.get_input_embeddings()(given["input_ids"])

    def find_image_token_id(self) -> int:
        """That of the tokenizer: the configuration does not say it."""
        return int(self.tokenizer.convert_tokens_to_ids(self.image_token))

    def _encoded(
        self, outputs: Mapping[str, Any], layouts: list[TokenLayout], groups: Any, plans: list[ImagePlan]
    ) -> Encoded:
        import torch

        (name,) = self.rows_of_tokens
        encoded = super()._encoded({k: v for k, v in outputs.items() if k != name}, layouts, groups, plans)
        pairs = zip(outputs[name], encoded.pad_left, strict=True)
        told = np.stack([np.pad(np.asarray(row, dtype=np.int64), (pad, 0)) for row, pad in pairs])
        return replace(encoded, inputs=encoded.inputs | {name: torch.from_numpy(told)})
