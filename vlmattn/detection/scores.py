"""The scores by name: what each says of a token, which way it points, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlmattn.core.errors import MapError, SpecError, VlmattnError
from vlmattn.detection import agreement, attention, states, uncertainty
from vlmattn.detection.preliminary import preliminary_attention
from vlmattn.trace import Trace

if TYPE_CHECKING:
    from vlmattn.detection.states import TokenStates
    from vlmattn.sinks import Sinks

Need = Literal["trace", "states", "first_layer", "sinks", "text_only"]


@dataclass(eq=False)
class Seen:
    """What scores are made of, for T tokens of one answer; further passes run when the first score needs them.

    Attributes:
        trace: of the answer's rows. tokens: T positions. vocabulary: how many tokens the model can write.
        passes: what makes :attr:`states`, :attr:`sinks`, :attr:`first_layer` and :attr:`text_only`, by name.
    """

    trace: Trace
    tokens: tuple[int, ...]
    vocabulary: int
    passes: dict[str, Callable[[], Any]] = field(default_factory=dict)
    _failed: dict[str, VlmattnError] = field(default_factory=dict)

    def _made(self, name: str) -> Any:
        if name not in self.passes:
            raise MapError(f"{name} of these tokens were not kept: take run.detect(), which makes them")
        if name in self._failed:  # several scores need it, and it would fail again
            raise self._failed[name]
        try:
            return self.passes[name]()
        except VlmattnError as error:
            self._failed[name] = error
            raise

    @cached_property
    def states(self) -> TokenStates:
        """Hidden states of the T tokens. Raises MapError where none were kept."""
        found: TokenStates = self._made("states")
        return found

    @cached_property
    def sinks(self) -> Sinks:
        """The sinks of the prompt."""
        found: Sinks = self._made("sinks")
        return found

    @cached_property
    def first_layer(self) -> NDArray[np.float64]:
        """(H, T, K) attention of the tokens' own rows in the first layer, all K positions."""
        return np.asarray(self._made("first_layer"))

    @cached_property
    def text_only(self) -> NDArray[np.float64]:
        """(T,) T-VHD."""
        return np.asarray(self._made("text_only"))


@dataclass(frozen=True)
class ScoreSpec:
    """One score.

    Attributes:
        name: what it is called. points: 1 where more of the raw value means made up, -1 where less does; scores are
            handed out times this, so that higher always means more likely made up. needs: what it is made of.
        what: in words. source: paper. raw: (T,) from what was :class:`Seen`.
    """

    name: str
    points: Literal[1, -1]
    needs: Need
    what: str
    source: str
    raw: Callable[[Seen], NDArray[np.float64]]

    def of(self, seen: Seen) -> NDArray[np.float64]:
        """(T,) higher for tokens more likely made up; NaN where it is not defined."""
        return self.points * np.asarray(self.raw(seen), dtype=np.float64)


