"""Benchmarks by the names and options that commands give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.hallucination import Benchmark


@dataclass(frozen=True)
class Chosen:
    """Options as given; None, or nothing, where they were not. ``count`` and ``seed`` are of scenes."""

    data: Path | None = None
    splits: tuple[str, ...] = ()
    protocol: str | None = None
    parser: str | None = None
    family: str | None = None
    synonyms: Path | None = None
    labels: Path | None = None
    count: int = 100
    seed: int = 0
    images: Path | None = None

    def needed(self, what: str) -> Path:
        """The official files.

        Raises:
            SpecError: they were not given; says what they are.
        """
        if self.data is None:
            raise SpecError(f"--data is needed: {what}")
        return self.data

    def given(self, *names: str, **renamed: str) -> dict[str, Any]:
        """Those of the named options that were given, under their names or other ones."""
        wanted = dict(zip(names, names, strict=True)) | renamed
        held = {to: getattr(self, name) for name, to in wanted.items()}
        return {to: value for to, value in held.items() if value is not None}


def find_bench(name: str, chosen: Chosen) -> Benchmark:
    """The benchmark of a name.

    Raises:
        SpecError: there is none, or an option does not go with it. FileError: its files are missing or damaged.
    """
    if name not in BENCHES:
        raise SpecError(f"benchmark {name!r} does not exist; benchmarks are {', '.join(BENCHES)}")
    make, takes = BENCHES[name]
    for one in fields(chosen):
        told = getattr(chosen, one.name)
        if told not in (None, (), 100, 0) and one.name not in (*takes, "images"):
            raise SpecError(
                f"--{ {'splits': 'split', 'seed': 'scene-seed'}.get(one.name, one.name) } does not go with {name}"
            )
    return make(chosen)


def _pope(chosen: Chosen) -> Benchmark:
    from vlmattn.core.records import read_rows
    from vlmattn.hallucination import load_pope, relabel

    folder = chosen.needed("POPE's files, such as coco_pope_random.json")
    splits = chosen.splits or ((folder.stem.rsplit("_", 1)[-1],) if folder.is_file() else None)
    options = chosen.given("protocol", "images")
    pope = load_pope(folder, **options) if splits is None else load_pope(folder, splits, **options)
    return pope if chosen.labels is None else relabel(pope, read_rows(chosen.labels))


def _chair(chosen: Chosen) -> Benchmark:
    from vlmattn.hallucination import Chair, coco_synonyms, load_truth, read_chair_synonyms

    table = coco_synonyms() if chosen.synonyms is None else read_chair_synonyms(chosen.synonyms)
    path = chosen.needed("the objects of each picture, a JSON file written by hallucination.save_truth")
    return Chair(load_truth(path), table, chosen.family or "lemma", chosen.images, source=path.name)


def _amber(chosen: Chosen) -> Benchmark:
    from vlmattn.hallucination import load_amber

    return load_amber(chosen.needed("AMBER's folder data"), **chosen.given("images"))


def _amber_questions(chosen: Chosen) -> Benchmark:
    from vlmattn.hallucination import load_amber_questions

    return load_amber_questions(chosen.needed("AMBER's folder data"), **chosen.given("parser"))


def _hallusion(chosen: Chosen) -> Benchmark:
    from vlmattn.hallucination import load_hallusionbench

    options = chosen.given("images", parser="rule")
    return load_hallusionbench(chosen.needed("HallusionBench.json"), **options)


def _mme(chosen: Chosen) -> Benchmark:
    from vlmattn.hallucination import load_mme

    folder, options = chosen.needed("MME's folder of SUBTASK.txt"), chosen.given("parser", "images")
    return load_mme(folder, chosen.splits, **options) if chosen.splits else load_mme(folder, **options)


def _scene_presence(chosen: Chosen) -> Benchmark:
    from vlmattn.hallucination import ScenePresence

    return ScenePresence(_one(chosen, "adversarial"), chosen.count, chosen.seed, chosen.protocol or "strict")


def _scene_captions(chosen: Chosen) -> Benchmark:
    from vlmattn.hallucination import SceneCaptions

    return SceneCaptions(_one(chosen, "test"), chosen.count, chosen.seed)


def _one(chosen: Chosen, default: str) -> str:
    if len(chosen.splits) > 1:
        raise SpecError("scenes are of one --split at a time")
    return chosen.splits[0] if chosen.splits else default


BENCHES: dict[str, tuple[Callable[[Chosen], Benchmark], tuple[str, ...]]] = {
    "pope": (_pope, ("data", "splits", "protocol", "labels")),
    "chair": (_chair, ("data", "family", "synonyms")),
    "amber": (_amber, ("data",)),
    "amber-questions": (_amber_questions, ("data", "parser")),
    "hallusionbench": (_hallusion, ("data", "parser")),
    "mme": (_mme, ("data", "splits", "parser")),
    "scene-presence": (_scene_presence, ("splits", "protocol", "count", "seed")),
    "scene-captions": (_scene_captions, ("splits", "count", "seed")),
}
"""How each benchmark is made, and the options that it takes."""
