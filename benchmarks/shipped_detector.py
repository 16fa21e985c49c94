"""The detector that comes with ``scene-prior``: fitted on drawn scenes, saved with what it was fitted on.

``python -m benchmarks.shipped_detector --scenes 100``. Things that captions of ``train`` and ``adversarial`` scenes
name, and *yes* to questions of presence of four splits, all of seed 5, which nothing else uses. Of the layers, the one
whose folds of pictures tell most is taken; thresholds that keep recall are chosen on the same folds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import vlmattn as va
from vlmattn.api.detected import seen
from vlmattn.api.detection import mention_table
from vlmattn.core.errors import MapError
from vlmattn.detection import MentionTable, fit_detector, held_out_scores, joined
from vlmattn.evaluate.ranking import controlled_auroc

SEED, BATCH = 5, 25
CAPTIONS, PRESENCE = ("train", "adversarial"), ("train", "adversarial", "popular", "random")
LAYERS = (1, 2, 3, 4)


def captions(vlm: va.Vlm, split: str, scenes: int) -> Iterator[MentionTable]:
    """Things that captions name."""
    for first in range(0, scenes, BATCH):
        drawn = [(n, va.scene.split_item(split, SEED, n)[0]) for n in range(first, min(first + BATCH, scenes))]
        runs = vlm.ask_many([(scene.image, "Describe the picture.") for _, scene in drawn])
        for (number, scene), run in zip(drawn, runs, strict=True):
            try:
                yield run.mentions(scene.names, image=f"{split}-{SEED}-{number}", scores=[], features=kinds())
            except MapError:
                continue


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
                wrong, name = [question.answer == "no"], f"{split}-{SEED}-{number}"
                yield mention_table(run, seen(run, words[0].tokens), words, wrong, name, (), kinds())


def kinds() -> tuple[str, ...]:
    """Features that are tried."""
    return tuple(f"states:{layer}" for layer in LAYERS)


def words(vlm: va.Vlm, scenes: int) -> MentionTable:
    """All words of all scenes."""
    tables: list[MentionTable] = []
    for make, splits in ((captions, CAPTIONS), (presence, PRESENCE)):
        for split in splits:
            tables += make(vlm, split, scenes)
            print(f"{make.__name__}, {split}: {sum(map(len, tables))} words", flush=True)
    return joined(tables)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="scene-prior")
    parser.add_argument("--scenes", type=int, default=100, help="of each split and kind of answer")
    parser.add_argument("--words", type=Path, help="table of the words; read where it is there, else written")
    folder = Path(__file__).resolve().parents[1] / "vlmattn/detection/found"
    parser.add_argument("--out", type=Path, default=folder / "scene-prior.safetensors")
    given = parser.parse_args()
    if given.words is not None and given.words.is_file():
        table = MentionTable.load(given.words)
    else:
        table = words(va.load(given.model), given.scenes)
        if given.words is not None:
            table.save(given.words)
    rates = {}
    for kind in kinds():
        folds = held_out_scores(table, features=kind)
        rates[kind] = controlled_auroc(folds, table.hallucinated_n, table.position_n, table.images, draws=1).value
        print(f"{kind}: {rates[kind]:.3f}", flush=True)
    best = max(rates, key=lambda kind: rates[kind])
    told = f"captions of {', '.join(CAPTIONS)} and questions of {', '.join(PRESENCE)} scenes, seed {SEED}"
    made = fit_detector(table, features=best, source=told)
    made.save(given.out)
    print(made, made.told)
    for name in made.manifest["thresholds"]:
        print(name, made.threshold(name))


if __name__ == "__main__":
    main()
