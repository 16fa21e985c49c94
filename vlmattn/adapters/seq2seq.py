"""Adapters of encoder-decoder models: an encoder reads pictures and prompt, a decoder looks at it and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.encoded import TYPE_KEYS, Encoded, pad_id_of, right_padded
from vlmattn.adapters.plan import ImagePlan
from vlmattn.adapters.render import Rendered
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import TokenLayout, decoder_layout


def writes_apart(config: Any) -> bool:
    """Whether the language model of a configuration has an encoder, which reads, and a decoder, which writes."""
    parts = (config, getattr(config, "text_config", None))
    return any(bool(getattr(part, "is_encoder_decoder", False)) for part in parts)


class EncoderRead(Exception):
    """Carries out of the model what its encoder would have read."""

    def __init__(self, embeddings: Any) -> None:
        self.embeddings = embeddings


class EncoderDecoder(Adapter):
    """Image tokens stand in the prompt, which the encoder reads; rows are those of the decoder's cross attention.

    Words of the question have no rows: the decoder does not read them.
    """

    needs_picture = True
    answers_apart = True

    def start_ids(self) -> NDArray[np.int64]:
        """What the decoder begins with, as ``generate`` finds it."""
        config = self.model.config
        places = (getattr(self.model, "generation_config", None), config, config.get_text_config(decoder=True))
        for name in ("decoder_start_token_id", "bos_token_id"):
            told = [getattr(place, name, None) for place in places]
            start = next((int(t) for t in told if t is not None), None)
            if start is not None:
                return np.array([start], dtype=np.int64)
        raise LayoutError("the model's configuration does not say decoder_start_token_id: set it")

    def _layout(
        self, rendered: Rendered, plans: list[ImagePlan], outputs: Mapping[str, Any], index: int
    ) -> TokenLayout:
        return decoder_layout(super()._layout(rendered, plans, outputs, index), self.start_ids())

    def _encoded(
        self, outputs: Mapping[str, Any], layouts: list[TokenLayout], groups: Any, plans: list[ImagePlan]
    ) -> Encoded:
        kept = {name: told for name, told in outputs.items() if name not in TYPE_KEYS}
        encoded = super()._encoded(kept, layouts, groups, plans)
        rows = [layout.input_ids[layout.resampled : layout.memory] for layout in layouts]
        inputs = dict(encoded.inputs) | {
            "input_ids": right_padded(rows, pad_id_of(self.tokenizer)),
            "attention_mask": right_padded([np.ones_like(row) for row in rows], 0),
            "decoder_input_ids": right_padded([self.start_ids() for _ in rows], 0),
        }
        return replace(encoded, inputs=inputs, pad_left=(0,) * len(layouts))

    def states_seen(self, inputs: Mapping[str, Any]) -> Any:
        """What the encoder reads, then nothing for what the decoder begins with."""
        import torch

        def stop(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise EncoderRead(self.encoder_inputs(args, kwargs))

        handle = self.text_encoder().register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.model(**inputs)
        except EncoderRead as read:
            words = read.embeddings
            return torch.nn.functional.pad(words, (0, 0, 0, len(self.start_ids())))
        finally:
            handle.remove()
        raise LayoutError(f"{type(self.model).__name__} does not hand merged embeddings to its encoder")

    def text_encoder(self) -> Any:
        """The module that reads words and image tokens."""
        return self.model.get_encoder()

    def encoder_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """(B, N, d) what the encoder reads, out of what it is called with."""
        return kwargs["inputs_embeds"]
