"""What notebooks show of sinks: which tokens, and what they take, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmattn.core.provenance import ranges
from vlmattn.display import bar, html_table, panel, paragraph

if TYPE_CHECKING:
    from vlmattn.sinks.found import Sinks, SinkToken


def sinks_html(found: Sinks) -> str:
    """The tokens with their layers and scores, and the shares of a row that visual and text sinks take."""
    title = f"{len(found.visual)} visual and {len(found.text)} text sinks" if found.found else "no sinks found"
    if not found.found:
        return panel(title, paragraph(found.said()), note=" · ".join(found.notes))
    tokens = [(_place(t), t.position, ranges(t.layers), t.score, bar(t.share)) for t in found.tokens]
    lines = zip(found.layers, found.visual_share_lq, found.text_share_lq, found.image_share_lq, strict=True)
    shares = [(layer, *(bar(float(v.mean()) if len(v) else None) for v in rest)) for layer, *rest in lines]
    parts = [
        paragraph(found.said(), faint=True),
        html_table(("sink", "position", "layers", "score", "takes of a row"), tokens),
        html_table(("layer", "visual sinks", "text sinks", "all patches"), shares),
    ]
    return panel(title, *parts, note=" · ".join(found.notes))


def _place(token: SinkToken) -> Any:
    if token.kind == "text":
        return repr(token.text) + (" (the first token)" if token.first else "")
    where = "" if token.row is None else f" tile {token.tile} row {token.row} column {token.col}"
    return f"patch{where} of picture {token.image}"
