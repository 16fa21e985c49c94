"""Where attention happens in a model: found once per model, from the model itself."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vlmattn.adapters.guests import guests_of
from vlmattn.adapters.own_attention import reads_past_dispatch
from vlmattn.adapters.seq2seq import writes_apart
from vlmattn.core.errors import CaptureError, UnsupportedAttention

if TYPE_CHECKING:
    from torch import nn

_NO_ROWS = ("linear", "delta", "lightning", "mamba", "conv", "recurrent", "norm", "mask", "output", "rotary")
_CROSS = ("encoder_attn", "encoder_decoder_attention", "encdecattention")
_OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "dense", "wo", "c_proj")


@dataclass(frozen=True, eq=False)
class AttentionSite:
    """One attention module that goes through transformers' dispatch of attention functions.

    Attributes:
        name: qualified name below the stack it belongs to.
        layer_idx: the layer's own index, which a cache is addressed by.
        kind: ``self``; ``cross``, whose keys stand beside the tokens (states of a vision tower or of an encoder); or
            ``merged``, whose keys are the tokens and then those beside them.
        heads: number of query heads.
        windowed: whether the layer limits how far back it sees (sliding window, chunks).
    """

    name: str
    layer_idx: int
    kind: str
    heads: int
    windowed: bool
    module: nn.Module

    @property
    def sees_memory(self) -> bool:
        """Whether its keys hold those beside the tokens."""
        return self.kind != "self"

    @property
    def output_projection(self) -> nn.Module | None:
        """The linear layer that mixes the heads (W_O), or None where it is not found."""
        for name in _OUTPUT_PROJECTIONS:
            found = getattr(self.module, name, None)
            if found is not None:
                return found
        return None


@dataclass(frozen=True)
class ModelSites:
    """The attention of a model.

    Attributes:
        decoder: the text decoder that reads the image tokens.
        attention: its attention modules, one per layer; of a layer with both kinds, the cross attention.
        last_own: its last attention to its own tokens, kept or not, or None.
        blocks: (layer_idx, module) of its residual blocks, whose input is the residual stream.
        bypassing: names of modules that look like attention but compute it themselves.
        vision: attention modules outside the decoder, and of towers that it runs itself.
        own_readers: attention of resamplers that compute it past the dispatch, and can be read all the same.
        guests: modules of the decoder that belong to such towers.
    """

    decoder: nn.Module
    attention: tuple[AttentionSite, ...]
    blocks: tuple[tuple[int, nn.Module], ...]
    bypassing: tuple[str, ...]
    vision: tuple[AttentionSite, ...]
    last_own: AttentionSite | None = None
    own_readers: tuple[AttentionSite, ...] = ()
    guests: tuple[nn.Module, ...] = ()

    @property
    def words(self) -> list[nn.Module]:
        """The modules of the decoder that belong to no tower."""
        guests = {id(module) for module in self.guests}
        return [module for module in self.decoder.modules() if id(module) not in guests]

    @property
    def tower(self) -> tuple[AttentionSite, ...]:
        """Of ``vision``, the layers of stacks whose tokens look at each other; a resampler by itself is no tower."""
        return tuple(site for site in self.vision if site.kind == "self" and stack_of(site)[0])

    def check_all_seen(self) -> None:
        """Refuse "all layers" where some attention cannot be seen; layers without attention are no matter.

        Raises:
            UnsupportedAttention: a module of the decoder computes attention past the dispatch.
        """
        if self.bypassing:
            raise UnsupportedAttention(
                f"{', '.join(self.bypassing[:4])} compute attention past transformers' dispatch and cannot be seen: "
                f"choose layers= among {list(self.layers)}"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """Layer indices that have attention, ascending."""
        return tuple(site.layer_idx for site in self.attention)

    def running(self, chosen: tuple[AttentionSite, ...], memory: int) -> tuple[AttentionSite, ...]:
        """Those of ``chosen`` that run with ``memory`` keys beside the tokens: without any, cross attention does not.

        Raises:
            CaptureError: none does.
        """
        found = tuple(site for site in chosen if site.kind != "cross" or memory)
        if chosen and not found:
            raise CaptureError(
                f"{type(self.decoder).__name__} looks at pictures by cross attention, and the layouts have no keys "
                "beside the tokens (TokenLayout.memory): take the layouts of its adapter"
            )
        return found

    @property
    def depth(self) -> int:
        """Number of layers of the decoder, those without attention counted."""
        told = getattr(getattr(self.decoder, "config", None), "num_hidden_layers", None)
        return max(int(told or 0), self.attention[-1].layer_idx + 1)

    @property
    def width(self) -> int | None:
        """Coordinates of the decoder's residual stream; None if its configuration does not say."""
        told = getattr(getattr(self.decoder, "config", None), "hidden_size", None)
        return None if told is None else int(told)


