"""A POPE of any annotated pictures: random, popular and adversarial questions (Li et al., 2023, section 4)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlmattn.core.errors import SpecError
from vlmattn.core.records import listed
from vlmattn.hallucination.pope import PopeQuestion

Strategy = Literal["random", "popular", "adversarial"]
STRATEGIES: tuple[Strategy, ...] = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class PopeStatistics:
    """What negatives are drawn from, counted on the chosen pictures.

    Attributes:
        often: objects, the most frequent first. together: for each object, those seen with it, the most frequent first;
            equals in the order in which they were first seen.
    """

    often: tuple[str, ...]
    together: Mapping[str, tuple[str, ...]]


def build_pope(
    objects: Mapping[str, Sequence[str]],
    strategy: Strategy,
    *,
    images: int = 500,
    each: int = 3,
    seed: int = 0,
) -> list[PopeQuestion]:
    """Questions about pictures: for each, ``each`` things there and as many that are not, in turns, yes first.

    Pictures with fewer than ``each`` objects are left out; of the others, ``images`` are chosen by the seed, the same
    ones for every strategy. The things there are the first of the picture's list. A thing that is not there is drawn
    evenly (random), is the most frequent one (popular), or the one seen most with the thing asked before it
    (adversarial); never one that the picture's questions have named. Where none is left the draw is even. The official
    program does the same without a seed.

    Args:
        objects: names on each picture, in the order of its annotations. strategy: as above. images: how many to choose;
            all where there are fewer is an error. each: things there. seed: of every choice.

    >>> objects = {"a.jpg": ["cat", "dog"], "b.jpg": ["cat", "cup"]}
    >>> built = build_pope(objects, "popular", images=2, each=1)
    >>> sorted(q.text for q in built if q.label == "no")
    ['Is there a cup in the image?', 'Is there a dog in the image?']

    Raises:
        SpecError: too few pictures, an unknown strategy, or a picture with every object, of which nothing is absent.
    """
    if strategy not in STRATEGIES:
        raise SpecError(f"strategy {strategy!r} does not exist; strategies are {', '.join(STRATEGIES)}")
    if each < 1 or images < 1:
        raise SpecError(f"images and each must be at least 1, got {images} and {each}")
    enough = [image for image, names in objects.items() if len(names) >= each]
    if len(enough) < images:
        raise SpecError(f"{images} pictures with at least {each} objects are wanted, and there are {len(enough)}")
    chosen = random.Random(seed).sample(enough, images)
    counted = pope_statistics([objects[image] for image in chosen])
    draw = random.Random(f"{seed}-{strategy}")
    questions: list[PopeQuestion] = []
    for image in chosen:
        for thing, label in _things(image, objects[image], strategy, each, counted, draw):
            questions.append(PopeQuestion(str(len(questions) + 1), strategy, image, ask_for(thing), label))
    return questions


def pope_statistics(lists: Sequence[Sequence[str]]) -> PopeStatistics:
    """How often objects occur, and with which others; an object listed twice counts twice."""
    often: dict[str, int] = {}
    together: dict[str, dict[str, int]] = {}
    for names in lists:
        for name in names:
            often[name] = often.get(name, 0) + 1
            with_it = together.setdefault(name, {})
            for other in names:
                if other != name:
                    with_it[other] = with_it.get(other, 0) + 1
    return PopeStatistics(_by_count(often), {name: _by_count(counts) for name, counts in together.items()})


def ask_for(thing: str) -> str:
    """POPE's question; ``an`` where the name starts with a vowel letter.

    >>> ask_for("umbrella")
    'Is there an umbrella in the image?'
    """
    article = "an" if thing[:1].lower() in tuple("aeiou") else "a"
    return f"Is there {article} {thing} in the image?"


def _by_count(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda name: -counts[name]))


def _things(
    image: str,
    names: Sequence[str],
    strategy: Strategy,
    each: int,
    counted: PopeStatistics,
    draw: random.Random,
) -> list[tuple[str, Literal["yes", "no"]]]:
    asked: list[tuple[str, Literal["yes", "no"]]] = []
    for thing in names[:each]:
        asked.append((thing, "yes"))
        taken = {name for name, _ in asked} | set(names)
        ordered = {"random": (), "popular": counted.often, "adversarial": counted.together.get(thing, ())}[strategy]
        absent = next((one for one in ordered if one not in taken), None)
        asked.append((absent or _any(image, taken, counted, draw), "no"))
    return asked


def _any(image: str, taken: set[str], counted: PopeStatistics, draw: random.Random) -> str:
    left = [one for one in counted.often if one not in taken]
    if not left:
        raise SpecError(
            f"nothing is absent from {image}, which has {listed(sorted(taken))}: give more kinds of objects"
        )
    return draw.choice(left)
