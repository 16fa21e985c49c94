"""How questions are put: several phrasings of each kind, and others of the same words that training never uses.

``{o}``, ``{a}`` and ``{b}`` stand for things with their article where one is needed, ``{r}`` for a relation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Phrasing = Literal["train", "held_out"]

TRAIN: dict[str, tuple[str, ...]] = {
    "color": (
        "What color is the {o}?",
        "What is the color of the {o}?",
        "Which color does the {o} have?",
        "Name the color of the {o}.",
        "The {o} has which color?",
    ),
    "shape": (
        "What shape is the {o} object?",
        "What is the shape of the {o} thing?",
        "Which shape does the {o} object have?",
        "Name the shape of the {o} object.",
        "The {o} thing has which shape?",
    ),
    "size": (
        "How big is the {o}?",
        "What size is the {o}?",
        "What is the size of the {o}?",
        "Name the size of the {o}.",
    ),
    "exist": (
        "Is there {o} in the picture?",
        "Is there {o}?",
        "Can you see {o}?",
        "Can you see {o} in the image?",
        "Does the image show {o}?",
    ),
    "where": (
        "Where is the {o}?",
        "In which part of the picture is the {o}?",
        "What is the position of the {o}?",
        "Name the position of the {o}.",
    ),
    "at": (
        "What is at the {o}?",
        "What do you see at the {o}?",
        "Which object is at the {o} of the picture?",
        "Name the object at the {o}.",
    ),
    "count": (
        "How many {o} are there?",
        "How many {o} are in the picture?",
        "What is the number of {o}?",
        "How many {o} can you see?",
    ),
    "compare": (
        "Which is {r}, the {a} or the {b}?",
        "Which object is {r}: the {a} or the {b}?",
        "Name the {r} one, the {a} or the {b}.",
    ),
    "relation": (
        "Is the {a} {r} the {b}?",
        "Can you see the {a} {r} the {b}?",
        "Is the position of the {a} {r} the {b}?",
    ),
    "caption": (
        "Describe the picture.",
        "What is in the picture?",
        "Write a general description of the image.",
        "Please describe this image in detail.",
        "What do you see in this picture?",
    ),
}
HELD_OUT: dict[str, tuple[str, ...]] = {
    "color": ("What color does the {o} have?", "Which color is the {o}?"),
    "shape": ("What shape does the {o} object have?", "Which shape is the {o} thing?"),
    "size": ("Which size is the {o}?", "How big is the {o} in the picture?"),
    "exist": ("Is there {o} in the image?", "Does the picture show {o}?"),
    "where": ("Which part of the picture is the {o} in?", "Where in the image is the {o}?"),
    "at": ("Which object do you see at the {o}?", "What is there at the {o} of the picture?"),
    "count": ("How many {o} do you see?", "What is the number of {o} in the picture?"),
    "compare": ("Which one is {r}, the {a} or the {b}?", "Name the {r} object: the {a} or the {b}."),
    "relation": ("Can you see the {a} {r} the {b} in the image?", "In the picture, is the {a} {r} the {b}?"),
    "caption": ("Please describe the picture.", "Write a description of this picture in detail."),
}
_BRIEFLY = "Answer the question using a single word or phrase."
ENDINGS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("color", "shape", "size", "where", "at", "count", "compare"), ("Please answer with one word.", _BRIEFLY)
    ),
    **dict.fromkeys(("exist", "relation"), ("Please answer yes or no.", _BRIEFLY)),
}
"""Instructions that benchmarks put behind a question; one training question in five has one."""

ENDING_ODDS = 0.2
RELATIONS = ("left of", "right of", "above", "below")
COMPARISONS = ("larger", "smaller")
PLURALS = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "diamond": "diamonds",
    "ring": "rings",
    "heart": "hearts",
}


def with_article(thing: str) -> str:
    """``a red circle``, ``an orange circle``."""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def templates(kind: str, phrasing: Phrasing) -> tuple[str, ...]:
    """Phrasings of a kind of question."""
    return (TRAIN if phrasing == "train" else HELD_OUT)[kind]
