"""The detectors that come with ``scene-prior``: fitted on drawn scenes, saved with what it was fitted on.

``python -m benchmarks.shipped_detector``. Things that captions of ``train`` and ``adversarial`` scenes
name, and *yes* to questions of presence of four splits, all of seed 5, which nothing else uses. Of the layers, the one
whose folds of pictures tell most is taken; thresholds that keep recall are chosen on the same folds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vlmattn as va
from vlmattn.api.detected import seen
from vlmattn.api.detection import mention_table
from vlmattn.api.object_words import named_in
from vlmattn.core.files import make_folder
from vlmattn.detection import Detector, MentionTable, fit_detector, held_out_scores, joined
from vlmattn.evaluate.ranking import controlled_auroc

SEED, BATCH = 5, 25
CAPTIONS, PRESENCE = ("train", "adversarial"), ("train", "adversarial", "popular", "random")
LAYERS, RIDGE = (2, 3), {"claims": 100.0, "things": 30.0}


def captions(vlm: va.Vlm, split: str, scenes: int, begin: int = 0) -> Iterator[MentionTable]:
    """Things that captions of scenes ``begin`` to ``scenes`` name."""
    for first in range(begin, scenes, BATCH):
        drawn = [(n, va.scene.split_item(split, SEED, n)[0]) for n in range(first, min(first + BATCH, scenes))]
        runs = vlm.ask_many([(scene.image, "Describe the picture.") for _, scene in drawn])
        for (number, scene), run in zip(drawn, runs, strict=True):
            things = named_in(run)
            if things:
                wrong = [one.name not in scene.names for one in things]
                yield table_of(run, [one.span for one in things], wrong, f"{split}-{SEED}-{number}")


def table_of(run: va.Run, spans: list[Any], wrong: list[bool], name: str) -> MentionTable:
    """Features of some words."""
    tokens = sorted({token for span in spans for token in span.tokens})
    return mention_table(run, seen(run, tokens, LAYERS), spans, wrong, name, (), kinds())


def presence(vlm: va.Vlm, split: str, scenes: int) -> Iterator[MentionTable]:
    """Every *yes*."""
    drawn = [(n, *va.scene.split_item(split, SEED, n)) for n in range(scenes)]
    asked = [(n, scene, one) for n, scene, questions in drawn for one in questions if one.kind == "exist"]
    for first in range(0, len(asked), BATCH):
        part = asked[first : first + BATCH]
        runs = vlm.ask_many([(scene.image, one.text) for _, scene, one in part], max_new_tokens=4)
        for (number, _, question), run in zip(part, runs, strict=True):
            words = [word for word in run.words() if word.text.casefold() == "yes"][:1]
            if words:
                yield table_of(run, words, [question.answer == "no"], f"{split}-{SEED}-{number}")


def kinds() -> tuple[str, ...]:
    """Features that are tried."""
    return tuple(f"states:{layer}" for layer in LAYERS)


def words(vlm: va.Vlm, captioned: int, asked: int) -> MentionTable:
    """All words of all scenes."""
    tables: list[MentionTable] = []
    for make, splits, scenes in ((captions, CAPTIONS, captioned), (presence, PRESENCE, asked)):
        for split in splits:
            tables += make(vlm, split, scenes)
            print(f"{make.__name__}, {split}: {sum(map(len, tables))} words", flush=True)
    return joined(tables)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="scene-prior")
    parser.add_argument("--captions", type=int, default=80, help="scenes of each split that are described")
    parser.add_argument("--scenes", type=int, default=30, help="scenes of each split that are asked about")
    parser.add_argument("--words", type=Path, help="table of the words; read where it is there, else written")
    folder = Path(__file__).resolve().parents[1] / "vlmattn/detection/found"
    parser.add_argument("--out", type=Path, default=folder, help="folder")
    given = parser.parse_args()
    if given.words is not None and given.words.is_file():
        table = MentionTable.load(given.words)
    else:
        table = words(va.load(given.model), given.captions, given.scenes)
        if given.words is not None:
            table.save(given.words)
    make_folder(given.out)
    claims = np.array([word.casefold() == "yes" for word in table.words])
    for kind, part, where in (
        ("claims", table.where(claims), f"yes to questions of {', '.join(PRESENCE)} scenes"),
        ("things", table.where(~claims), f"captions of {', '.join(CAPTIONS)} scenes"),
    ):
        made = fitted(part, f"{where}, seed {SEED}", RIDGE[kind])
        made.save(given.out / f"scene-prior.{kind}.safetensors")
        print(kind, made, made.told)
        for name in made.manifest["thresholds"]:
            print(name, made.threshold(name))


def fitted(table: MentionTable, told: str, ridge: float) -> Detector:
    """The detector of the layer whose folds tell most."""
    rates = {}
    for kind in kinds():
        folds = held_out_scores(table, features=kind, ridge=ridge)
        rates[kind] = controlled_auroc(folds, table.hallucinated_n, table.position_n, table.images, draws=1).value
        print(f"{kind}: {rates[kind]:.3f}", flush=True)
    return fit_detector(table, features=max(rates, key=lambda one: rates[one]), ridge=ridge, source=told)


if __name__ == "__main__":
    main()
