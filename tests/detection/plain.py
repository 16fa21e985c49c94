"""The plain way: whole eager attention, hidden states and logits of one pass, and every score by hand from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from skimage import data

import vlmattn as va
from tests.api.test_states import final_norm, spread_norm
from tests.tiny import TINY
from tests.tiny_models import FAMILIES, build
from vlmattn.api.follow import with_answers
from vlmattn.api.vlm import Vlm
from vlmattn.core.layout import TokenKind

PICTURE, QUESTION, ANSWER = data.coffee()[:120, :200], "Is the cup red?", "a red cup"
KINDS = ("llava", "llava_next", "qwen2_5_vl", "gemma3", "internvl")
SPEC = va.CaptureSpec(dtype="float32")


@lru_cache(maxsize=2)
def made(kind: str, answer: str = ANSWER) -> va.Run:
    vlm = Vlm(*(build(kind) if kind in FAMILIES else TINY[kind]()), name=kind)
    spread_norm(vlm.model)
    return vlm.ask(PICTURE, QUESTION, answer=answer, capture=SPEC)


@dataclass(frozen=True)
class Plain:
    """``attention_lhnn``, states ``x_lnd`` (0 to n, the last before the final norm), ``logits_nv``."""

    run: va.Run
    attention_lhnn: np.ndarray
    x_lnd: np.ndarray
    logits_nv: np.ndarray

    @property
    def image(self) -> np.ndarray:
        return np.flatnonzero(self.run.trace.layout.kinds == TokenKind.IMAGE)

    @property
    def answer(self) -> int:
        return self.run.trace.layout.answer_start

    def lens(self, layer: int, position: int) -> np.ndarray:
        """Probabilities (V,) of a state through the final norm and the unembedding."""
        model = self.run.vlm.model
        with torch.no_grad():
            x = torch.as_tensor(self.x_lnd[layer, position], dtype=torch.float32)[None, None]
            z = model.get_output_embeddings()(final_norm(model)(x))[0, 0].double()
        return np.asarray(torch.softmax(z, -1).numpy())


@lru_cache(maxsize=2)
def plainly(kind: str) -> Plain:
    run = made(kind)
    vlm, layout = run.vlm, run.trace.layout
    ids = layout.input_ids[layout.answer_start :].tolist()
    longer, _ = with_answers(vlm.adapter, vlm.encode([run.pictures], [QUESTION]), [ids])
    last: list[torch.Tensor] = []
    stack = next(m for n, m in vlm.model.named_modules() if n.endswith("language_model.layers"))
    hook = stack[-1].register_forward_hook(lambda _m, _a, out: last.append(out[0] if isinstance(out, tuple) else out))
    before = vlm.model.config.get_text_config(decoder=True)._attn_implementation
    vlm.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            out = vlm.model(**longer.inputs, use_cache=False, output_attentions=True, output_hidden_states=True)
    finally:
        vlm.model.set_attn_implementation(before)
        hook.remove()
    states = [*out.hidden_states[:-1], last[0]]
    return Plain(
        run,
        np.stack([a[0].double().numpy() for a in out.attentions]),
        np.stack([x[0].double().numpy() for x in states]),
        out.logits[0].double().numpy(),
    )


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def logp(p: Plain, t: int) -> np.ndarray:
    z = p.logits_nv[t - 1]
    return np.asarray(z - np.log(np.exp(z - z.max()).sum()) - z.max())


def token_id(p: Plain, t: int) -> int:
    return int(p.run.trace.layout.input_ids[t])


def lens_of_patches(p: Plain, t: int) -> np.ndarray:
    """(L, K) probability of a token at every patch."""
    own = token_id(p, t)
    return np.array([[p.lens(layer, j)[own] for j in p.image] for layer in range(len(p.x_lnd))])


def share(p: Plain, t: int) -> np.ndarray:
    """(L, H)."""
    return np.asarray(p.attention_lhnn[:, :, t - 1, p.image].sum(-1))


def written(p: Plain, t: int) -> np.ndarray:
    return np.asarray(p.attention_lhnn[:, :, t - 1, p.answer : t].sum(-1))


def lookback(p: Plain, t: int) -> float:
    if t == p.answer:
        return float("nan")
    inside, new = share(p, t) / len(p.image), written(p, t) / (t - p.answer)
    return float((inside / (inside + new)).mean())


def entropy_of_looks(p: Plain, t: int) -> float:
    found = []
    for layer in p.attention_lhnn:
        for head in layer:
            line = head[t - 1, p.image]
            line = line[line > 0] / line.sum()
            found.append(-sum(v * np.log(v) for v in line) / np.log(len(p.image)))
    return float(np.mean(found))


def mean_map(p: Plain, t: int) -> np.ndarray:
    return np.asarray(p.attention_lhnn[:, :, t - 1, p.image].mean((0, 1)))


def spread(p: Plain, t: int) -> float:
    layout, weights = p.run.trace.layout, mean_map(p, t) / mean_map(p, t).sum()
    tiles, middles = layout.images[0].tiles, []
    for j in p.image:
        tile = tiles[layout.tile[j]]
        x0, y0, x1, y1 = tile.cell_box(int(layout.row[j]), int(layout.col[j]))
        middles.append(((x0 + x1) / 2, (y0 + y1) / 2))
    xy = np.array(middles)
    middle = (weights[:, None] * xy).sum(0)
    far = sum(w * ((a - middle) ** 2).sum() for w, a in zip(weights, xy, strict=True))
    boxes = np.array([tile.source_box_xyxy for tile in tiles])
    diagonal = np.hypot(boxes[:, 2].max() - boxes[:, 0].min(), boxes[:, 3].max() - boxes[:, 1].min())
    return float(np.sqrt(far) / (diagonal / 2))


def dispersion(p: Plain, t: int) -> float:
    layout, weights = p.run.trace.layout, mean_map(p, t) / mean_map(p, t).sum()
    count = int(np.ceil(len(weights) / 10))
    high = {int(n) for n in sorted(range(len(weights)), key=lambda n: (-weights[n], n))[:count]}
    place = {n: (int(layout.tile[j]), int(layout.row[j]), int(layout.col[j])) for n, j in enumerate(p.image)}

    def near(a: int, b: int) -> bool:
        (ta, ra, ca), (tb, rb, cb) = place[a], place[b]
        return ta == tb and abs(ra - rb) <= 1 and abs(ca - cb) <= 1

    blob = {n for n in high if any(near(n, m) for m in high if m != n)}
    rest = np.array([w for n, w in enumerate(weights) if n not in blob])
    q = rest[rest > 0] / rest.sum()
    return float((1 - sum(weights[n] for n in blob)) * -(q * np.log(q)).sum() / np.log(len(rest)))


def layers_agree(p: Plain, t: int) -> float:
    maps = p.attention_lhnn[:, :, t - 1, p.image].mean(1)
    pairs = [(a, b) for a in range(len(maps)) for b in range(a)]
    return float(np.mean([spearmanr(maps[a], maps[b]).statistic for a, b in pairs]))


def used(p: Plain, t: int) -> float:
    return float((share(p, t) / (share(p, t) + written(p, t))).mean())


def glsim(p: Plain, t: int) -> float:
    n, image = len(p.x_lnd) - 1, p.image
    lens = lens_of_patches(p, t)[n]
    best = sorted(range(len(image)), key=lambda k: (-lens[k], k))[: max(1, round(len(image) * 32 / 576))]
    token = p.x_lnd[n - 1, t]
    local = np.mean([cos(token, p.x_lnd[n, image[k]]) for k in best])
    return float(0.6 * cos(token, p.x_lnd[n, p.answer - 1]) + 0.4 * local)


def viser(p: Plain, t: int) -> float:
    n, image = len(p.x_lnd) - 1, p.image
    lens = lens_of_patches(p, t)[n]
    best = sorted(range(len(image)), key=lambda k: (-lens[k], k))[: max(1, round(len(image) * 10 / 576))]
    token = p.x_lnd[n - 1, t]
    mean = np.mean([cos(token, p.x_lnd[n, image[k]]) for k in best])
    context = np.mean([p.x_lnd[n, image[k]] for k in best], axis=0)
    return float(0.4 * used(p, t) + 0.6 * cos(token, context) / (1 + np.exp(-mean / 0.1)))


def committed(p: Plain, t: int) -> float:
    n = len(p.x_lnd) - 1
    first = n + 1
    for layer in range(n, -1, -1):
        if int(p.lens(layer, t - 1).argmax()) != token_id(p, t):
            break
        first = layer
    return first / n


def divergence(p: Plain, t: int) -> float:
    last, found = np.exp(logp(p, t)), []
    for layer in range(len(p.x_lnd)):
        read = p.lens(layer, t - 1)
        middle = (read + last) / 2
        found.append(sum((q * np.log(q / middle)).sum() for q in (read, last)) / 2)
    return float(np.mean(found))


BY_HAND: dict[str, Callable[[Plain, int], float]] = {
    "nll": lambda p, t: -logp(p, t)[token_id(p, t)],
    "entropy": lambda p, t: -(np.exp(logp(p, t)) * logp(p, t)).sum(),
    "margin": lambda p, t: -np.diff(np.sort(p.logits_nv[t - 1])[-2:])[0],
    "image_share": lambda p, t: -share(p, t).mean(),
    "svar": lambda p, t: -share(p, t).mean(1)[list(hgai(p))].sum(),
    "lookback": lambda p, t: -lookback(p, t),
    "attention_entropy": entropy_of_looks,
    "attention_spread": spread,
    "dispersion": dispersion,
    "layer_agreement": lambda p, t: -layers_agree(p, t),
    "unused_and_unsure": lambda p, t: (
        -(np.exp(logp(p, t)) * logp(p, t)).sum() / np.log(p.logits_nv.shape[1]) * (1 - used(p, t))
    ),
    "preliminary": lambda p, t: p.attention_lhnn[0, :, t, p.answer : t].sum(-1).mean(),
    "internal_confidence": lambda p, t: -lens_of_patches(p, t).max(),
    "contextual_lens": lambda p, t: -max(cos(p.x_lnd[middle(p), t], p.x_lnd[middle(p), j]) for j in p.image),
    "glsim": lambda p, t: -glsim(p, t),
    "viser": lambda p, t: -viser(p, t),
    "commit_depth": committed,
    "layer_divergence": divergence,
    "lens_agreement": lambda p, t: -spearmanr(mean_map(p, t), lens_of_patches(p, t).max(0)).statistic,
}
"""Every score that one pass gives, by hand, for the token at a position."""


def middle(p: Plain) -> int:
    return round(0.5 * (len(p.x_lnd) - 1))


def hgai(p: Plain) -> range:
    """Layers 5 to 18 of 32, moved in proportion."""
    n = len(p.attention_lhnn)
    ends = [round((layer + 0.5) / 32 * n - 0.5) for layer in (5, 18)]
    return range(max(ends[0], 0), min(ends[1], n - 1) + 1)


def head_outputs(run: va.Run, inputs: dict[str, Any]) -> np.ndarray:
    """(L, N, H, D) what goes into each output projection."""
    found: dict[str, torch.Tensor] = {}
    model = run.vlm.model
    heads = run.trace.attn_lhqk.shape[1]
    hooks = [
        m.register_forward_pre_hook(lambda _m, args, name=n: found.__setitem__(name, args[0][0]))
        for n, m in model.named_modules()
        if "language_model.layers" in n and n.endswith("self_attn.o_proj")
    ]
    with torch.no_grad():
        model(**inputs, use_cache=False)
    for hook in hooks:
        hook.remove()
    return np.stack([x.reshape(len(x), heads, -1).double().numpy() for x in found.values()])
