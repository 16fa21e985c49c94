"""States of a word, of the patches and of the prompt's end, and what the logit lens reads there: what scores that look
beyond attention are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError

CONTEXT_LAYER, GLSIM_TOP, GLSIM_SHARE = 0.5, 32 / 576, 0.6
VISER_TOP, VISER_MIX, VISER_TAU = 10 / 576, 0.4, 0.1


@dataclass(frozen=True, eq=False)
class TokenStates:
    """Of T answer tokens and K patches, at L layers; d is the width of the residual stream.

    Attributes:
        depth: layers of the decoder, n. layers: which of 0 to n were kept: 0 is what enters the first layer, n what
            leaves the last, before the final norm.
        patch_lkd, token_ltd, before_ltd: states of the patches, of the tokens, and of the rows that predict them.
        prompt_ld: of the prompt's last token.
        patch_probability_ltk: probability of each token at each patch, by the logit lens.
        own_probability_lt, likeliest_lt: of the predicting rows, by the logit lens: probability of the token that was
            written, and the likeliest token.
        divergence_lt: Jensen-Shannon divergence, in nats, of that distribution from the model's own.
        ids_t: the tokens written.

    Raises:
        MapError: arrays that do not belong together.
    """

    depth: int
    layers: tuple[int, ...]
    patch_lkd: NDArray[np.float32]
    token_ltd: NDArray[np.float32]
    before_ltd: NDArray[np.float32]
    prompt_ld: NDArray[np.float32]
    patch_probability_ltk: NDArray[np.float32]
    own_probability_lt: NDArray[np.float32]
    likeliest_lt: NDArray[np.int64]
    divergence_lt: NDArray[np.float32]
    ids_t: NDArray[np.int64]

    def __post_init__(self) -> None:
        lines, tokens = len(self.layers), len(self.ids_t)
        patches, width = self.patch_lkd.shape[1:]
        wanted = {
            "patch_lkd": (lines, patches, width),
            "token_ltd": (lines, tokens, width),
            "before_ltd": (lines, tokens, width),
            "prompt_ld": (lines, width),
            "patch_probability_ltk": (lines, tokens, patches),
            "own_probability_lt": (lines, tokens),
            "likeliest_lt": (lines, tokens),
            "divergence_lt": (lines, tokens),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise MapError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")

    def slot(self, layer: int) -> int:
        """Index on axis l of a layer's states; negative layers count from the end (-1: behind the last).

        Raises:
            SpecError: states of this layer were not kept.
        """
        number = layer + self.depth + 1 if layer < 0 else layer
        if number not in self.layers:
            raise SpecError(
                f"hidden states of layer {layer} were not kept; kept are {list(self.layers)} of 0 to {self.depth}: "
                "keep all, or name layers= that hold it"
            )
        return self.layers.index(number)


def internal_confidence(states: TokenStates) -> NDArray[np.float64]:
    """(T,) the highest probability of a token at any patch and kept layer, by the logit lens; lower for words made up.

    Jiang et al., "Interpreting and Editing Vision-Language Representations to Mitigate Hallucinations", ICLR 2025,
    arXiv 2410.02762.
    """
    return states.patch_probability_ltk.max(axis=(0, 2)).astype(np.float64)


def contextual_lens(states: TokenStates, layer: int | None = None) -> NDArray[np.float64]:
    """(T,) the highest cosine of a token's state with that of any patch, in one layer, -1 to 1; lower for words made
    up.

    Phukan et al., "Beyond Logit Lens", NAACL 2025, arXiv 2411.19187. ``layer``: default the middle one.
    """
    at = states.slot(round(CONTEXT_LAYER * states.depth) if layer is None else layer)
    return np.asarray(_cosines(states.token_ltd[at], states.patch_lkd[at]).max(axis=1))


def glsim(
    states: TokenStates,
    *,
    share: float = GLSIM_SHARE,
    top: int | None = None,
    image_layer: int = -1,
    object_layer: int = -2,
) -> NDArray[np.float64]:
    """(T,) ``share`` times the cosine of a token's state with that of the prompt's end, and 1 - ``share`` times its
    mean cosine with the patches where the logit lens finds it likeliest; lower for words made up.

    "GLSim", NeurIPS 2025: LLaVA-1.5-7B with share 0.6, the best 32 of 576 patches, their states of layer 32 and the
    token's of layer 31 of 32.

    Args:
        top: how many patches; default 32 of 576 in proportion. image_layer, object_layer: of states.

    Raises:
        SpecError: a share outside 0 to 1, no patch, or layers that were not kept.
    """
    if not 0 <= share <= 1:
        raise SpecError(f"share must be from 0 to 1, got {share}")
    far, near = states.slot(image_layer), states.slot(object_layer)
    whole = _cosines(states.token_ltd[near], states.prompt_ld[far][None])[:, 0]
    cosines = _cosines(states.token_ltd[near], states.patch_lkd[far])
    best = _best(states, far, top, GLSIM_TOP)
    return np.asarray(share * whole + (1 - share) * np.take_along_axis(cosines, best, axis=1).mean(axis=1))


def viser(
    states: TokenStates,
    utilised: NDArray[np.float64],
    *,
    top: int | None = None,
    mix: float = VISER_MIX,
    tau: float = VISER_TAU,
    image_layer: int = -1,
    object_layer: int = -2,
) -> NDArray[np.float64]:
    """(T,) ``mix`` times the attention on pictures over that on pictures and text, and 1 - ``mix`` times
    cos(context, token) σ(m / ``tau``); lower for words made up.

    After VisER (2026): the context is the mean state of the patches where the logit lens finds the token likeliest, m
    the mean cosine of the token with them. What m is in the paper is not known to us, so this is VisER-style and no
    reproduction.

    Args:
        utilised: (T,) see :func:`vlmattn.detection.utilisation`. top: how many patches; default 10 of 576.
    """
    far, near = states.slot(image_layer), states.slot(object_layer)
    best = _best(states, far, top, VISER_TOP)
    token, patches = states.token_ltd[near], states.patch_lkd[far]
    context = patches[best].mean(axis=1)
    close = np.array([_cosines(token[n : n + 1], context[n : n + 1])[0, 0] for n in range(len(token))])
    mean = np.take_along_axis(_cosines(token, patches), best, axis=1).mean(axis=1)
    return np.asarray(mix * np.asarray(utilised) + (1 - mix) * close / (1 + np.exp(-mean / tau)))


def commit_depth(states: TokenStates) -> NDArray[np.float64]:
    """(T,) the first layer from which on the written token stays the likeliest by the logit lens, over the depth: 0 to
    1; (n + 1) / n where it is not the likeliest at the end. Later for words that little speaks for.

    The lens is read at the row that predicts the token (nostalgebraist, "interpreting GPT: the logit lens", 2020).
    """
    agrees = states.likeliest_lt == states.ids_t
    stays = np.flip(np.logical_and.accumulate(np.flip(agrees, axis=0), axis=0), axis=0)
    numbers = np.array([*states.layers, states.depth + 1])
    first = np.where(stays.any(axis=0), stays.argmax(axis=0), len(states.layers))
    return np.asarray(numbers[first] / states.depth, dtype=np.float64)


def layer_divergence(states: TokenStates) -> NDArray[np.float64]:
    """(T,) Jensen-Shannon divergence of each kept layer's next-token distribution from the last, mean over layers, in
    nats: 0 to ln 2.

    The divergence of DoLa (Chuang et al., ICLR 2024, arXiv 2309.03883), which takes its largest.
    """
    return states.divergence_lt.astype(np.float64).mean(axis=0)


def _best(states: TokenStates, slot: int, top: int | None, share: float) -> NDArray[np.int64]:
    # (T, top) patches where the lens finds each token likeliest, the first of equals.
    found = states.patch_probability_ltk[slot]
    count = max(1, round(share * found.shape[1])) if top is None else top
    if not 1 <= count <= found.shape[1]:
        raise SpecError(f"top must be from 1 to the {found.shape[1]} patches there are, got {count}")
    return np.argsort(-found, axis=1, kind="stable")[:, :count]


def _cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    norms = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)[None]
    return np.divide(first @ second.T, norms, out=np.zeros((len(first), len(second))), where=norms > 0)
