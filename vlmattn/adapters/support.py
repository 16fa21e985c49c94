"""Which picture-and-text models of transformers are supported: ``python -m vlmattn.adapters.support`` prints them."""

from __future__ import annotations

from dataclasses import dataclass

from vlmattn.adapters.refused import REFUSED
from vlmattn.adapters.registry import families
from vlmattn.adapters.spec import FamilySpec


@dataclass(frozen=True)
class Support:
    """One model type.

    Attributes:
        model_type: as ``config.model_type`` says it. families: names of the families that serve it; none if refused.
        geometry: rules that place its image tokens. notes: what a reader should know.
        reason: why it is refused; empty if it is supported.
        videos: ``yes`` and what becomes of frames, or ``no`` and why not.
    """

    model_type: str
    families: tuple[str, ...]
    geometry: tuple[str, ...] = ()
    notes: str = ""
    reason: str = ""
    videos: str = ""

    def is_called(self, name: str) -> bool:
        """Whether ``name`` is the model type, or a family that serves it."""
        return name in (self.model_type, *self.families)

    @property
    def supported(self) -> bool:
        """Whether a family serves it."""
        return bool(self.families)


def support_table() -> tuple[Support, ...]:
    """A row for every model type of transformers' image-text-to-text mapping, and of installed adapters, by name."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    served = {t for family in families() for t in family.model_types}
    return tuple(_row(kind) for kind in sorted({*MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, *served}))


def _row(kind: str) -> Support:
    serving = [f for f in families() if kind in f.model_types]
    if not serving:
        return Support(kind, (), reason=REFUSED.get(kind, "where its image tokens lie is not known"))
    rules = tuple(dict.fromkeys(rule for family in serving for rule in family.geometry))
    notes = " ".join(family.notes for family in serving if family.notes)
    videos = dict.fromkeys(_videos(family) for family in serving)
    return Support(kind, tuple(f.name for f in serving), rules, notes, videos=" / ".join(videos))


def _videos(family: FamilySpec) -> str:
    return f"no: {family.no_videos}" if family.videos is None else f"yes: {family.videos}"


def support_markdown() -> str:
    """The table as Markdown, with the numbers of supported and refused model types."""
    rows = support_table()
    yes = [row for row in rows if row.supported]
    films = sum(row.videos.startswith("yes") for row in yes)
    lines = [
        "# Models",
        "",
        "Every model type of transformers' image-text-to-text mapping. This page is generated: "
        "`python -m vlmattn.adapters.support`.",
        "",
        f"## Supported: {len(yes)}, with videos: {films}",
        "",
        "| model type | family | where its image tokens lie | videos | notes |",
        "|---|---|---|---|---|",
        *(_line(row) for row in yes),
        "",
        f"## Refused: {len(rows) - len(yes)}",
        "",
        "| model type | reason |",
        "|---|---|",
        *(f"| `{r.model_type}` | {r.reason} |" for r in rows if not r.supported),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Support) -> str:
    rules = "; ".join(row.geometry)
    return f"| `{row.model_type}` | {', '.join(row.families)} | {rules} | {row.videos} | {row.notes} |"


if __name__ == "__main__":
    print(support_markdown(), end="")
