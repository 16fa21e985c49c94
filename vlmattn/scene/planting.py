"""Attention sinks put into a model by construction: ground truth for detectors and corrections.

Trained large models grow tokens that draw attention without regard to content, with *massive activations* in a few
residual coordinates (Sun et al., 2024; Kang et al., 2025 for image patches). Small ones do not. :func:`plant_sinks`
edits the weights of a Llama-shaped model so that chosen tokens and patches become such sinks:

* A *marker* coordinate and the massive coordinates are cleared from everything that reads or writes the residual
stream. * Token sinks get the marker from their embedding. Patch sinks get it from their position embedding in the
  vision tower, through a cleared coordinate there and two neurons of the projector; it does not depend on the picture.
* One MLP neuron turns the marker into the massive activation, in the layer before the sinks are to appear.
* From then on every key reads the massive coordinates, and every query gets a bias along the same, slowly rotating
  dimension of its head: all rows of all heads are pulled to the sinks by the same score.

Every sink made here is called *planted*, wherever it is shown.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import SpecError, UnsupportedModel

if TYPE_CHECKING:
    import torch

_MARKED = 4.0  # what the normalised marker coordinate is meant to read
_SLOWEST = 0.3  # radians that a usable rotary pair may turn over a context of ``_CONTEXT``
_CONTEXT = 1024
_ROUNDS = 12


@dataclass(frozen=True)
class PlantedSinks:
    """What was planted.

    Attributes:
        tokens: ids of tokens that are sinks wherever they stand. patches: row-major numbers of the patches that are.
        coordinates: residual coordinates of the massive activation. marker: the one that announces it.
        layer: first layer (from 0) whose input has it. strength: its size over the RMS of what was there. pull: what
            the planted score adds to a sink's pre-softmax score, in every head and row from ``layer`` on.
    """

    tokens: tuple[int, ...]
    patches: tuple[int, ...]
    coordinates: tuple[int, ...]
    marker: int
    layer: int
    strength: float
    pull: float


def plant_sinks(
    model: Any,
    *,
    tokens: Sequence[int] = (),
    patches: Sequence[int] = (),
    coordinates: Sequence[int] | None = None,
    layer: int = 1,
    strength: float = 100.0,
    pull: float = 6.0,
) -> tuple[Any, PlantedSinks]:
    """A copy of a model with planted sinks, and what was planted.

    Args:
        model: a causal Llama-shaped model (RMS norm, gated MLP, rotary positions, no query norm), alone or under a
            LLaVA with a CLIP or SigLIP tower; the latter is needed for ``patches``.
        tokens: token ids, such as that of the beginning of the sequence. patches: numbers from 0, row by row.
        coordinates: of the massive activation; default: the two that the weights use least.
        layer: first layer whose input has massive activations, at least 1.
        strength: their size, in multiples of the RMS of the residual stream of the same token there.
        pull: added to the sinks' scores. 0 gives massive activations that draw nothing.

    Raises:
        SpecError: nothing to plant, or something that the model does not have. UnsupportedModel: another architecture.
    """
    parts = _Parts.of(copy.deepcopy(model))
    spots = _coordinates(parts, coordinates)
    _check(parts, tokens, patches, spots[1:], layer, strength, pull)
    planted = PlantedSinks(tuple(tokens), tuple(patches), spots[1:], spots[0], layer, strength, pull)
    import torch

    with torch.no_grad():
        _clear(parts, spots)
        if patches:
            _mark_patches(parts, planted)
        for token in tokens:
            parts.embedding.weight[token, planted.marker] = 1
        _set_marks(parts, planted)
        _grow(parts, planted)
        for block in parts.layers[layer:]:
            _pull(parts, block, planted)
    return parts.model, planted


@dataclass(frozen=True)
class _Parts:
    model: Any
    config: Any
    decoder: Any
    embedding: Any
    layers: Any
    norm: Any
    head: Any
    tower: Any
    projector: Any

    @classmethod
    def of(cls, model: Any) -> _Parts:
        decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
        decoder = getattr(decoder, "language_model", decoder)
        inner = getattr(model, "model", model)
        if not _is_llama_shaped(decoder):
            raise UnsupportedModel(f"sinks are planted in Llama-shaped decoders only, not in {type(decoder).__name__}")
        tower, projector = getattr(inner, "vision_tower", None), getattr(inner, "multi_modal_projector", None)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        return cls(model, decoder.config, decoder, embedding, decoder.layers, decoder.norm, head, tower, projector)

    @property
    def width(self) -> int:
        return int(self.config.hidden_size)


def _is_llama_shaped(decoder: Any) -> bool:
    blocks = getattr(decoder, "layers", None)
    if not blocks or getattr(decoder.config, "hidden_act", "") != "silu":
        return False
    attention, mlp = getattr(blocks[0], "self_attn", None), getattr(blocks[0], "mlp", None)
    wanted = ((attention, ("q_proj", "k_proj", "v_proj", "o_proj")), (mlp, ("gate_proj", "up_proj", "down_proj")))
    has_all = all(hasattr(part, name) for part, names in wanted for name in names)
    more = any(hasattr(attention, name) for name in ("q_norm", "sinks"))
    more = more or hasattr(blocks[0], "pre_feedforward_layernorm")
    return has_all and not more and type(decoder.norm).__name__.endswith("RMSNorm")


def _check(
    parts: _Parts,
    tokens: Sequence[int],
    patches: Sequence[int],
    coordinates: Sequence[int],
    layer: int,
    strength: float,
    pull: float,
) -> None:
    if not tokens and not patches:
        raise SpecError("nothing to plant: give tokens, patches or both")
    if bad := [t for t in tokens if not 0 <= t < parts.embedding.weight.shape[0]]:
        raise SpecError(f"tokens {bad} do not exist; ids go up to {parts.embedding.weight.shape[0] - 1}")
    if not 1 <= layer < len(parts.layers):
        raise SpecError(f"layer must be from 1 to {len(parts.layers) - 1}, got {layer}")
    if not strength > 0 or not pull >= 0:
        raise SpecError(f"strength must be above 0 and pull at least 0, got {strength} and {pull}")
    if not coordinates:
        raise SpecError("coordinates must be at least one, got none")
    if len(set(coordinates)) != len(coordinates) or any(not 0 <= c < parts.width for c in coordinates):
        raise SpecError(f"coordinates must be different numbers from 0 to {parts.width - 1}, got {list(coordinates)}")
    if patches:
        one_layer = isinstance(getattr(parts.model.config, "vision_feature_layer", None), int)
        if not hasattr(parts.projector, "linear_2") or not one_layer:
            raise UnsupportedModel("patches can be sinks only where a two-layer projector reads one vision tower layer")
        count = _embeddings(parts.tower).position_embedding.weight.shape[0] - _class_tokens(parts.tower)
        if bad := [p for p in patches if not 0 <= p < count]:
            raise SpecError(f"patches {bad} do not exist; there are {count}")


def _coordinates(parts: _Parts, wanted: Sequence[int] | None) -> tuple[int, ...]:
    # The marker first: of those not taken, the coordinate that the weights use least.
    use = parts.embedding.weight.detach().float().square().mean(0)
    for block in parts.layers:
        use = use + block.mlp.down_proj.weight.detach().float().square().mean(1)
        use = use + block.self_attn.o_proj.weight.detach().float().square().mean(1)
        use = use + block.self_attn.q_proj.weight.detach().float().square().mean(0)
    order = [int(i) for i in use.argsort()]
    massive = tuple(order[1:3]) if wanted is None else tuple(int(c) for c in wanted)
    return next(c for c in order if c not in massive), *massive


def _clear(parts: _Parts, spots: Sequence[int]) -> None:
    # Nothing reads or writes these coordinates any more; the norms let them pass as they are.
    columns = list(spots)
    parts.embedding.weight[:, columns] = 0
    if parts.head is not None:
        parts.head.weight[:, columns] = 0
    if parts.projector is not None:
        last = parts.projector.linear_2
        last.weight[columns] = 0
        if last.bias is not None:
            last.bias[columns] = 0
    for block in parts.layers:
        attention, mlp = block.self_attn, block.mlp
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            reader.weight[:, columns] = 0
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight[columns] = 0
            if writer.bias is not None:
                writer.bias[columns] = 0
        block.input_layernorm.weight[columns] = 1
        block.post_attention_layernorm.weight[columns] = 1


def _set_marks(parts: _Parts, planted: PlantedSinks) -> None:
    # Until the normalised marker reads what it should: of token sinks and patch sinks, each on its own.
    token_size, count = 1.0, len(planted.tokens)
    for _ in range(_ROUNDS):
        there = _before_mlp(parts, planted)
        reads = there[:, planted.marker] / there.square().mean(1).sqrt()
        if count:
            token_size *= _MARKED / float(reads[:count].mean().clamp(min=1e-3))
            parts.embedding.weight[list(planted.tokens), planted.marker] = token_size
        if planted.patches:
            factor = _MARKED / float(reads[count:].mean().clamp(min=1e-3))
            parts.projector.linear_2.weight[planted.marker] *= factor


def _before_mlp(parts: _Parts, planted: PlantedSinks) -> torch.Tensor:
    # (S, d) residual stream of the sinks where the MLP before ``layer`` reads it: tokens, then patches of
    # a picture of noise.
    import torch

    pieces = [parts.embedding.weight[list(planted.tokens)]] if planted.tokens else []
    at = list(range(len(planted.tokens)))
    if planted.patches:
        pieces.append(_noise_patches(parts))
        at += [len(planted.tokens) + p for p in planted.patches]
    seen: list[torch.Tensor] = []
    norm = parts.layers[planted.layer - 1].post_attention_layernorm
    hook = norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    try:
        parts.decoder(inputs_embeds=torch.cat(pieces)[None], use_cache=False)
    finally:
        hook.remove()
    return seen[0][0, at].float()


def _noise_patches(parts: _Parts) -> torch.Tensor:
    import torch

    config = parts.model.config
    side, weight = int(config.vision_config.image_size), _embeddings(parts.tower).patch_embedding.weight
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(weight)
    states = parts.tower(noise, output_hidden_states=True).hidden_states[config.vision_feature_layer]
    return torch.as_tensor(parts.projector(states[0, _class_tokens(parts.tower) :]))


def _grow(parts: _Parts, planted: PlantedSinks) -> None:
    # The least used neuron of the layer before becomes the massive activation where there is a marker.
    mlp = parts.layers[planted.layer - 1].mlp
    there = _before_mlp(parts, planted)
    rms = there.square().mean(1).sqrt()
    neuron = int((mlp.down_proj.weight.norm(dim=0) * mlp.up_proj.weight.norm(dim=1)).argmin())
    for reader in (mlp.gate_proj, mlp.up_proj):
        reader.weight[neuron] = 0
        reader.weight[neuron, planted.marker] = 1
        if reader.bias is not None:
            reader.bias[neuron] = 0
    mlp.down_proj.weight[:, neuron] = 0
    reads = there[:, planted.marker] / rms
    given = (reads.sigmoid() * reads.square() / rms).mean()
    mlp.down_proj.weight[list(planted.coordinates), neuron] = planted.strength / float(given)


def _pull(parts: _Parts, block: Any, planted: PlantedSinks) -> None:
    attention = block.self_attn
    size = int(attention.head_dim)
    groups = attention.k_proj.weight.shape[0] // size
    queries = attention.q_proj.weight.shape[0] // size
    _give_biases(parts, attention)
    read = math.sqrt(parts.width / len(planted.coordinates))  # what each normalised massive coordinate reads at a sink
    each = math.sqrt(planted.pull / float(attention.scaling))
    for group in range(groups):
        heads = range(group * queries // groups, (group + 1) * queries // groups)
        first, second = _slow_pair(parts, attention, group, heads, size)
        for proj, numbers in ((attention.q_proj, heads), (attention.k_proj, (group,))):
            for number in numbers:
                proj.weight[[number * size + first, number * size + second]] = 0
                proj.bias[[number * size + first, number * size + second]] = 0
        key = attention.k_proj.weight
        key[group * size + first, list(planted.coordinates)] = each / (read * len(planted.coordinates))
        for head in heads:
            attention.q_proj.bias[head * size + first] = each


def _slow_pair(parts: _Parts, attention: Any, group: int, heads: range, size: int) -> tuple[int, int]:
    # The rotary pair that hardly turns over a context and that this group of heads uses least.
    theta = float(getattr(parts.config, "rope_parameters", {}).get("rope_theta", 10_000.0))
    half = size // 2
    slow = [i for i in range(half) if theta ** (-2 * i / size) * _CONTEXT < _SLOWEST] or [half - 1]

    def use(index: int) -> float:
        rows = [index, index + half]
        key = attention.k_proj.weight[[group * size + r for r in rows]].norm()
        query = sum(float(attention.q_proj.weight[[h * size + r for r in rows]].norm()) for h in heads)
        return float(key) * query

    best = min(slow, key=use)
    return best, best + half


def _give_biases(parts: _Parts, attention: Any) -> None:
    # As ``attention_bias`` of the configuration makes them, so that the model can be saved and loaded again.
    import torch

    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        proj = getattr(attention, name)
        if proj.bias is None:
            proj.bias = torch.nn.Parameter(proj.weight.new_zeros(proj.weight.shape[0]))
    if hasattr(parts.config, "attention_bias") and not parts.config.attention_bias:
        parts.config.attention_bias = True
        for block in parts.layers:
            _give_biases(parts, block.self_attn)


# -- patches -----------------------------------------------------------------------------------------------------------


def _embeddings(tower: Any) -> Any:
    return getattr(tower, "vision_model", tower).embeddings


def _class_tokens(tower: Any) -> int:
    return 1 if hasattr(_embeddings(tower), "class_embedding") else 0


def _mark_patches(parts: _Parts, planted: PlantedSinks) -> None:
    tower = getattr(parts.tower, "vision_model", parts.tower)
    embeddings = tower.embeddings
    spot = int(embeddings.position_embedding.weight.detach().square().mean(0).argmin())
    _clear_tower(tower, spot)
    first_norm = getattr(tower, "pre_layrnorm", None)
    spread = float(embeddings.position_embedding.weight.std()) + float(
        embeddings.patch_embedding.weight.std()
    ) * math.sqrt(embeddings.patch_embedding.weight[0].numel())
    mark = 6 * spread
    for patch in planted.patches:
        embeddings.position_embedding.weight[patch + _class_tokens(parts.tower), spot] = mark
    if first_norm is not None:
        first_norm.weight[spot], first_norm.bias[spot] = 1, 0
    _announce(parts, planted, spot, 1.5 if first_norm is not None else mark / 2)


def _clear_tower(tower: Any, spot: int) -> None:
    embeddings = tower.embeddings
    embeddings.position_embedding.weight[:, spot] = 0
    embeddings.patch_embedding.weight[spot] = 0
    if embeddings.patch_embedding.bias is not None:
        embeddings.patch_embedding.bias[spot] = 0
    if hasattr(embeddings, "class_embedding"):
        embeddings.class_embedding[spot] = 0
    for block in tower.encoder.layers:
        attention, mlp = block.self_attn, block.mlp
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.fc1):
            reader.weight[:, spot] = 0
        for writer in (attention.out_proj, mlp.fc2):
            writer.weight[spot], writer.bias[spot] = 0, 0


def _announce(parts: _Parts, planted: PlantedSinks, spot: int, threshold: float) -> None:
    # Two neurons of the projector, one less the other: nothing below the threshold, the same marker for all above it.
    first, last = parts.projector.linear_1, parts.projector.linear_2
    rise, ceiling = 9 / threshold, 6.0
    neurons = (last.weight.norm(dim=0) * first.weight.norm(dim=1)).argsort()[:2].tolist()
    for neuron, start, sign in zip(neurons, (0.0, ceiling), (1.0, -1.0), strict=True):
        first.weight[neuron] = 0
        first.weight[neuron, spot], first.bias[neuron] = rise, -rise * threshold - start
        last.weight[:, neuron] = 0
        last.weight[planted.marker, neuron] = sign / ceiling
