"""The same 500 answers under every parser, scorer and protocol: how much of a number is the reading of it.

``python -m benchmarks.readings --markdown docs/scoring.md``. The answers are made up, so that what they mean is known:
a speaker who is right in 85 of 100 and leans to yes, in the words of one kind of model at a time. Captions are made of
sentences as models write them. ``--answers FILE --pope FOLDER`` reads your own answers to POPE instead.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlmattn.core.files import atomic_write_text
from vlmattn.hallucination import (
    AmberDiscriminative,
    AmberQuestion,
    Benchmark,
    Chair,
    HallusionBench,
    HallusionQuestion,
    Mme,
    MmeQuestion,
    Pope,
    PopeQuestion,
    coco_synonyms,
    load_pope,
    read_answers,
    read_every_way,
)

COUNT = 500
SAYINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "one word": {"yes": ("Yes", "yes"), "no": ("No", "no")},
    "one word and a stop": {"yes": ("Yes.", "Yes.", "Yes"), "no": ("No.", "No.", "No")},
    "a sentence": {
        "yes": (
            "Yes, there is a {x} in the image.",
            "Yes, a {x} is visible on the left.",
            "There is a {x} in the image.",
        ),
        "no": ("No, there is no {x} in the image.", "There is no {x} in the image.", "No, I do not see a {x} here."),
    },
    "a sentence that turns": {
        "yes": (
            "Yes, there is a {x}, although it is not in the foreground.",
            "The image shows a {x}, so the answer is yes.",
            "It is hard to see, but yes: a {x} stands behind the car, not beside it.",
        ),
        "no": (
            "The image does not show a {x}. It shows a street, and yes, it is busy.",
            "I cannot see a {x}; nothing of the kind is visible.",
            "Not that I can see.",
        ),
    },
}
UNSURE = ("I am not sure.", "", "The image is too dark to tell.")
SENTENCES = (
    "The image features a {} standing next to a {} in a busy street.",
    "In addition to the {}, there are two buses and several wine glasses on the tables.",
    "A woman, her hair tied back, is seated close to another {}.",
    "He is skateboarding past potted plants and glasses of wine.",
    "Overall, the people and the {} create a pleasant atmosphere.",
)


def meant(rng: random.Random) -> list[tuple[str, str]]:
    """Right answer and what the speaker means, question by question."""
    found = []
    for number in range(COUNT):
        label = "yes" if number % 2 else "no"
        wrong = rng.random() < (0.1 if label == "yes" else 0.2)
        found.append((label, label if not wrong else "no" if label == "yes" else "yes"))
    return found


def spoken(style: str, number_of_unsure: int = 10, seed: int = 0) -> tuple[list[tuple[str, str]], list[str]]:
    """What is meant, and how it is said; a few answers say nothing."""
    rng = random.Random(seed)
    told, texts = meant(rng), []
    unsure = set(rng.sample(range(COUNT), number_of_unsure)) if style.startswith("a sentence") else set()
    for number, (_, what) in enumerate(told):
        pick = rng.choice(UNSURE if number in unsure else SAYINGS[style][what])
        texts.append(pick.format(x=rng.choice(("dog", "dining table", "notebook", "knife"))))
    return told, texts


def benches(told: Sequence[tuple[str, str]]) -> dict[str, tuple[Benchmark, str, Sequence[str]]]:
    """Every benchmark of yes and no over the same right answers: its settings' name, and the numbers to show."""
    labels = [label for label, _ in told]
    kinds = ("existence", "state", "relation")
    pope = Pope(tuple(PopeQuestion(str(n), "random", f"{n // 6}.jpg", "?", one) for n, one in enumerate(labels)))
    amber = AmberDiscriminative(tuple(AmberQuestion(str(n), kinds[n % 3], one) for n, one in enumerate(labels)))
    hallusion = HallusionBench(
        tuple(HallusionQuestion("VD", "map", str(n // 4), str(n % 2), str(n // 2 % 2), "?", one, f"{n}.png")
              for n, one in enumerate(labels))
    )  # fmt: skip
    mme = Mme(tuple(MmeQuestion("existence", f"{n // 2}.jpg", "?", one, n % 2 + 1) for n, one in enumerate(labels)))
    return {
        "POPE": (pope, "protocol", ("accuracy", "precision", "recall", "f1", "yes_ratio", "unparsed")),
        "AMBER, questions": (
            amber,
            "parser",
            ("accuracy", "precision", "recall", "f1", "vlmevalkit_average", "unparsed"),
        ),
        "HallusionBench": (hallusion, "rule", ("a_acc", "q_acc", "f_acc", "vlmevalkit_average", "unparsed")),
        "MME": (mme, "parser", ("existence", "unparsed")),
    }


def captions(seed: int = 0) -> tuple[Chair, dict[str, str]]:
    """Captions of made-up pictures: of the objects drawn for the sentences, two in three are there."""
    rng, things = random.Random(seed), coco_synonyms().objects
    truth, said = {}, {}
    for number in range(COUNT):
        named = rng.sample(things, 5)
        words = iter(named)
        said[str(number)] = " ".join(s.format(*(next(words) for _ in range(s.count("{}")))) for s in SENTENCES)
        truth[str(number)] = frozenset({*rng.sample(named, 3), "person", "bus", "wine glass", "dining table"})
    return Chair(truth), said


def table(bench: Benchmark, said: Mapping[str, str], called: str, names: Sequence[str]) -> list[str]:
    """Rows of Markdown, and the spread under them."""
    found = read_every_way(bench, said)
    lines = ["| " + " | ".join([called, *names]) + " |", "|---" * (len(names) + 1) + "|"]
    for way, score in found.scores.items():
        lines.append("| " + " | ".join([f"`{way}`", *(f"{score.metrics[name]:.3f}" for name in names)]) + " |")
    spread = found.spread
    lines.append("| *largest less smallest* | " + " | ".join(f"*{spread[name]:.3f}*" for name in names) + " |")
    lines += [f"\n`{way}` left out: {why.split(':')[0]}." for way, why in found.missing.items()]
    return [*lines, ""]


def page() -> str:
    """The whole report."""
    lines = [
        "# The same answers, read in every way",
        "",
        "Written by `python -m benchmarks.readings`; do not edit.",
        "",
    ]
    lines += [
        f"{COUNT} made-up answers, whose meaning is known: right in 85 of 100, wrong more often where *no* is right. "
        "Only the words differ from section to section. Whatever spreads below is the reading, not the model: a table "
        "that does not name its parser and protocol compares nothing.", "",
        "Of one-word answers all readings agree but those that want a capital or its absence; a full stop is enough to "
        "cost 100 points in one harness, and free sentences spread every benchmark.", "",
    ]  # fmt: skip
    for style in SAYINGS:
        told, texts = spoken(style)
        accuracy = sum(a == b for a, b in told) / COUNT
        yes = sum(what == "yes" for _, what in told) / COUNT
        example = " · ".join(dict.fromkeys(texts[:40]))[:160]
        lines += [f"## Answers in {style}", "", f"Meant: accuracy {accuracy:.3f}, yes ratio {yes:.3f}. {example} …", ""]
        for name, (bench, called, names) in benches(told).items():
            said = {item.id: text for item, text in zip(bench.items(), texts, strict=True)}
            lines += [f"### {name}", "", *table(bench, said, called, names)]
    chair, said = captions()
    names = ("chair_s", "chair_i", "recall", "precision", "f1", "length")
    lines += ["## Captions: CHAIR", "", f"{COUNT} captions by every word family (`lemma` by the tagger and "
              "WordNet in the NLTK data of the machine that wrote this):", ""]  # fmt: skip
    lines += table(chair, said, "family", [n for n in names if n in chair_metrics_of(chair)])
    return "\n".join(lines).rstrip() + "\n"


def chair_metrics_of(chair: Chair) -> set[str]:
    """Names of the numbers of a score."""
    from dataclasses import replace

    return set(replace(chair, family="plain").score(dict.fromkeys(chair.truth, "A dog.")).metrics)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--pope", type=Path, help="POPE's folder, to read your own answers")
    parser.add_argument("--answers", type=Path, help="your answers to it")
    given = parser.parse_args()
    if given.answers is not None and given.pope is not None:
        bench = load_pope(given.pope)
        names = ("accuracy", "precision", "recall", "f1", "yes_ratio", "unparsed")
        print("\n".join(table(bench, read_answers(given.answers, bench.items()), "protocol", names)))
        return
    text = page()
    print(text)
    if given.markdown is not None:
        atomic_write_text(given.markdown, text)


if __name__ == "__main__":
    main()