_known: WeakKeyDictionary[Any, ModelSites] = WeakKeyDictionary()


def unwrap(model: Any) -> Any:
    """The transformers model behind ``torch.compile`` and a PEFT wrapper; anything else as it is.

    PEFT puts its layers into that model, which runs with them.
    """
    model = getattr(model, "_orig_mod", model)
    if hasattr(type(model), "get_base_model") and hasattr(model, "peft_config"):
        model = model.get_base_model()
    return getattr(model, "_orig_mod", model)


def model_sites(model: Any) -> ModelSites:
    """The attention of ``model``; the search runs once per model.

    Raises:
        UnsupportedAttention: not a transformers model with a text decoder, or no attention module of the decoder goes
            through the dispatch; of an encoder-decoder model, no cross attention.
    """
    model = unwrap(model)
    _check_kind(model)
    found = _known.get(model)
    if found is None:
        found = _find_sites(model)
        if found.decoder is not model:  # an entry that holds its own key would never be dropped
            _known[model] = found
    return found


def stack_of(site: AttentionSite) -> tuple[str, int]:
    """The list of layers that a site belongs to, and its number in it."""
    parts = site.name.split(".")
    at = max((i for i, part in enumerate(parts) if part.isdigit()), default=-1)
    return (".".join(parts[:at]), int(parts[at])) if at >= 0 else ("", -1)


def heads_of(model: Any, decoder: Any) -> list[Any]:
    """The modules that hand out logits: the model, and a language model inside it that some families run by itself."""
    writing = [m for m in model.modules() if callable(getattr(m, "can_generate", None)) and m.can_generate()]
    holding = [m for m in writing if any(part is decoder for part in m.modules())]
    return [head for head in dict.fromkeys([model, *holding]) if head is not decoder]


def _check_kind(model: Any) -> None:
    name = type(model).__name__
    if not callable(getattr(model, "get_decoder", None)):
        raise UnsupportedAttention(f"{name} is no transformers model with a text decoder (get_decoder)")


def _find_sites(model: Any) -> ModelSites:
    decoder = _below_head(model.get_decoder())
    attention, bypassing = _stack_sites(decoder)
    own = max((s for s in attention if s.kind != "cross"), key=lambda s: s.layer_idx, default=None)
    attention = _one_per_layer(attention)
    if writes_apart(getattr(model, "config", None)):
        attention = [site for site in attention if site.sees_memory]
    if not attention:
        raise UnsupportedAttention(
            f"no attention module of {type(decoder).__name__} uses transformers' attention dispatch"
            + (f" ({', '.join(bypassing[:4])} compute it themselves)" if bypassing else "")
            + ": rows cannot be kept for this model"
        )
    guests = tuple(module for guest in guests_of(decoder) for module in guest.modules())
    inside = {id(m) for stack in (decoder, *_reader(model)) for m in stack.modules()} - {id(m) for m in guests}
    named = list(model.named_modules())
    vision = _numbered([(n, m) for n, m in named if id(m) not in inside and _dispatches(type(m))])
    readers = _numbered([(n, m) for n, m in named if reads_past_dispatch(m)])
    found = _blocks(decoder, attention)
    return ModelSites(decoder, tuple(attention), found, tuple(bypassing), vision, own, readers, guests)


def _numbered(modules: list[tuple[str, Any]]) -> tuple[AttentionSite, ...]:
    return tuple(_site(name, module, index) for index, (name, module) in enumerate(modules))


