"""Families whose encoder reads a resampler's queries with the prompt, and whose decoder looks at what it read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vlmattn.adapters.beside import Resampled
from vlmattn.adapters.registry import register
from vlmattn.adapters.seq2seq import EncoderDecoder
from vlmattn.adapters.zoo.resampled import BLIP_2, INSTRUCTBLIP, Blip2, InstructBlip

_ROWS = (
    "One picture per prompt, before the text. Rows are those of the decoder's cross attention to what the encoder made "
    "of the queries; the question is read by the encoder and has none."
)


class EncodedQueries(EncoderDecoder, Resampled):
    """Queries stand in the prompt of an encoder; attention to what it made of them is attention to the queries."""

    def states_seen(self, inputs: Mapping[str, Any]) -> Any:
        """The states that the resampler reads, what the encoder reads, and nothing for what the decoder begins with."""
        return Resampled.states_seen(self, inputs)

    def words_seen(self, inputs: Mapping[str, Any]) -> Any:
        """Words and queries as the encoder gets them."""
        return EncoderDecoder.states_seen(self, inputs)


@register(replace(BLIP_2, name="blip-2-t5", encoder_decoder=True, notes=f"With T5. {_ROWS}"))
class Blip2T5(EncodedQueries, Blip2):
    """BLIP-2 with T5."""


@register(
    replace(
        INSTRUCTBLIP,
        name="instructblip-t5",
        encoder_decoder=True,
        notes=f"With T5. {_ROWS} The prompt also goes to the resampler.",
    )
)
class InstructBlipT5(EncodedQueries, InstructBlip):
    """InstructBLIP with T5."""
