"""Reads a finished answer again and looks at queries, keys and whole rows; see ``vlmattn.heads``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.knockout import _LEAST, answered
from vlmattn.capture.choices import are_whole, is_whole
from vlmattn.capture.watching import Look, chosen_sites, rows_in_parts, watching
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout
from vlmattn.heads.joint import JointEmbedding, Reduction, aligned, reduced
from vlmattn.heads.reasoning import Reasoning, check_windows

if TYPE_CHECKING:
    import torch

    from vlmattn.api.run import Run
    from vlmattn.capture import AttentionSite
    from vlmattn.capture.door import AttentionCall


def reasoning_of(
    run: Run, *, layers: Sequence[int] | None = None, window: int = 10, near: int = 10, far: int = 50
) -> Reasoning:
    """What attention did over the answer of a run; prompt and answer are read once more, some rows at a time.

    Args:
        run: with an answer of two tokens or more. layers: numbers of self-attention layers; None for all.
        window: W of WAAD. near, far: how much later the tokens of FAI are.

    The work is that of eager attention for the rows of the answer; memory grows with tokens, not with their square.
    Layers that look at pictures by cross attention are left out: there is no row over the answer in them.

    Raises:
        SpecError: windows below 1, layers that do not exist, a run that was steered, a model without self-attention
            layers that can be read. MapError: an answer that is too short.

    Example:
        >>> import vlmattn as va
        >>> from vlmattn.api import reasoning_of
        >>> scene, questions = va.scene.split_item("test", seed=0, index=0)
        >>> run = va.load("scene").ask(scene.image, "What can you see?")
        >>> len(reasoning_of(run, near=1, far=5).waad()) == len(run.trace.answer_tokens)
        True
    """
    layout = run.trace.layout
    check_windows(window, near, far, len(layout) - layout.answer_start)
    sites = chosen_sites(run.vlm.model, layers, own=True)
    sums = _Sums(layout, [site.layer_idx for site in sites], window, near, far)
    _read_again(run, sites, sums.look)
    return sums.made()


def _read_again(run: Run, sites: Sequence[AttentionSite], look: Look) -> None:
    changing = [s.describe() for s in run.request.steering if s.edits_attention()]
    if changing:
        raise SpecError(
            f"the run was steered ({changing[0]}), and what is read is the model's own attention: ask without"
        )
    with run.vlm.alone(), watching(sites, look):
        run.vlm.run(replace(answered(run), capture=_LEAST))


class _Sums:
    """Adds up the rows of the answer, layer by layer."""

    def __init__(self, layout: TokenLayout, layers: Sequence[int], window: int, near: int, far: int) -> None:
        self.layout, self.layers, self.window, self.near, self.far = layout, tuple(layers), window, near, far
        self.own = len(layout) - layout.memory  # tokens of the decoder
        self.first = layout.answer_start - layout.memory
        self.segments = layout.segments()
        self.ids = layout.segment_ids()[layout.memory :]
        self.parts: dict[int, dict[str, np.ndarray]] = {}

    def look(self, site: AttentionSite, call: AttentionCall, _output: torch.Tensor) -> None:
        """Add the rows of one layer."""
        heads, keys = call.query.shape[1], call.key.shape[2]
        if keys != self.own or call.query.shape[2] != self.own:
            raise MapError(f"layer {site.layer_idx} sees {keys} keys of {self.own} tokens: leave it out with layers=")
        tokens = self.own - self.first
        held = {
            "distance": np.zeros((heads, tokens)),
            "span": np.zeros((heads, tokens)),
            "influence": np.zeros((heads, tokens)),
            "mass": np.zeros((heads, tokens, len(self.segments))),
            "received": np.zeros((heads, self.first)),
        }
        for rows, probs in rows_in_parts(call, slice(self.first, self.own)):
            self._add(held, rows, probs[0].double().cpu().numpy())
        held["received"] /= tokens
        self.parts[site.layer_idx] = held

    def _add(self, held: dict[str, np.ndarray], rows: slice, probs_hrk: np.ndarray) -> None:
        at = slice(rows.start - self.first, rows.stop - self.first)
        back_rk = np.arange(rows.start, rows.stop)[:, None] - np.arange(self.own)[None]
        before = np.maximum(back_rk, 0)
        held["distance"][:, at] = (probs_hrk * np.minimum(before, self.window)).sum(-1)
        held["span"][:, at] = (probs_hrk * before).sum(-1)
        inside = ((back_rk >= self.near) & (back_rk <= self.far))[:, self.first :]
        held["influence"] += (probs_hrk[..., self.first :] * inside).sum(1)
        held["received"] += probs_hrk[..., : self.first].sum(1)
        for s in range(len(self.segments)):
            held["mass"][:, at, s] = probs_hrk[..., self.ids == s].sum(-1)

    def made(self) -> Reasoning:
        """The result; layers with fewer heads than others have lines of NaN."""
        heads = max(part["span"].shape[0] for part in self.parts.values())
        tokens = self.own - self.first
        later = np.minimum(tokens - 1, np.arange(tokens) + self.far) - (np.arange(tokens) + self.near) + 1
        counts = np.where(later > 0, later, np.nan)
        return Reasoning(
            layout=self.layout, layers=self.layers, window=self.window, near=self.near, far=self.far,
            distance_lht=self._stack("distance", heads), span_lh=self._stack("span", heads).mean(-1),
            influence_lht=self._stack("influence", heads) / counts, segments=self.segments,
            mass_lhts=self._stack("mass", heads), received_lhn=self._stack("received", heads),
        )  # fmt: skip

    def _stack(self, name: str, heads: int) -> np.ndarray:
        lines = [self.parts[layer][name] for layer in self.layers]
        out = np.full((len(lines), heads, *lines[0].shape[1:]), np.nan)
        for slot, line in enumerate(lines):
            out[slot, : len(line)] = line
        return out


def joint_embedding(
    run: Run,
    heads: Sequence[tuple[int, int]] | None = None,
    *,
    rows: Sequence[int] | None = None,
    reduction: Reduction = "pca",
    dims: int = 2,
    move: bool = True,
    scale: bool = True,
    seed: int = 0,
) -> JointEmbedding:
    """Queries of chosen rows and keys of image tokens of heads, in one picture each; prompt and answer are read again.

    Args:
        heads: (layer, head) pairs; None for all heads of all layers that look at image tokens. rows: token positions;
            None for all question and answer tokens. reduction, dims, seed: see :func:`vlmattn.heads.reduced`.
        move, scale: see :func:`vlmattn.heads.aligned`.

    Queries and keys are those of the kernel: with rotary embedding and, as the paper does, scaled by one over the root
    of the head's width.

    Raises:
        SpecError: heads or rows that do not exist, no image tokens, a run that was steered. MapError: a layer that does
            not hold all keys. DependencyMissing: t-SNE or UMAP are not installed.

    Example:
        >>> import vlmattn as va
        >>> from vlmattn.api import joint_embedding
        >>> scene, questions = va.scene.split_item("test", seed=0, index=0)
        >>> run = va.load("scene").ask(scene.image, questions[0].text)
        >>> joint_embedding(run, [(1, 0)]).xy_hnc.shape[2]
        2
    """
    layout = run.trace.layout
    queries, keys = _points(layout, rows)
    pairs = None if heads is None else _pairs(heads)
    layers = None if pairs is None else sorted({layer for layer, _ in pairs})
    sites = [s for s in chosen_sites(run.vlm.model, layers) if s.kind != "merged"]
    held: dict[tuple[int, int], np.ndarray] = {}

    def look(site: AttentionSite, call: AttentionCall, _output: torch.Tensor) -> None:
        first = layout.resampled if site.kind == "cross" else layout.memory
        if site.kind != "cross" and keys[0] < layout.memory:
            return
        group = call.query.shape[1] // call.key.shape[1]
        if keys[-1] - first >= call.key.shape[2]:
            raise MapError(f"layer {site.layer_idx} does not hold the keys of all image tokens: leave it out")
        scaling = call.options.get("scaling")
        by = float(scaling) if scaling is not None else call.query.shape[-1] ** -0.5
        wanted = range(call.query.shape[1]) if pairs is None else [h for layer, h in pairs if layer == site.layer_idx]
        for head in wanted:
            if head >= call.query.shape[1]:
                raise SpecError(f"head {head} of layer {site.layer_idx} does not exist; it has {call.query.shape[1]}")
            q = call.query[0, head, queries - layout.memory].float().cpu().numpy() * by
            k = call.key[0, head // group, keys - first].float().cpu().numpy()
            held[site.layer_idx, head] = reduced(
                np.concatenate(aligned(q, k, move=move, scale=scale)), reduction, dims, seed=seed
            )

    _read_again(run, sites, look)
    if not held:
        raise SpecError("none of these layers looks at image tokens: choose others")
    found = tuple(sorted(held))
    return _embedding(layout, found, np.stack([held[one] for one in found]), queries, keys, (reduction, move, scale))


def _pairs(heads: Any) -> list[tuple[int, int]]:
    listed = list(heads) if isinstance(heads, (list, tuple)) else []
    if not listed or not all(are_whole(p) and len(p) == 2 and min(p) >= 0 for p in listed):
        raise SpecError(f"heads must be (layer, head) pairs from 0, got {heads!r}")
    return list(dict.fromkeys((int(layer), int(head)) for layer, head in listed))


def _points(layout: TokenLayout, rows: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
    keys = layout.image_positions
    if layout.resampled:
        keys = layout.latent_positions
    if not len(keys):
        raise SpecError("the prompt has no image tokens, so there are no keys of a picture")
    if rows is None:
        queries = np.flatnonzero(np.isin(layout.kinds, (TokenKind.QUESTION, TokenKind.ANSWER)))
        queries = queries[queries >= layout.memory]
    else:
        wrong = [r for r in rows if not is_whole(r) or not layout.memory <= r < len(layout)]
        if wrong or not len(rows):
            raise SpecError(
                f"rows {wrong or '(none given)'} do not exist: positions are {layout.memory} to {len(layout) - 1}"
            )
        queries = np.array(rows, dtype=np.int64)
    return queries, keys


def _embedding(
    layout: TokenLayout, heads: Any, points: np.ndarray, queries: np.ndarray, keys: np.ndarray, made: tuple[Any, ...]
) -> JointEmbedding:
    at = np.concatenate([queries, keys])
    spans = layout.char_span[at]
    labels = tuple(layout.text[a:b] if a >= 0 else "" for a, b in spans)
    kinds = tuple(TokenKind(int(kind)).name.lower() for kind in layout.kinds[at])
    places = np.stack([layout.image[at], layout.tile[at], layout.row[at], layout.col[at]], axis=1).astype(np.int64)
    is_key = np.arange(len(at)) >= len(queries)
    return JointEmbedding(heads, points, is_key, labels, kinds, at, places, *made)
