"""The residual stream of one pass at chosen tokens, and what reads words off it: final norm, unembedding, scaling.

All three are found in the model and proved by the pass itself: what they make of the last state of the last token must
be the model's own logits. ``UnsupportedModel`` says which of them could not be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from vlmattn.capture.hidden import check_stream
from vlmattn.capture.sites import heads_of, model_sites, stack_of, unwrap
from vlmattn.core.errors import CaptureError, LayoutError, SpecError, UnsupportedModel

if TYPE_CHECKING:
    from vlmattn.adapters import Encoded

_CHUNK = 1 << 24  # logits of 64 MiB at a time
_CLOSE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_SCALINGS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "final_logit_softcapping": lambda z, cap: torch.tanh(z / cap) * cap,
    "logits_scaling": lambda z, scale: z / scale,
    "logit_scale": lambda z, scale: z * scale,
}
"""What configurations call a change of all logits by one rule, and the rule."""


class WordsRead(NamedTuple):
    """Of N states: (N, k) the likeliest tokens and their probabilities, (N, C) probabilities of asked tokens."""

    top_ids: torch.Tensor
    top: torch.Tensor
    asked: torch.Tensor


@dataclass(frozen=True, eq=False)
class Readout:
    """What turns states into logits.

    Attributes:
        norm: the decoder's final norm, None if it has none. head: the unembedding. scaling: the configuration's name
            and number of what changes its logits, None if nothing does.
    """

    norm: nn.Module | None
    head: nn.Module
    scaling: tuple[str, float] | None = None

    @torch.no_grad()
    def columns(self, normed: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """(N, C) float32 logits of some tokens from (N, d) states behind the final norm.

        Only the columns asked for are computed, unless the unembedding is quantised or no linear layer.
        """
        weight = getattr(self.head, "weight", None)
        chosen = torch.as_tensor(list(ids))
        if type(self.head) is not nn.Linear or weight is None or weight.is_meta or not weight.is_floating_point():
            return torch.cat([self._scaled(part)[:, chosen.to(part.device)] for part in self._raw(normed)])
        at = chosen.to(weight.device)
        bias = None if self.head.bias is None else self.head.bias[at].float()
        states = normed.to(weight.device, weight.dtype).float()
        return self._scaled(nn.functional.linear(states, weight[at].float(), bias))

    @torch.no_grad()
    def words(self, states: torch.Tensor, *, top: int, ids: Sequence[int] = (), normed: bool = False) -> WordsRead:
        """Probabilities over the whole vocabulary at (N, d) states; the vocabulary is held for a few at a time.

        Args:
            normed: whether the states have been through the final norm.
        """
        behind = states if normed else self.normed(states)
        found = [self._read(self._scaled(part), top, list(ids)) for part in self._raw(behind)]
        return WordsRead(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))

    @torch.no_grad()
    def logits(self, states: torch.Tensor, *, normed: bool = False) -> torch.Tensor:
        """(N, V) float32 logits, on the CPU, of (N, d) states; of few, since the whole vocabulary is held for all."""
        behind = states if normed else self.normed(states)
        return torch.cat([self._scaled(part).cpu() for part in self._raw(behind)])

    @torch.no_grad()
    def normed(self, states: torch.Tensor) -> torch.Tensor:
        """(N, d) states behind the final norm."""
        if self.norm is None:
            return states
        where = next((p for p in self.norm.parameters() if not p.is_meta), states)
        return self.norm(states.to(where.device)[None])[0]

    def scaled(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits as the model hands them out, from those of the unembedding."""
        return self._scaled(logits)

    def _raw(self, normed: torch.Tensor) -> Iterator[torch.Tensor]:
        where = next((p for p in self.head.parameters() if not p.is_meta), normed)
        dtype = where.dtype if where.is_floating_point() else normed.dtype
        size = max(1, _CHUNK // max(int(getattr(self.head, "out_features", 0) or 32768), 1))
        for part in normed.split(size):
            yield self.head(part.to(where.device, dtype)[None])[0]

    def _scaled(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        return logits if self.scaling is None else _SCALINGS[self.scaling[0]](logits, self.scaling[1])

    @staticmethod
    def _read(logits: torch.Tensor, top: int, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shares = torch.softmax(logits, dim=-1)
        best = shares.topk(min(top, shares.shape[-1]), dim=-1)
        return best.indices, best.values, shares[:, ids]


@dataclass(frozen=True, eq=False)
class StreamPass:
    """One pass: states at chosen tokens, and what reads them.

    Attributes:
        depth: layers of the decoder, n. layers: which of 0 … n were kept: 0 is what enters the first layer, ℓ what
            enters layer ℓ (counted from 0), n what leaves the last, before the final norm.
        states: (K, d) per kept layer, on the CPU. final: (N, d) states of all tokens behind the final norm.
        readout: what turns them into logits.
    """

    depth: int
    layers: tuple[int, ...]
    states: dict[int, torch.Tensor]
    final: torch.Tensor
    readout: Readout


def stream_layers(model: Any) -> int:
    """How many layers the decoder's residual stream has; raises UnsupportedModel where they are not found."""
    return len(_stack(unwrap(model))[1])


def stream_pass(model: Any, encoded: Encoded, positions: Sequence[int], *, layers: Sequence[int] = ()) -> StreamPass:
    """Run one prompt, with its answer if it has one, and keep states; logits are made for its last token only.

    Args:
        model: a transformers model. encoded: one prompt, on its device. positions: K token positions of its layout,
            none of them beside the decoder's own. layers: of 0 … n, as :class:`StreamPass` counts.

    Raises:
        SpecError: several prompts, or a layer or position that does not exist. UnsupportedModel: final norm,
        unembedding or scaling are not found, or are not what makes the model's logits. CaptureError: NaN.
    """
    if encoded.batch_size != 1:
        raise SpecError(f"states are kept of one prompt at a time, got {encoded.batch_size}")
    layout, pad = encoded.layouts[0], encoded.pad_left[0]
    if any(not layout.memory <= p < len(layout) for p in positions):
        raise SpecError("positions must be those of the decoder's own tokens")
    model = unwrap(model)
    seen = _Seen(model, [p - layout.memory + pad for p in positions], tuple(layers))
    with seen.watching(), torch.no_grad():
        output = model(**encoded.inputs, use_cache=False)
    final = seen.final(len(layout) - layout.memory + pad)
    norm = seen.norm_of(final)
    readout = Readout(norm, seen.head, _proved_scaling(model, seen.head, seen.written(), output.logits))
    if not torch.isfinite(final).all():
        raise CaptureError(
            "the decoder's last states are NaN or infinite: the weights are damaged, or load with dtype='float32'"
        )
    return StreamPass(len(seen.stack), tuple(layers), seen.states, final[0, pad:], readout)


# -- found in the model ------------------------------------------------------------------------------------------------


def head_of(model: Any) -> nn.Module:
    """The unembedding. Raises UnsupportedModel where the model does not hand it out."""
    model = unwrap(model)
    for one in heads_of(model, model_sites(model).decoder):
        found = one.get_output_embeddings() if callable(getattr(one, "get_output_embeddings", None)) else None
        if found is not None:
            return found
    raise UnsupportedModel(
        f"{type(model).__name__} does not say what makes its logits (get_output_embeddings), so states cannot be read "
        "as words: take method='raw' or 'occlusion'"
    )


def _stack(model: Any) -> tuple[nn.Module, nn.ModuleList]:
    """The module that holds the decoder's layers, and the layers."""
    sites = model_sites(model)
    name = stack_of(sites.attention[-1])[0]
    modules = dict(sites.decoder.named_modules())
    layers = modules.get(name)
    if not isinstance(layers, nn.ModuleList):
        raise UnsupportedModel(f"the layers of {type(sites.decoder).__name__} are in no list, so none can be watched")
    return modules[name.rpartition(".")[0]], layers


@dataclass(eq=False)
class _Seen:
    """Watches one pass."""

    model: Any
    at: list[int]
    layers: tuple[int, ...]
    states: dict[int, torch.Tensor] = field(default_factory=dict)
    normed: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    last: torch.Tensor | None = None
    read: torch.Tensor | None = None
    wrote: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.holder, self.stack = _stack(self.model)
        self.head, self.width = head_of(self.model), model_sites(self.model).width
        wrong = [n for n in self.layers if not 0 <= n <= len(self.stack)]
        if wrong:
            raise SpecError(f"layers {wrong} do not exist; states are of layers 0 to {len(self.stack)}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        held = [
            layer.register_forward_pre_hook(self._enters(number), with_kwargs=True)
            for number, layer in enumerate(self.stack)
            if number in self.layers
        ]
        held.append(self.stack[-1].register_forward_hook(self._leaves))
        held += [module.register_forward_hook(self._norms) for module in self._norm_modules()]
        held.append(self.head.register_forward_pre_hook(self._reads))
        held.append(self.head.register_forward_hook(self._writes))
        try:
            yield
        finally:
            for one in held:
                one.remove()

    def _norm_modules(self) -> list[nn.Module]:
        named = [(name, one) for name, one in self.holder.named_children() if one is not self.stack]
        return [one for name, one in named if "norm" in f"{name} {type(one).__name__}".casefold()]

    def _enters(self, number: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._keep(number, args[0] if args else kwargs["hidden_states"])

        return hook

    def _keep(self, number: int, states: torch.Tensor) -> None:
        check_stream(states, self.width)
        self.states[number] = states[0, self.at].detach().cpu()

    def _leaves(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self.last = output[0] if isinstance(output, (tuple, list)) else output

    def _norms(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.last is not None and args and args[0].shape == self.last.shape:
            self.normed.append((module, args[0], output))

    def _reads(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.read = args[0].detach()
        return (self.read[:, -1:], *args[1:])

    def _writes(self, _module: nn.Module, _args: Any, output: torch.Tensor) -> None:
        self.wrote = output.detach()

    def final(self, tokens: int) -> torch.Tensor:
        if self.read is None or self.last is None:
            raise UnsupportedModel("the model's unembedding or its last layer did not run as a module of its own")
        check_stream(self.last, self.width)
        if self.read.dim() != 3 or self.read.shape[1] != tokens or self.last.shape[1] != tokens:
            raise LayoutError(f"the decoder's states are {tuple(self.read.shape)}, and its prompt has {tokens} tokens")
        return self.read

    def written(self) -> torch.Tensor:
        """(1, 1, V) what the unembedding made of the last token."""
        if self.wrote is None:
            raise UnsupportedModel("the model's unembedding did not run as a module of its own")
        return self.wrote

    def norm_of(self, final: torch.Tensor) -> nn.Module | None:
        """The norm that made the last states; keeps what went into it, where that layer is asked for."""
        leaving = self.last if self.last is not None else final
        stream, norm = leaving, None
        for module, given, made in self.normed:
            if torch.equal(made, final):
                stream, norm = given, module
        if norm is None and not (leaving.shape == final.shape and torch.equal(leaving, final)):
            raise UnsupportedModel(
                f"the final norm of {type(self.holder).__name__} is not found: what the unembedding reads is neither "
                "the last layer's output nor that of a norm behind it; take method='raw' or 'occlusion'"
            )
        if len(self.stack) in self.layers:
            self._keep(len(self.stack), stream)
        return norm


def _proved_scaling(
    model: Any, head: nn.Module, written: torch.Tensor, logits: torch.Tensor
) -> tuple[str, float] | None:
    raw, told = written[:, -1], logits[:, -1].float()
    limit = _CLOSE.get(raw.dtype, 1e-1)
    for scaling in (None, *_told_scalings(model)):
        made = Readout(None, head, scaling).scaled(raw).to(told.device)
        if made.shape == told.shape and torch.allclose(made, told, rtol=limit, atol=limit * float(told.abs().max())):
            return scaling
    raise UnsupportedModel(
        f"{type(model).__name__} changes its logits behind the unembedding in a way that is not known, so states "
        "cannot be read as words: take method='raw' or 'occlusion'"
    )


def _told_scalings(model: Any) -> list[tuple[str, float]]:
    configs = [model.config, getattr(model_sites(model).decoder, "config", None)]
    configs += [getattr(one, "config", None) for one in heads_of(model, model_sites(model).decoder)]
    found = {(name, getattr(one, name, None)) for one in configs for name in _SCALINGS}
    return [(name, float(value)) for name, value in sorted(found, key=str) if value]
