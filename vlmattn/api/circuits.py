"""Reads head circuits and head pursuit from a model; the methods are in ``vlmattn.heads``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.knockout import _LEAST, _listed, _request
from vlmattn.capture.choices import is_whole
from vlmattn.capture.watching import chosen_sites, watching_mixed
from vlmattn.core.errors import SpecError, UnsupportedModel
from vlmattn.heads.circuits import HeadCircuit, HeadCircuits, eigenvalue_shares, highest_pairs, merged_pairs, own_share
from vlmattn.heads.pursuit import HeadPursuit, PursuedHead, matching_pursuit, one_token_ids

if TYPE_CHECKING:
    import torch

    from vlmattn.api.vlm import Vlm
    from vlmattn.capture import AttentionSite


def head_circuits(
    vlm: Vlm,
    tokens: Sequence[str | int] | None = None,
    *,
    layers: Sequence[int] | None = None,
    pairs: int = 5,
    chunk: int = 512,
) -> HeadCircuits:
    """What heads do by their weights alone: copying scores, and the token pairs with the highest scores and outputs.

    Args:
        tokens: words or token ids the circuits are over; None for the whole vocabulary. layers: numbers; None for all
            with attention. pairs: how many are named. chunk: tokens computed at once; pairs take
            chunk x tokens numbers, so that a vocabulary of 32,000 in chunks of 512 takes 64 MB.

    Raises:
        SpecError: no tokens, a word of several tokens, a model without self-attention layers. UnsupportedModel: no
            unembedding. UnsupportedAttention: an output projection that is no plain matrix.

    Example:
        >>> import vlmattn as va
        >>> from vlmattn.api import head_circuits
        >>> found = head_circuits(va.load("scene"), ["red", "blue", "circle"], layers=[0])
        >>> len(found.heads), found.tokens
        (6, 3)
    """
    import torch

    if not is_whole(chunk) or chunk < 1 or not is_whole(pairs) or pairs < 0:
        raise SpecError(f"chunk must be 1 or more and pairs 0 or more, got {chunk!r} and {pairs!r}")
    sites = chosen_sites(vlm.model, layers, own=True)
    words = unembedding(vlm)
    ids = token_ids(vlm, tokens, len(words))
    names = [vlm.adapter.tokenizer.decode(int(i)) for i in ids]
    found: list[HeadCircuit] = []
    with vlm.alone(), torch.no_grad():
        for site in sites:
            found += _layer(vlm, site, torch.as_tensor(ids), words, names, pairs, chunk)
    return HeadCircuits(tuple(found), len(ids))


def _layer(
    vlm: Vlm, site: AttentionSite, ids: Any, words: torch.Tensor, names: list[str], pairs: int, chunk: int
) -> list[HeadCircuit]:
    import torch

    from vlmattn.capture.token_parts import token_parts
    from vlmattn.capture.values import head_projection

    query, key, value = [], [], []
    scale = 1.0
    for calls in token_parts(vlm.model, [site], ids.to(vlm.device), chunk=chunk):
        call = calls[site.layer_idx]
        scaling = call.options.get("scaling")
        scale = float(scaling) if scaling is not None else call.query.shape[-1] ** -0.5
        query.append(call.query[:, :, 0].float().cpu())
        key.append(call.key[:, :, 0].float().cpu())
        value.append(call.value[:, :, 0].float().cpu())
    q_nhd, k_ngd, v_ngd = torch.cat(query) * scale, torch.cat(key), torch.cat(value)
    heads = q_nhd.shape[1]
    out_dhv = head_projection(site, heads, v_ngd.shape[2]).cpu()
    group = heads // k_ngd.shape[1]
    rows = words[ids]
    made = []
    for head in range(heads):
        k_nd, v_nd = k_ngd[:, head // group], v_ngd[:, head // group]
        written_nv = rows @ out_dhv[:, head]
        copying, positive = eigenvalue_shares((v_nd.double().T @ written_nv.double()).numpy())
        qk, own_qk = _in_parts(q_nhd[:, head], k_nd, names, pairs, chunk)
        ov, own_ov = _in_parts(v_nd, written_nv, names, pairs, chunk)
        made.append(HeadCircuit(site.layer_idx, head, copying, positive, own_qk, own_ov, qk, ov))
    return made


def _in_parts(left_nd: torch.Tensor, right_nd: torch.Tensor, names: list[str], pairs: int, chunk: int) -> Any:
    # Highest pairs and the share of own tokens of left rightᵀ, some rows at a time.
    best, own = [], 0.0
    for at in range(0, len(left_nd), chunk):
        part = (left_nd[at : at + chunk] @ right_nd.T).numpy()
        best.append([(i + at, j, v) for i, j, v in highest_pairs(part, pairs)])
        own += own_share(part, at) * len(part)
    return merged_pairs(best, names, pairs), own / len(left_nd)


def pursue_heads(
    vlm: Vlm,
    samples: Any,
    words: Sequence[str | int] | None = None,
    *,
    steps: int = 5,
    layers: Sequence[int] | None = None,
    normalise: bool = True,
    centre: bool = False,
) -> HeadPursuit:
    """The words that explain what each head writes at the last token of some samples, and how much of it they explain.

    Args:
        samples: a run, or a list of runs and of (picture, question) or (picture, question, answer); the last token is
            the last of the prompt, which predicts the answer. words: concept words or token ids that the dictionary is
            restricted to; None for the whole vocabulary. steps: how many words per head. layers: numbers; None for all.
        normalise, centre: as in :func:`vlmattn.heads.matching_pursuit`.

    The unembedding is taken as it is, without the final norm, and contributions as they leave W_O, without norms that
    some families put after it.

    Raises:
        SpecError: no samples, or words of several tokens. UnsupportedModel: no unembedding. UnsupportedAttention: an
            output projection that is no plain matrix.

    Example:
        >>> import vlmattn as va
        >>> from vlmattn.api import pursue_heads
        >>> scene, questions = va.scene.split_item("test", seed=0, index=0)
        >>> found = pursue_heads(va.load("scene"), [(scene.image, questions[0].text)], ["red", "blue"], steps=1)
        >>> len(found.heads)
        24
    """
    requests = [_request(one) for one in _listed(samples)]
    sites = chosen_sites(vlm.model, layers)
    matrix = unembedding(vlm)
    ids = token_ids(vlm, words, len(matrix)) if words is not None else np.arange(len(matrix))
    dictionary = matrix[ids].numpy()
    names = [vlm.adapter.tokenizer.decode(int(i)) for i in ids] if words is not None else None
    found = []
    for (layer, head), rows in sorted(head_contributions(vlm, requests, sites).items()):
        one = matching_pursuit(rows, dictionary, steps, normalise=normalise, centre=centre)
        tokens = tuple(int(ids[a]) for a in one.atoms)
        said = tuple(vlm.adapter.tokenizer.decode(t) for t in tokens)
        found.append(PursuedHead(layer, head, said, tokens, tuple(one.shares.tolist())))
    restricted = None if names is None else tuple(names)
    return HeadPursuit(tuple(found), len(requests), restricted, normalise, centre)


def head_contributions(
    vlm: Vlm, requests: Sequence[Any], sites: Sequence[AttentionSite]
) -> dict[tuple[int, int], np.ndarray]:
    """(n, d) of every head: what it adds to the residual stream at the last prompt token of n samples (bias of W_O
    left out)."""
    import torch

    from vlmattn.capture.values import head_projection

    mixed: dict[int, list[torch.Tensor]] = {site.layer_idx: [] for site in sites}
    with vlm.alone():
        for request in requests:
            seen: dict[int, torch.Tensor] = {}

            def look(site: AttentionSite, states: torch.Tensor, seen: dict[int, Any] = seen) -> None:
                # The first pass holds the prompt; its last row is the last prompt token.
                seen.setdefault(site.layer_idx, states[0, -1].float().cpu())

            with watching_mixed(sites, look):
                vlm.run(replace(request, answers=None, capture=_LEAST, max_new_tokens=1))
            for layer, states in seen.items():
                mixed[layer].append(states)
    out = {}
    for site in sites:
        states_nhv = torch.stack(mixed[site.layer_idx])
        projection = head_projection(site, states_nhv.shape[1], states_nhv.shape[2]).cpu()
        for head in range(states_nhv.shape[1]):
            out[site.layer_idx, head] = (states_nhv[:, head] @ projection[:, head].T).numpy()
    return out


def unembedding(vlm: Vlm) -> torch.Tensor:
    """(V, d) float32 on the CPU: the rows of the output embedding.

    Raises:
        UnsupportedModel: the model has none that is a plain float matrix.
    """
    import torch

    get = getattr(vlm.model, "get_output_embeddings", None)
    weight: Any = getattr(get() if callable(get) else None, "weight", None)
    plain = isinstance(weight, torch.Tensor) and weight.is_floating_point() and not weight.is_meta
    if not plain or weight.ndim != 2:
        raise UnsupportedModel(
            f"{vlm.name} has no unembedding that is a plain float matrix, so no words can be read off"
        )
    return weight.detach().float().cpu()


def token_ids(vlm: Vlm, words: Sequence[str | int] | None, known: int) -> np.ndarray:
    """Token ids of concept words, or all ids that the tokenizer and the unembedding know."""
    tokenizer = vlm.adapter.tokenizer
    if words is None:
        return np.arange(min(len(tokenizer), known))
    return np.array(one_token_ids(words, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], known))
