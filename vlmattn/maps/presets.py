"""Named choices of layers, heads and rows, each with where it comes from.

A published choice of layers is a range of layer indices in a model of a known depth. For a model of another depth both
ends move in proportion: layer *i* of *n* becomes round((i + 0.5) / n · m − 0.5) of *m*. That is our rule, not the
papers'; the provenance of every map says which layers came out. Published heads belong to one model and are not moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmattn.core.head_preset import HeadPreset

_VICROP = "MLLMs Know Where to Look, ICLR 2025, arXiv 2502.17422"
_VAR = "See What You Are Told, ICLR 2025, arXiv 2503.03321"
_HGAI = "Devils in Middle Layers, CVPR 2025, arXiv 2411.16724"
_CARVE = "Focusing by Contrastive Attention, arXiv 2509.06461"
_LOCALIZATION = "Localization heads, CVPR 2025, arXiv 2503.06287"
_AD_HH = "Adaptive deactivation of hallucination heads (AD-HH), ICLR 2025"
_ON = "LLaVA-1.5-7B"


@dataclass(frozen=True)
class LayerPreset:
    """One named choice of layers.

    Attributes:
        name: what it is called. first, last: layer indices, inclusive. depth: of the model they were chosen on.
        source: paper and model; empty where the choice is nobody's finding. note: what was found there.
    """

    name: str
    first: int
    last: int
    depth: int
    source: str
    note: str

    def at_depth(self, depth: int) -> tuple[int, ...]:
        """Layer indices in a model of ``depth`` layers."""
        ends = [round((layer + 0.5) / self.depth * depth - 0.5) for layer in (self.first, self.last)]
        first, last = (min(max(end, 0), depth - 1) for end in ends)
        return tuple(range(first, last + 1))


@dataclass(frozen=True)
class RowPreset:
    """One named choice of rows.

    Attributes:
        name: what it is called.
        rule: ``last_prompt``: the last row of the prompt, whatever the word; ``first_token``: the row that predicts
            the first token of the word; ``every_token``: the rows that predict each token of the word or answer.
        source: paper. note: how it is used there.
    """

    name: str
    rule: Literal["last_prompt", "first_token", "every_token"]
    source: str
    note: str


PRESETS: dict[str, LayerPreset] = {
    p.name: p
    for p in (
        LayerPreset("all", 0, 31, 32, "", "the plain mean of every layer; early layers add noise"),
        LayerPreset("middle", 8, 23, 32, "our choice", "the middle half, where most papers find grounded heads"),
        LayerPreset("last_half", 16, 31, 32, "our choice", "layers near the answer"),
        LayerPreset("hgai", 5, 18, 32, f"{_HGAI}, {_ON}", "visual processing"),
        LayerPreset("var", 10, 12, 32, f"{_VAR}, {_ON}", "layers of its figures"),
        LayerPreset("vicrop", 14, 14, 32, f"{_VICROP}, {_ON}", "one layer"),
        LayerPreset("carve", 20, 25, 32, f"{_CARVE}, {_ON}", "best range there"),
    )
}
"""Named choices of layers."""

HEAD_PRESETS: dict[str, HeadPreset] = {
    p.name: p
    for p in (
        HeadPreset("all", (), 0, "", "every head; ViCrop, CARVE and VAR's figures take their mean"),
        HeadPreset("localization", ((14, 24), (14, 13)), 32, f"{_LOCALIZATION}, {_ON}", "the two best heads there"),
        HeadPreset(
            "ad_hh",
            (
                (16, 29), (26, 9), (13, 31), (15, 10), (20, 12), (30, 9), (19, 18), (17, 0), (18, 9), (26, 28),
                (19, 27), (18, 26), (15, 25), (14, 16), (31, 26), (15, 24), (31, 3), (22, 20), (27, 29), (17, 28),
            ),
            32,
            f"{_AD_HH}, {_ON}",
            "the 20 heads that raise hallucinated words most",
        ),
    )
}  # fmt: skip
"""Named choices of heads."""

ROW_PRESETS: dict[str, RowPreset] = {
    p.name: p
    for p in (
        RowPreset("vicrop", "last_prompt", _VICROP, "the row that predicts the first answer token"),
        RowPreset("localization", "last_prompt", _LOCALIZATION, "the last token of the prompt as query"),
        RowPreset("hgai", "first_token", _HGAI, "the row that predicts an object's first token"),
        RowPreset("carve", "every_token", _CARVE, "the row of every generated step (there weighted with its number)"),
    )
}
"""Named choices of rows."""