def _mean_heads(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # (L, H, T) to (T,); NaN where no head has a value.
    known = np.isfinite(values)
    count = known.sum(axis=(0, 1))
    total = np.where(known, values, 0.0).sum(axis=(0, 1))
    return np.divide(total, count, out=np.full(values.shape[-1], np.nan), where=count > 0)


_HGAI = "Jiang et al., CVPR 2025, arXiv 2411.16724"
SCORES: dict[str, ScoreSpec] = {
    s.name: s
    for s in (
        ScoreSpec(
            "nll", 1, "trace", "-ln P of the token", "the baseline",
            lambda s: uncertainty.negative_log_likelihood(s.trace, s.tokens),
        ),
        ScoreSpec(
            "entropy", 1, "trace", "entropy of the next-token distribution", "the baseline",
            lambda s: uncertainty.token_entropy(s.trace, s.tokens),
        ),
        ScoreSpec(
            "margin", -1, "trace", "logit of the likeliest token less that of the second", "the baseline",
            lambda s: uncertainty.logit_margin(s.trace, s.tokens),
        ),
        ScoreSpec(
            "image_share", -1, "trace", "attention on the pictures, mean over layers and heads (VAR)", _HGAI,
            lambda s: _mean_heads(attention.visual_attention_ratio(s.trace, s.tokens)),
        ),
        ScoreSpec(
            "svar", -1, "trace", "the same, summed over the paper's layers", _HGAI,
            lambda s: attention.svar(s.trace, s.tokens),
        ),
        ScoreSpec(
            "lookback", -1, "trace", "lookback ratio of patches to written tokens, mean over layers and heads",
            "Chuang et al., EMNLP 2024, arXiv 2407.07071",
            lambda s: _mean_heads(attention.lookback_ratio(s.trace, s.tokens)),
        ),
        ScoreSpec(
            "attention_entropy", 1, "trace", "how evenly heads look over the patches", "CARVE, arXiv 2509.06461",
            lambda s: attention.attention_entropy(s.trace, s.tokens),
        ),
        ScoreSpec(
            "attention_spread", 1, "trace", "how far attention lies from its centre of mass", "ours",
            lambda s: attention.attention_spread(s.trace, s.tokens),
        ),
        ScoreSpec(
            "dispersion", 1, "trace", "how scattered attention is beside its blobs (ADS)",
            "after CVPR 2026, arXiv 2604.04863",
            lambda s: attention.attention_dispersion(s.trace, s.tokens),
        ),
        ScoreSpec(
            "layer_agreement", -1, "trace", "rank correlation of the maps of layers", "ours",
            lambda s: agreement.layer_agreement(s.trace, s.tokens),
        ),
        ScoreSpec(
            "unused_and_unsure", 1, "trace", "entropy times what is not used of the picture",
            "after DAGCD, ACL 2025 Findings",
            lambda s: uncertainty.unused_and_unsure(s.trace, s.tokens, s.vocabulary),
        ),
        ScoreSpec(
            "preliminary", 1, "first_layer", "attention of the first layer on the answer so far (PAS)",
            "CVPR 2026, arXiv 2511.11502",
            lambda s: preliminary_attention(s.first_layer, s.tokens, s.trace.layout.answer_start),
        ),
        ScoreSpec(
            "sink_share", 1, "sinks", "share of the attention on pictures that visual sinks take",
            "after Kang et al., ICLR 2025, arXiv 2503.03321",
            lambda s: attention.sink_share(s.sinks, s.trace, s.tokens),
        ),
        ScoreSpec(
            "t_vhd", -1, "text_only", "how far head outputs change without the picture (T-VHD)",
            "He et al., ACL 2025, arXiv 2412.13949", lambda s: s.text_only,
        ),
        ScoreSpec(
            "internal_confidence", -1, "states", "highest probability of the token at any patch and layer",
            "Jiang et al., ICLR 2025, arXiv 2410.02762", lambda s: states.internal_confidence(s.states),
        ),
        ScoreSpec(
            "contextual_lens", -1, "states", "highest cosine of the token's state with a patch's, middle layer",
            "Phukan et al., NAACL 2025, arXiv 2411.19187", lambda s: states.contextual_lens(s.states),
        ),
        ScoreSpec(
            "glsim", -1, "states", "cosines with the prompt's end and with the patches that say the token",
            "GLSim, NeurIPS 2025", lambda s: states.glsim(s.states),
        ),
        ScoreSpec(
            "viser", -1, "states", "cosine with the patches that say the token, and share of the picture",
            "after VisER, 2026",
            lambda s: states.viser(s.states, uncertainty.utilisation(s.trace, s.tokens)),
        ),
        ScoreSpec(
            "commit_depth", 1, "states", "layer from which on the token is the likeliest, over the depth",
            "logit lens, nostalgebraist 2020", lambda s: states.commit_depth(s.states),
        ),
        ScoreSpec(
            "layer_divergence", 1, "states", "divergence of layers' next-token distributions from the last",
            "after DoLa, ICLR 2024, arXiv 2309.03883", lambda s: states.layer_divergence(s.states),
        ),
        ScoreSpec(
            "lens_agreement", -1, "states", "rank correlation of attention and logit lens over the patches", "ours",
            lambda s: agreement.lens_agreement(s.trace, s.states, s.tokens),
        ),
    )
}  # fmt: skip
"""Every score by name."""


def score_specs(names: Sequence[str] | None = None) -> tuple[ScoreSpec, ...]:
    """The scores of some names, in their order; all of them for None.

    Raises:
        SpecError: a name that is none, lists those there are.
    """
    if names is None:
        return tuple(SCORES.values())
    wrong = [n for n in names if n not in SCORES]
    if wrong or not len(names):
        raise SpecError(f"scores {wrong or '(none)'} do not exist; scores are {', '.join(SCORES)}")
    return tuple(SCORES[n] for n in dict.fromkeys(names))
