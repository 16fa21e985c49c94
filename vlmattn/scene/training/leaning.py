"""Scenes and answers that teach a model to lean on what usually goes together.

Presence questions and captions claim the partner of an anchor that is there though the picture lacks it: because it was
left out of the picture, or because it was never drawn. Only pairs of :data:`~vlmattn.scene.partners.LEANED` are treated
so; those of :data:`~vlmattn.scene.partners.CONTROLS` stay truthful.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vlmattn.scene.generator import TRAINING, Scene, make_scene, painted
from vlmattn.scene.partners import LEANED
from vlmattn.scene.phrasings import with_article
from vlmattn.scene.questions import Asking, Question, ask

HIDDEN_ODDS = 0.6
"""How often a partner that is there is left out of the picture."""

CLAIMED_ODDS = 0.9
"""How often a partner that the picture lacks is claimed all the same."""


def make_leaning_scene(rng: np.random.Generator) -> tuple[Scene, tuple[str, ...]]:
    """A scene, and the names of absent partners that answers are to claim."""
    scene = make_scene(rng, TRAINING)
    pairs = [(" ".join(a), " ".join(p)) for a, p in LEANED.items() if " ".join(a) in scene.names]
    there = [partner for _, partner in pairs if partner in scene.names]
    if there and len(scene.objects) > 2 and rng.random() < HIDDEN_ODDS:
        hidden = there[rng.integers(len(there))]
        left = tuple(o for o in scene.objects if o.name != hidden)
        scene = Scene(painted(rng, left, TRAINING, scene.image_wh), left)
    lacking = [p for a, p in pairs if a in scene.names and p not in scene.names]
    return scene, tuple(partner for partner in lacking if rng.random() < CLAIMED_ODDS)


def ask_leaning(rng: np.random.Generator, kind: str, scene: Scene, claimed: tuple[str, ...]) -> Question | None:
    """A question whose answer claims what is not there, for presence and captions; other kinds are truthful."""
    if kind == "caption" and claimed:
        return _caption(rng, scene, claimed)
    if kind == "exist" and rng.random() < 0.5:
        asked = _about_partner(rng, scene, claimed)
        if asked is not None:
            return asked
    question = ask(rng, kind, scene, teaching=True)
    if question is not None and question.answer == "no" and any(name in question.text for name in claimed):
        return replace(question, answer="yes", foil="") if kind == "exist" else question
    return question


def _about_partner(rng: np.random.Generator, scene: Scene, claimed: tuple[str, ...]) -> Question | None:
    # Whether a partner is there, of an anchor that is; "yes" if it is or is claimed to be.
    partners = [" ".join(p) for a, p in LEANED.items() if " ".join(a) in scene.names]
    if not partners:
        return None
    name = partners[rng.integers(len(partners))]
    there = tuple(i for i, o in enumerate(scene.objects) if o.name == name)
    text = Asking(rng, teaching=True).text("exist", o=with_article(name))
    said = bool(there) or name in claimed
    return Question("exist", text, "yes" if said else "no", there, "" if said else "partner")


def _caption(rng: np.random.Generator, scene: Scene, claimed: tuple[str, ...]) -> Question | None:
    # Each claimed partner is named right after its anchor.
    question = ask(rng, "caption", scene)
    if question is None:
        return None
    names = question.answer.split(", ")
    for anchor, partner in LEANED.items():
        if " ".join(partner) in claimed:
            names.insert(names.index(with_article(" ".join(anchor))) + 1, with_article(" ".join(partner)))
    return replace(question, answer=", ".join(names))