def _reader(model: Any) -> list[Any]:
    # The text encoder of an encoder-decoder model is no vision tower, though it stands outside the decoder.
    if not writes_apart(getattr(model, "config", None)):
        return []
    encoder = model.get_encoder()
    parts = [encoder, getattr(encoder, "text_model", None)] if encoder is not model else []
    return [part for part in parts if getattr(part, "embed_tokens", None) is not None]


def _one_per_layer(sites: list[AttentionSite]) -> list[AttentionSite]:
    # Cross attention looks at the picture, self attention beside it does not.
    chosen = {s.layer_idx: s for kind in ("self", "cross", "merged") for s in sites if s.kind == kind}
    return [chosen[layer] for layer in sorted(chosen)]


def _below_head(decoder: Any) -> Any:
    # Some families hand out their causal LM as the decoder; the stack below its language head is meant. What holds a
    # decoder, beside an encoder or not, may itself be passed by.
    while getattr(decoder, "lm_head", None) is not None and getattr(decoder, "model", None) is not None:
        decoder = decoder.model
    return getattr(decoder, "decoder", decoder)


def _stack_sites(stack: Any) -> tuple[list[AttentionSite], list[str]]:
    sites: list[AttentionSite] = []
    own: list[str] = []
    guests = {id(module) for guest in guests_of(stack) for module in guest.modules()}
    for name, module in stack.named_modules():
        index = getattr(module, "layer_idx", None)
        if index is not None and id(module) not in guests and _dispatches(type(module)):
            sites.append(_placed(_site(name, module, int(index)), stack))
        elif (
            id(module) not in guests
            and not reads_past_dispatch(module)
            and _looks_like_attention(module)
            and not any(name.startswith(f"{outer}.") for outer in own)
        ):
            own.append(name)
    return sites, own


def _placed(site: AttentionSite, stack: Any) -> AttentionSite:
    """The site with the number of the layer that it stands before.

    Cross attention in a list of its own, before every n-th layer, counts there from 0.
    """
    every = getattr(getattr(stack, "config", None), "cross_layer_interval", None)
    return replace(site, layer_idx=site.layer_idx * int(every)) if every and site.kind == "cross" else site


def _looks_like_attention(module: Any) -> bool:
    # Linear, recurrent and convolutional mixers have no attention rows, whatever they are called; containers of an
    # attention module that goes through the dispatch are no attention themselves.
    words = type(module).__name__.lower()
    if not ("attention" in words or "attn" in words) or any(other in words for other in _NO_ROWS):
        return False
    return bool(list(module.parameters())) and not any(_dispatches(type(m)) for m in module.modules())


def _site(name: str, module: Any, layer_idx: int) -> AttentionSite:
    config = getattr(module, "config", None)
    heads = getattr(module, "num_heads", None) or getattr(config, "num_attention_heads", 0)
    cross = any("cross" in part or part.lower() in _CROSS for part in name.split(".")[-2:])
    kind = "merged" if "MergedAttention" in type(module).__name__ else "cross" if cross else "self"
    return AttentionSite(name, layer_idx, kind, int(heads or 0), _windowed(module, config), module)


def _windowed(module: Any, config: Any) -> bool:
    if getattr(module, "sliding_window", None) or getattr(module, "is_sliding", False):
        return True
    types = getattr(config, "layer_types", None)
    index = getattr(module, "layer_idx", None)
    if types and index is not None and index < len(types):
        return types[index] != "full_attention"
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True)


def _blocks(decoder: Any, attention: list[AttentionSite]) -> tuple[tuple[int, Any], ...]:
    modules = dict(decoder.named_modules())
    parents = ((s.layer_idx, s.name.rsplit(".", 1)[0] if "." in s.name else "") for s in attention)
    return tuple((index, modules[name]) for index, name in parents if name in modules and name)


def _dispatches(cls: Any) -> bool:
    return _asks_for_a_kernel(cls)


@lru_cache(maxsize=512)
def _asks_for_a_kernel(cls: Any) -> bool:
    try:
        return "get_interface(" in inspect.getsource(cls.forward)
    except (OSError, TypeError, AttributeError):
        return False
