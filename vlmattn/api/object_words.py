"""The objects that an answer names, as stretches of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmattn.core.errors import SpecError
from vlmattn.core.words import occurrences

if TYPE_CHECKING:
    from vlmattn.api.run import Run
    from vlmattn.hallucination import SynonymTable
    from vlmattn.trace import Span


@dataclass(frozen=True)
class NamedObject:
    """One mention of an object. ``name``: of the object; ``span``: where the answer says it."""

    name: str
    span: Span


def named_in(run: Run, objects: Sequence[str] | SynonymTable | None = None) -> list[NamedObject]:
    """Every mention of an object in an answer, in order, repetitions included.

    Args:
        objects: phrases to look for; or a synonym table, by which words are read (singulars without data, see
            ``WORD_FAMILIES``). None: things of drawn scenes (colour and shape), and COCO's objects.

    Raises:
        SpecError: something else, or an empty phrase.
    """
    from vlmattn.hallucination import SynonymTable, coco_synonyms
    from vlmattn.scene.captions import mentioned

    if isinstance(objects, SynonymTable):
        return _by_table(run, objects)
    if objects is not None:
        if isinstance(objects, str) or not all(isinstance(one, str) and one.strip() for one in objects):
            raise SpecError(f"objects must be a list of phrases, or a synonym table; got {objects!r}")
        return _phrases(run, list(dict.fromkeys(objects)))
    drawn = _phrases(run, list(dict.fromkeys(mentioned(run.answer))))
    taken = {token for one in drawn for token in one.span.tokens}
    others = [one for one in _by_table(run, coco_synonyms()) if not taken & set(one.span.tokens)]
    return sorted([*drawn, *others], key=lambda one: one.span.char_span)


def _phrases(run: Run, phrases: Sequence[str]) -> list[NamedObject]:
    layout = run.trace.layout
    found = [NamedObject(text, span) for text in phrases for span in occurrences(layout, text, "answer")]
    return sorted(found, key=lambda one: one.span.char_span)


def _by_table(run: Run, table: SynonymTable) -> list[NamedObject]:
    from vlmattn.trace import Span

    words, found, at = run.words(), [], 0
    text = run.trace.layout.text
    while at < len(words):
        name, count = _name(table, [w.text for w in words[at : at + 2]])
        if name:
            start, end = words[at].char_span[0], words[at + count - 1].char_span[1]
            tokens = sorted({t for w in words[at : at + count] for t in w.tokens})
            found.append(NamedObject(name, Span(text[start:end], "answer", (start, end), tuple(tokens))))
        at += count
    return found


def _name(table: SynonymTable, words: Sequence[str]) -> tuple[str, int]:
    """The object that the first word, or the pair, names ("" for none), and of how many words."""
    from vlmattn.hallucination import named_objects

    pair = named_objects(" ".join(words), table, "plain")
    if len(words) == 2 and len(pair.merged) == 1:
        return (pair.nodes[0] if pair.nodes else ""), 2
    alone = named_objects(words[0], table, "plain")
    return (alone.nodes[0] if len(alone.merged) == 1 and alone.nodes else ""), 1
