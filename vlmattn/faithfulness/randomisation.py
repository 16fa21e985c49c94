"""Does a map depend on what the model has learned? Its layers are made random, one more at a time, from the top.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018 (cascading randomisation): a map that stays as it was
tells of the picture or of the architecture, not of the model. Every floating-point tensor of a layer is drawn anew from
the normal distribution with its own mean and standard deviation. Afterwards all weights are what they were, bit for
bit, whatever happened in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import MapError

if TYPE_CHECKING:
    import torch

_WHOLE = (
    "the weights of {} are quantised or kept elsewhere, so they cannot be made random: load the model whole, in "
    "float32 or bfloat16"
)


class Cascade:
    """A model whose layers can be made random from the top down; see :func:`cascade`.

    Attributes:
        stages: what each step makes random: ``output`` (the language head, if it has weights of its own), then decoder
            layers from the last to the first.
    """

    def __init__(self, model: Any, seed: int) -> None:
        import torch

        from vlmattn.capture import model_sites
        from vlmattn.capture.sites import unwrap

        self._generator = torch.Generator().manual_seed(seed)
        self._held: dict[int, tuple[torch.nn.Parameter, torch.Tensor]] = {}
        model = unwrap(model)
        if getattr(model, "is_quantized", False):
            raise MapError(_WHOLE.format("the model"))
        head, words = model.get_output_embeddings(), model.get_input_embeddings()
        tied = head is None or getattr(head, "weight", None) is getattr(words, "weight", None)
        self._modules: dict[str, Any] = {} if tied else {"output": head}
        blocks = sorted(model_sites(model).blocks, key=lambda block: -block[0])
        self._modules |= {f"layer {index}": block for index, block in blocks}
        self.stages = tuple(self._modules)
        for name, module in self._modules.items():
            for parameter in module.parameters():
                if not parameter.is_floating_point() or parameter.is_meta:
                    raise MapError(_WHOLE.format(name))

    def randomise(self, stage: str) -> None:
        """Make a stage random."""
        import torch

        with torch.no_grad():
            for parameter in self._modules[stage].parameters():
                self._held.setdefault(id(parameter), (parameter, parameter.detach().clone()))
                known = self._held[id(parameter)][1].float()
                noise = torch.randn(known.shape, generator=self._generator).to(known.device)
                spread = known.std(unbiased=False) if known.numel() > 1 else known.abs().squeeze()
                parameter.copy_((known.mean() + spread * noise).to(parameter.dtype))

    def restore(self) -> None:
        """Give every weight back what it was."""
        import torch

        with torch.no_grad():
            for parameter, kept in self._held.values():
                parameter.copy_(kept)
        self._held.clear()


@contextmanager
def cascade(model: Any, *, seed: int = 0) -> Iterator[Cascade]:
    """A model to be made random meanwhile.

    Args:
        model: a transformers model. seed: of what is drawn.

    Raises:
        MapError: quantised or off-loaded weights.
    """
    made = Cascade(model, seed)
    try:
        yield made
    finally:
        made.restore()
