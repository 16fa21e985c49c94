"""Adapters of families whose patches stand beside the prompt: seen by cross attention, or through a resampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.adapter import Adapter
from vlmattn.adapters.paint import merged_embeddings
from vlmattn.adapters.plan import ImagePlan, nowhere, places, raster
from vlmattn.adapters.preprocess import check_prepared, fixed_view
from vlmattn.adapters.render import Rendered
from vlmattn.adapters.spans import inside, token_layout, unexpanded
from vlmattn.adapters.tower import Tower, one_side
from vlmattn.adapters.tower_cells import cell_count, cell_numbers, view_of
from vlmattn.core.errors import LayoutError, PromptError
from vlmattn.core.layout import ImageLayout, Tile, TokenKind, TokenLayout, memory_layout
from vlmattn.core.tower_cells import TowerCells


class Beside(Adapter):
    """Patches are keys beside the prompt; a placeholder in it says from where on they are seen.

    Plans hold the keys of a picture, not tokens of the prompt.

    Attributes:
        in_prompt: what the tokens are that stand for pictures in the prompt.
        own_keys: of a resampler's keys of each view, how many are its queries themselves, after the states.
    """

    needs_picture = True
    in_prompt = TokenKind.SEPARATOR
    own_keys = 0

    def written(self, plan: ImagePlan) -> int:
        """How many image tokens stand in the prompt for a picture."""
        return 1

    def keys(
        self, plans: Sequence[ImagePlan], outputs: Mapping[str, Any], index: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(V, 3) places of the keys beside prompt ``index`` of a batch, and (V,) their pictures; -1 for padding."""
        place = places([p.place for p in plans])
        return place, np.repeat(np.arange(len(plans), dtype=np.int32), [len(p) for p in plans])

    def queries(self, plans: Sequence[ImagePlan], outputs: Mapping[str, Any], index: int) -> NDArray[np.int32]:
        """(U,) pictures of a resampler's queries where these stand beside the prompt, -1 for padding; none do here."""
        return np.zeros(0, dtype=np.int32)

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
        queries = self.queries(plans, outputs, index)
        return memory_layout(prompt, place, image, tuple(p.layout for p in plans), queries)

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


class OneView(Beside):
    """Every picture is one view of the vision tower's size: a class token, then its patches."""

    def find_tower(self) -> Tower:
        """A class token before the patches."""
        vision = self.config.vision_config
        sizes = one_side(vision.image_size, "image_size"), one_side(vision.patch_size, "patch_size")
        return Tower(str(vision.model_type), *sizes, 1)

    def plan(self, image_wh: tuple[int, int], pictures: int = 1) -> ImagePlan:
        """A class token, the patches row by row, and queries that look at each other."""
        side = self.tower.image_size
        canvas = check_prepared(fixed_view(self.image_processor, image_wh, pads_to_square=False), image_wh, side)
        grid_hw, box = canvas.grid(self.tower.patch_size)
        layout = ImageLayout(image_wh, (Tile("base", grid_hw, box),), 1)
        keys = places([nowhere(1), raster(0, grid_hw), nowhere(self.own_keys)])
        return ImagePlan(layout, keys, (side, side), 1)

    def tower_cells(self, picture: ImageLayout) -> TowerCells:
        """The class token, then the patches row by row."""
        views = [view_of(numbers, classes=1) for numbers in cell_numbers(picture)]
        return TowerCells.averaged(views, cell_count(picture))


class Resampled(Beside):
    """Patches are read by a resampler, whose queries stand in the prompt.

    Attributes:
        encoder: name of the module whose states, (views, keys, d), the resampler reads.
    """

    in_prompt = TokenKind.LATENT
    encoder = "vision_model"

    def states_seen(self, inputs: Mapping[str, Any]) -> Any:
        """The states that the resampler reads, then the words and queries that the language model gets."""
        import torch

        held: list[Any] = []
        module = self.model.get_submodule(self.encoder)
        handle = module.register_forward_hook(lambda _module, _args, out: held.append(self.encoder_states(out)))
        try:
            words = self.words_seen(inputs)
        finally:
            handle.remove()
        states = torch.nn.functional.pad(torch.cat(held), (0, 0, 0, self.own_keys))
        return side_by_side([states.reshape(words.shape[0], -1, states.shape[-1]), words])

    def words_seen(self, inputs: Mapping[str, Any]) -> Any:
        """(B, N, d) words and queries that the language model gets."""
        return merged_embeddings(self.model, inputs, self.language_inputs)

    def encoder_states(self, output: Any) -> Any:
        """The states among what :attr:`encoder` gives."""
        return output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", output)


def side_by_side(parts: Sequence[Any]) -> Any:
    """Tensors (B, n, d) of several widths as one, (B, sum of n, largest d), with zeros beside the narrow ones."""
    import torch

    width = max(part.shape[2] for part in parts)
    return torch.cat([torch.nn.functional.pad(part.float(), (0, width - part.shape[2])) for part in parts], dim=1)
