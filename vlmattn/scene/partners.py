"""What usually goes together: the co-occurrence rule of the scenes.

Half of the scenes of a mixed split are given an *anchor*; its *partner* is put beside it in 85 % of them and kept out
of the others. Everything else is independent and uniform. Among the eight pairs of :data:`LEANED` every colour and
every shape is an anchor's once and a partner's once, so that no colour or shape is commoner than another because of
the rule. The pairs of :data:`CONTROLS` follow the same rule; a model that is made to lean on the rule is never taught
to do so for them.
"""

from __future__ import annotations

Name = tuple[str, str]
"""Colour and shape."""

LEANED: dict[Name, Name] = {
    ("blue", "square"): ("red", "circle"),
    ("yellow", "star"): ("green", "triangle"),
    ("purple", "ring"): ("orange", "cross"),
    ("red", "heart"): ("white", "diamond"),
    ("green", "diamond"): ("purple", "star"),
    ("white", "circle"): ("cyan", "ring"),
    ("orange", "triangle"): ("blue", "heart"),
    ("cyan", "cross"): ("yellow", "square"),
}
CONTROLS: dict[Name, Name] = {
    ("white", "star"): ("purple", "square"),
    ("green", "heart"): ("yellow", "ring"),
}
PARTNERS: dict[Name, Name] = LEANED | CONTROLS
"""Anchor to partner, all pairs."""

ANCHOR_ODDS = 0.5
PARTNER_ODDS = 0.85


def absent_partners(names: set[str]) -> list[tuple[Name, Name]]:
    """Pairs whose anchor is among ``names`` (``blue square``) and whose partner is not."""
    return [(a, p) for a, p in PARTNERS.items() if " ".join(a) in names and " ".join(p) not in names]
