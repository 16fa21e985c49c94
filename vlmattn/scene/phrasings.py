"""How questions are put: many bodies and frames in training, and other sentences of the same words that it never uses.

``{o}``, ``{a}`` and ``{b}`` stand for things with their article where one is needed, ``{r}`` for a relation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

Phrasing = Literal["train", "held_out"]

TRAIN: dict[str, tuple[str, ...]] = {
    "color": (
        "What color is the {o}?",
        "What is the color of the {o}?",
        "Which color does the {o} have?",
        "Name the color of the {o}.",
        "The {o} has which color?",
        "What color has the {o}?",
        "Tell me the color of the {o}.",
        "Tell me which color the {o} has.",
        "Can you tell me the color of the {o}?",
        "Say what color the {o} has.",
        "Give the color of the {o}.",
        "The color of the {o} is what?",
    ),
    "shape": (
        "What shape is the {o} object?",
        "What is the shape of the {o} thing?",
        "Which shape does the {o} object have?",
        "Name the shape of the {o} object.",
        "The {o} thing has which shape?",
        "What is the shape of the {o} object?",
        "What shape has the {o} thing?",
        "Tell me the shape of the {o} thing.",
        "Tell me which shape the {o} object has.",
        "What is the {o} object?",
        "What is the {o} thing?",
        "Say what shape the {o} object is.",
        "The shape of the {o} object is what?",
    ),
    "size": (
        "How big is the {o}?",
        "What size is the {o}?",
        "What is the size of the {o}?",
        "Name the size of the {o}.",
        "How large is the {o}?",
        "Which size has the {o}?",
        "What size does the {o} have?",
        "Tell me the size of the {o}.",
        "Tell me how big the {o} is.",
        "Say what size the {o} is.",
        "The {o} has which size?",
        "Give the size of the {o}.",
    ),
    "exist": (
        "Is there {o} in the picture?",
        "Is there {o}?",
        "Can you see {o}?",
        "Can you see {o} in the image?",
        "Does the image show {o}?",
        "Is {o} there?",
        "Is {o} in the picture?",
        "Is {o} visible in the image?",
        "Do you see {o}?",
        "Does this picture show {o}?",
        "Does the picture have {o}?",
        "Does the image contain {o}?",
        "Is there {o} here?",
        "Is there any object that is {o}?",
        "Tell me whether there is {o}.",
        "Say whether you can see {o}.",
    ),
    "where": (
        "Where is the {o}?",
        "In which part of the picture is the {o}?",
        "What is the position of the {o}?",
        "Name the position of the {o}.",
        "Where can you see the {o}?",
        "Where do you see the {o}?",
        "In what part of the image is the {o}?",
        "Which part of the image has the {o}?",
        "Which part of this picture shows the {o}?",
        "Which position does the {o} have?",
        "The {o} is in which part of the picture?",
        "At which position is the {o}?",
        "Where is the {o} to be seen?",
        "Tell me where the {o} is.",
        "Say where the {o} is.",
        "Give the position of the {o}.",
    ),
    "at": (
        "What is at the {o}?",
        "What do you see at the {o}?",
        "Which object is at the {o} of the picture?",
        "Name the object at the {o}.",
        "Which thing is at the {o}?",
        "What can you see at the {o}?",
        "Which object can you see at the {o}?",
        "What object is at the {o} of the image?",
        "What is to be seen at the {o}?",
        "What does the picture show at the {o}?",
        "At the {o}, what do you see?",
        "At the {o} of the image, what is there?",
        "At the {o} there is what?",
        "Tell me what is at the {o}.",
        "Say which object is at the {o}.",
    ),
    "count": (
        "How many {o} are there?",
        "How many {o} are in the picture?",
        "What is the number of {o}?",
        "How many {o} can you see?",
        "How many {o} does the picture show?",
        "How many {o} does the image have?",
        "How many {o} are here?",
        "How many {o} are visible?",
        "There are how many {o}?",
        "Count the {o}.",
        "Count all {o} in the image.",
        "Tell me how many {o} there are.",
        "Tell me the number of {o}.",
        "Name the number of {o}.",
        "Say how many {o} you see.",
        "Give the number of {o}.",
    ),
    "compare": (
        "Which is {r}, the {a} or the {b}?",
        "Which object is {r}: the {a} or the {b}?",
        "Name the {r} one, the {a} or the {b}.",
        "Which thing is {r}, the {a} or the {b}?",
        "What is {r}, the {a} or the {b}?",
        "Of the {a} and the {b}, which is {r}?",
        "The {a} or the {b}: which is {r}?",
        "Which one of the {a} and the {b} is {r}?",
        "Tell me which is {r}, the {a} or the {b}.",
        "Say which one is {r}: the {a} or the {b}.",
        "Name the {r} thing: the {a} or the {b}.",
    ),
    "relation": (
        "Is the {a} {r} the {b}?",
        "Can you see the {a} {r} the {b}?",
        "Is the position of the {a} {r} the {b}?",
        "Do you see the {a} {r} the {b}?",
        "Does the picture show the {a} {r} the {b}?",
        "Is it true that the {a} is {r} the {b}?",
        "Tell me whether the {a} is {r} the {b}.",
        "Say whether the {a} is {r} the {b}.",
    ),
    "caption": (
        "Describe the picture.",
        "What is in the picture?",
        "Write a general description of the image.",
        "Please describe this image in detail.",
        "What do you see in this picture?",
        "Describe this image.",
        "Describe what you see.",
        "Describe the image in detail.",
        "Describe everything in the picture.",
        "Write a description of the picture.",
        "Give a description of this image.",
        "Give a detailed description of the picture.",
        "Please write a detailed description of this image.",
        "Tell me what is in the image.",
        "Tell me what you see.",
        "What does the picture show?",
        "What can you see?",
        "What is there to be seen in the image?",
        "Which objects are in the picture?",
        "What objects can you see in this image?",
        "List everything in the picture.",
        "List the objects in the image.",
        "Name all objects in the picture.",
        "Name everything you see.",
        "Say what you see in the image.",
    ),
}
"""Bodies; :func:`framed` puts a part of the picture or an opening round some of them."""

HELD_OUT: dict[str, tuple[str, ...]] = {
    "color": (
        "What color does the {o} have?",
        "Which color is the {o}?",
        "Tell me what color the {o} is.",
        "Please name the color of the {o} in this picture.",
    ),
    "shape": (
        "What shape does the {o} object have?",
        "Which shape is the {o} thing?",
        "Can you tell me the shape of the {o} object?",
        "Say which shape the {o} thing has.",
    ),
    "size": (
        "Which size is the {o}?",
        "How big is the {o} in the picture?",
        "Tell me how large the {o} is.",
        "Can you tell me the size of the {o}?",
    ),
    "exist": (
        "Is there {o} in the image?",
        "Does the picture show {o}?",
        "Does this image contain {o}?",
        "Tell me whether you see {o}.",
    ),
    "where": (
        "Which part of the picture is the {o} in?",
        "Where in the image is the {o}?",
        "Tell me in which part of the image the {o} is.",
        "At what position do you see the {o}?",
    ),
    "at": (
        "Which object do you see at the {o}?",
        "What is there at the {o} of the picture?",
        "Tell me which thing you see at the {o}.",
        "What does the {o} of the image show?",
    ),
    "count": (
        "How many {o} do you see?",
        "What is the number of {o} in the picture?",
        "Please count the {o} in this image.",
        "Tell me how many {o} are visible.",
    ),
    "compare": (
        "Which one is {r}, the {a} or the {b}?",
        "Name the {r} object: the {a} or the {b}.",
        "Of the {a} and the {b}, which object is {r}?",
        "Tell me the {r} one: the {a} or the {b}.",
    ),
    "relation": (
        "Can you see the {a} {r} the {b} in the image?",
        "In the picture, is the {a} {r} the {b}?",
        "Does this image show the {a} {r} the {b}?",
        "Can you tell me whether the {a} is {r} the {b}?",
    ),
    "caption": (
        "Please describe the picture.",
        "Write a description of this picture in detail.",
        "Tell me everything you see in this picture.",
        "Give a general description of the picture.",
    ),
}
PLACES = (" in the picture", " in the image", " in this picture", " in this image")
LOOKS = ("Look at the picture. ", "Look at this image. ")
LEADS = ("In the picture, ", "In this image, ")

FRAME_ODDS = 0.3
"""How often a training question has a place or an opening round its body."""

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


def pick_template(rng: np.random.Generator, kind: str, phrasing: Phrasing) -> str:
    """A phrasing of a kind of question; those of training sometimes with a place or an opening."""
    bodies = (TRAIN if phrasing == "train" else HELD_OUT)[kind]
    body = bodies[rng.integers(len(bodies))]
    if phrasing == "held_out" or rng.random() >= FRAME_ODDS:
        return body
    options = frames(body)
    text = options[rng.integers(len(options))]
    return body if text in HELD_OUT[kind] else text


def frames(body: str) -> tuple[str, ...]:
    """A body with an opening, or with the picture named behind or before it unless the body names it."""
    soft = body[0].lower() + body[1:]
    asks, names_it = body.endswith("?"), "picture" in body or "image" in body
    found = [look + body for look in LOOKS]
    if not names_it:
        found += [body[:-1] + place + body[-1] for place in PLACES]
    if asks:
        found += ["Question: " + body, "Please tell me: " + soft, *(lead + soft for lead in LEADS if not names_it)]
    elif not body.startswith("Please"):
        found.append("Please " + soft)
    return tuple(found)
