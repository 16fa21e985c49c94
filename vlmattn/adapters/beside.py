"""Adapters of families whose patches stand beside the prompt: seen by cross attention, or through a resampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.paint import merged_embeddings
from vlmattn.adapters.plan import ImagePlan, places
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spans import inside, token_layout, unexpanded
from vlmattn.core.errors import LayoutError, PromptError
from vlmattn.core.layout import TokenKind, TokenLayout, memory_layout


class Beside(Adapter):
    """Patches are keys beside the prompt; a placeholder in it says from where on they are seen.

    Plans hold the keys of a picture, not tokens of the prompt.
    """

    needs_picture = True
    in_prompt = TokenKind.SEPARATOR

    def written(self, plan: ImagePlan) -> int:
        """How many image tokens stand in the prompt for a picture."""
        return 1

    def keys(
        self, plans: Sequence[ImagePlan], outputs: Mapping[str, Any], index: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(V, 3) places of the keys beside prompt ``index`` of a batch, and (V,) their pictures; -1 for padding."""
        place = places([p.place for p in plans])
        return place, np.repeat(np.arange(len(plans), dtype=np.int32), [len(p) for p in plans])

    def spans(self, rendered: Rendered, outputs: Mapping[str, Any], index: int) -> NDArray[np.int64]:
        """(N, 2) characters of the prompt, as the processor was given or wrote it, that each token covers."""
        return np.asarray(outputs["offset_mapping"][index], dtype=np.int64).reshape(-1, 2)

    def _layout(
        self, rendered: Rendered, plans: list[ImagePlan], outputs: Mapping[str, Any], index: int
    ) -> TokenLayout:
        ids = np.asarray(outputs["input_ids"][index], dtype=np.int64)
        offsets = self.spans(rendered, outputs, index)
        replaced = outputs["text_replacement_offsets"][index] if "text_replacement_offsets" in outputs else []
        prompt = token_layout(
            rendered,
            ids,
            unexpanded(offsets, replaced),
            [],
            inside=inside(offsets, replaced),
            placeholders=(self.placeholder,),
            image_token_ids=(self.image_token_id,),
            bos_token_id=getattr(self.tokenizer, "bos_token_id", None),
        )
        standing = np.repeat(np.arange(len(plans), dtype=np.int32), [self.written(p) for p in plans])
        at = self.image_tokens(ids, outputs, index)
        self._check_prompt(len(ids), int(at.sum()), len(standing))
        prompt.image[at], prompt.kinds[at], prompt.char_span[at] = standing, self.in_prompt, -1
        place, image = self.keys(plans, outputs, index)
        return memory_layout(prompt, place, image, tuple(p.layout for p in plans))

    def image_tokens(self, ids: NDArray[np.int64], outputs: Mapping[str, Any], index: int) -> NDArray[np.bool_]:
        """(N,) bool: which tokens of prompt ``index`` stand for pictures."""
        return ids == self.image_token_id

    def _check_prompt(self, count: int, found: int, wanted: int) -> None:
        if found != wanted:
            raise LayoutError(f"the prompt holds {found} image tokens after tokenising, but the model takes {wanted}")
        if self.max_tokens is not None and count > self.max_tokens:
            raise PromptError(
                f"the prompt has {count} tokens, but the model has {self.max_tokens} positions: shorten the text"
            )


class Resampled(Beside):
    """Patches are read by a resampler, whose queries stand in the prompt.

    Attributes:
        encoder: name of the module whose states, (views, keys, d), the resampler reads.
        own_keys: how many keys of each view are the queries themselves, after the states.
    """

    in_prompt = TokenKind.LATENT
    encoder = "vision_model"
    own_keys = 0

    def states_seen(self, inputs: Mapping[str, Any]) -> Any:
        """The states that the resampler reads, then the words and queries that the language model gets."""
        import torch

        held: list[Any] = []
        module = self.model.get_submodule(self.encoder)
        handle = module.register_forward_hook(lambda _module, _args, out: held.append(self.encoder_states(out)))
        try:
            words = merged_embeddings(self.model, inputs, self.language_inputs)
        finally:
            handle.remove()
        states = torch.nn.functional.pad(torch.cat(held), (0, 0, 0, self.own_keys))
        states = states.reshape(words.shape[0], -1, states.shape[-1])
        width = max(states.shape[2], words.shape[2])
        padded = [torch.nn.functional.pad(part.float(), (0, width - part.shape[2])) for part in (states, words)]
        return torch.cat(padded, dim=1)

    def encoder_states(self, output: Any) -> Any:
        """The states among what :attr:`encoder` gives."""
        return output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", output)
