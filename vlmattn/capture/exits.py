"""Early exits while a model writes: the last token's states behind earlier layers, read as logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from vlmattn.capture import door
from vlmattn.capture.hidden import check_stream
from vlmattn.capture.readout import Readout, _proved_scaling, _stack, head_of
from vlmattn.capture.sites import model_sites, unwrap
from vlmattn.core.errors import CaptureError, UnsupportedModel


class Exits:
    """Logits that the model's own final norm and unembedding make of earlier layers.

    What logits processors run themselves is passed by.

    Args:
        model: a transformers model.

    Attributes:
        depth: layers of the decoder.

    Raises:
        UnsupportedModel: the layers or the unembedding are not found.
    """

    def __init__(self, model: Any) -> None:
        self.model = unwrap(model)
        self.holder, self.stack = _stack(self.model)
        self.head, self.width = head_of(self.model), model_sites(self.model).width
        self.depth = len(self.stack)
        self._states: dict[int, torch.Tensor] = {}
        self._norms: dict[int, tuple[nn.Module, torch.Tensor]] = {}
        self._read = self._wrote = self._told = torch.empty(0)
        self._readout: Readout | None = None
        self._chosen: tuple[int, ...] = ()

    @contextmanager
    def watching(self, behind: Sequence[int]) -> Iterator[None]:
        """Keep the last token's states behind 1 to n layers, of the latest pass.

        Args:
            behind: numbers of layers passed.
        """
        with ExitStack() as held:
            for number in sorted({*behind, self.depth}):
                held.callback(self.stack[number - 1].register_forward_hook(self._leaves(number)).remove)
            for module in self._norm_modules():
                held.callback(module.register_forward_hook(self._normed).remove)
            held.callback(self.head.register_forward_hook(self._writes).remove)
            held.callback(self.model.register_forward_hook(self._ends).remove)
            self._chosen = tuple(sorted(set(behind)))
            yield

    def logits(self) -> torch.Tensor:
        """(E, B, V) float32 logits of the latest pass, exits ascending.

        Raises:
            CaptureError: nothing ran. UnsupportedModel: the final norm is not found, or the logits are changed behind
                the unembedding in a way that is not known.
        """
        if not self._states:
            raise CaptureError("the model did not run, so there are no earlier layers to read")
        if self._readout is None:
            self._readout = self._found()
        readout = self._readout
        with torch.no_grad():
            return torch.stack([self._one(readout, self._states[n]) for n in self._chosen])

    def _one(self, readout: Readout, states: torch.Tensor) -> torch.Tensor:
        normed = readout.normed(states)
        weight = next((p for p in self.head.parameters() if not p.is_meta), normed)
        kind = weight.dtype if weight.dtype.is_floating_point else normed.dtype
        return readout.scaled(self.head(normed.to(weight.device, kind)[:, None])[:, 0]).to(self._told.device)

    def _found(self) -> Readout:
        final = self._read
        norm = next((m for m, made in self._norms.values() if torch.equal(made, final)), None)
        if norm is None and not torch.equal(self._states[self.depth], final):
            raise UnsupportedModel(
                f"the final norm of {type(self.holder).__name__} is not found, so no earlier layer can be read"
            )
        return Readout(norm, self.head, _proved_scaling(self.model, self.head, self._wrote, self._told))

    def _norm_modules(self) -> list[nn.Module]:
        named = [(name, one) for name, one in self.holder.named_children() if one is not self.stack]
        return [one for name, one in named if "norm" in f"{name} {type(one).__name__}".casefold()]

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def _leaves(self, number: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            if door.depth():
                return
            states = output[0] if isinstance(output, (tuple, list)) else output
            check_stream(states, self.width)
            self._states[number] = states[:, -1].detach()

        return hook

    def _normed(self, module: nn.Module, _args: Any, output: torch.Tensor) -> None:
        if not door.depth() and self._readout is None and output.dim() == 3:
            self._norms[id(module)] = (module, output[:, -1].detach())

    def _writes(self, _module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        if not door.depth() and self._readout is None and args:
            self._read, self._wrote = args[0][:, -1].detach(), output[:, -1:].detach()

    def _ends(self, _module: nn.Module, _args: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if not door.depth() and self._readout is None and logits is not None:
            self._told = logits[:, -1:].detach()
