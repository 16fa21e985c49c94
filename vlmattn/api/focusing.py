"""Focus directions of a model, learnt from answers whose place in the picture is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    import torch

    from vlmattn.api.run import Run
    from vlmattn.api.vlm import Vlm
    from vlmattn.capture import HeldLayer
    from vlmattn.steering import Focus

_TINY = 1e-6


@dataclass(frozen=True)
class Placed:
    """An answer, and where it is to be seen.

    Attributes:
        run: the answer. box_xyxy: the place, in pixels of picture ``image``.
    """

    run: Run
    box_xyxy: tuple[float, float, float, float]
    image: int = 0


@dataclass(frozen=True, eq=False)
class _Case:
    # One example: what each layer's kernel got, the rows that wrote the answer, and which columns are what.
    held: dict[int, HeldLayer]
    rows: slice
    relevant: torch.Tensor
    picture: torch.Tensor


def fit_focus(
    vlm: Vlm,
    examples: Sequence[Placed],
    *,
    heads: int = 8,
    rounds: int = 40,
    norm: float = 0.5,
    layers: Sequence[int] | None = None,
) -> Focus:
    """Focus directions of the heads that look most at what matters, learnt so that they look at it more.

    Contextual heads are those of highest mean attention to the patches of the place, in the rows that write the answer.
    Their directions ascend the mean logarithm of that attention (Adam, ``rounds`` steps), each head by itself, with
    what comes before its layer as the model has it.

    Args:
        examples: answers that are right, and the places that they are about. heads: how many. norm: the length that
            directions may have at most, over the mean length of the head's queries or keys. layers: to choose heads of.

    Raises:
        SpecError: no example, one whose place covers no patch, a place of no such picture, or settings that cannot be.
    """
    from vlmattn.steering import Focus

    if not examples or heads < 1 or rounds < 1 or not norm > 0:
        raise SpecError(
            f"focus needs examples, heads and rounds of at least 1 and norm above 0; got {len(examples)} examples, "
            f"heads={heads}, rounds={rounds}, norm={norm}"
        )
    cases = [_case(vlm, one, layers) for one in examples]
    score = np.mean([_contextual(case) for case in cases], axis=0)
    numbers, width = list(cases[0].held), score.shape[1]
    if heads > np.isfinite(score).sum():
        raise SpecError(f"heads={heads}, and there are {int(np.isfinite(score).sum())}")
    best = np.argsort(-np.where(np.isfinite(score), score, -np.inf).ravel(), kind="stable")[:heads]
    pairs = sorted((numbers[int(n) // width], int(n) % width) for n in best)
    found: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for layer in sorted({layer for layer, _ in pairs}):
        found += _learnt(cases, layer, [head for at, head in pairs if at == layer], rounds, norm)
    return Focus(heads=tuple(pairs), queries=np.stack([q for q, _ in found]), keys=np.stack([k for _, k in found]))


def _case(vlm: Vlm, one: Placed, layers: Sequence[int] | None) -> _Case:
    import torch

    from vlmattn.api.head_passes import answered
    from vlmattn.capture import WholePass
    from vlmattn.core.layout import TokenKind
    from vlmattn.grid import cell_coverage

    layout, run = one.run.trace.layout, one.run
    if not 0 <= one.image < len(layout.images):
        raise SpecError(f"picture {one.image} does not exist; the question has {len(layout.images)}")
    cover = cell_coverage(layout.images[one.image], one.box_xyxy)
    at = np.flatnonzero((layout.image == one.image) & (layout.kinds == TokenKind.IMAGE))
    share = np.array([cover[layout.tile[p]][layout.row[p], layout.col[p]] for p in at])
    relevant = np.zeros(len(layout), dtype=np.bool_)
    relevant[at[share >= min(0.5, share.max(initial=0.0))]] = share.max(initial=0.0) > 0
    if not relevant.any() or layout.memory:
        raise SpecError(f"the place {one.box_xyxy} covers no patch that is a token of the prompt")
    ids = layout.input_ids[layout.answer_start :].tolist()
    if not ids:
        raise SpecError("focus is learnt from answers, and one is empty")
    encoded = answered(vlm, run.pictures, run.request.items[0][1], ids)
    with vlm.alone():
        held = WholePass(vlm.model, layers).run(encoded.inputs).layers
    rows = slice(layout.answer_start - 1, len(layout) - 1)
    device = next(iter(held.values())).call.query.device
    picture = torch.as_tensor(layout.kinds == TokenKind.IMAGE, device=device)
    return _Case(held, rows, torch.as_tensor(relevant, device=device), picture)


def _contextual(case: _Case) -> NDArray[np.float64]:
    # (L, H) attention to the place, mean over rows; NaN for heads that are not there.
    widest = max(layer.site.heads for layer in case.held.values())
    out = np.full((len(case.held), widest), np.nan)
    for line, layer in enumerate(case.held.values()):
        seen = layer.attention(case.rows)  # (H, R, K)
        out[line, : len(seen)] = (seen * _columns(case.relevant, seen)).sum(-1).mean(-1).double().cpu().numpy()
    return out


def _columns(chosen: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return chosen[: rows.shape[-1]].to(rows.device)


def _learnt(
    cases: Sequence[_Case], layer: int, heads: list[int], rounds: int, norm: float
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    import torch

    first = cases[0].held[layer].call
    sizes = [_mean_norm(cases, layer, heads, name) for name in ("query", "key")]  # (n, 1) each
    limits = [norm * size for size in sizes]
    width = first.query.shape[-1]
    with torch.inference_mode(False), torch.enable_grad():
        both = [torch.zeros((len(heads), width), device=first.query.device, requires_grad=True) for _ in sizes]
        steps = [{"params": [one], "lr": float(size.mean()) * norm / 10} for one, size in zip(both, sizes, strict=True)]
        adam = torch.optim.Adam(steps)
        for _ in range(rounds):
            adam.zero_grad()
            loss = torch.stack([_distance(case, layer, heads, *both) for case in cases]).mean()
            loss.backward()
            adam.step()
            with torch.no_grad():
                for one, limit in zip(both, limits, strict=True):
                    one.mul_((limit / one.norm(dim=1, keepdim=True).clamp_min(_TINY)).clamp(max=1))
    toward, drawn = (one.detach().float().cpu().numpy() for one in both)
    return list(zip(toward, drawn, strict=True))


def _mean_norm(cases: Sequence[_Case], layer: int, heads: list[int], name: str) -> torch.Tensor:
    import torch

    found = []
    for case in cases:
        call = case.held[layer].call
        given = (call.query[0, :, case.rows] if name == "query" else call.key[0]).float().norm(dim=-1).mean(dim=-1)
        found.append(given.repeat_interleave(call.query.shape[1] // len(given))[heads])
    return torch.stack(found).mean(0)[:, None]


def _distance(case: _Case, layer: int, heads: list[int], toward: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Mean of -ln of the attention to the place, with the directions added as :class:`Focus` adds them."""
    import torch

    from vlmattn.capture.rows import apply_mask, row_mask, row_probabilities, row_scores

    call: Any = case.held[layer].call
    count = call.query.shape[1]
    query = call.query.float().clone()
    key = call.key.float().repeat_interleave(count // call.key.shape[1], dim=1)
    place = torch.zeros((count, len(heads)), device=query.device)
    place[heads, range(len(heads))] = 1.0
    query[:, :, case.rows] = query[:, :, case.rows] + (place @ toward)[:, None]
    key = key + (place @ drawn)[:, None] * case.picture[: key.shape[2]].to(key)[:, None]
    turned = replace(call, query=query, key=key)
    scores = apply_mask(row_scores(turned, case.rows), row_mask(call, case.rows))
    rows = row_probabilities(turned, scores, case.rows)[0, heads]
    given = (rows * _columns(case.relevant, rows)).sum(-1)
    return -(given + _TINY).log().mean()
