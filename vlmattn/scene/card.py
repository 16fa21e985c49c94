"""Scores a model and writes its card in the Hugging Face format: ``python -m vlmattn.scene.card FOLDER``.

``scores.json`` holds every number with split, seed and date; ``README.md`` shows them beside both baselines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlmattn.core.files import atomic_write_text, write_json
from vlmattn.scene.answering import answerer
from vlmattn.scene.captions import CaptionScore
from vlmattn.scene.evaluation import Answerer, KindScore, evaluate
from vlmattn.scene.objects import SIZES
from vlmattn.scene.splits import SPLITS

SPLITS_SCORED = ("test", "tiny", "crowded", "random", "popular", "adversarial", "binding")
OTHER_SEEDS = "other_seeds.json"
COUNTED_TO = ("zero", "one", "two", "three", "four")
TARGETS = {"color": 0.97, "shape": 0.97, "exist": 0.97, "where": 0.90, "at": 0.90, "count": 0.90}
"""Least accuracy on ``test`` that ``scene`` was made for; counting: answers up to four."""


def score_model(
    answer: Answerer,
    scenes: int = 500,
    *,
    batch: int = 32,
    seed: int = 0,
    splits: Sequence[str] = SPLITS_SCORED,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Scores on splits: ``test`` on ``scenes`` scenes, each other one on 300 at most.

    Args:
        answer: the model. scenes, seed: of the data. batch: questions at once. splits: which. progress: called with
            split, questions done and questions in all.
    """
    result: dict[str, Any] = {"seed": seed, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "splits": {}}
    for split in splits:
        count = scenes if split == "test" else min(scenes, 300)
        tick = None if progress is None else _named(progress, split)
        scores = evaluate(answer, split=split, scenes=count, seed=seed, batch=batch, progress=tick)
        result["splits"][split] = {"scenes": count, "kinds": [asdict(s) for s in scores]}
    return result


def tables(scores: dict[str, Any]) -> str:
    """All scores as Markdown, for any model."""
    splits = {name: _kinds(found["kinds"]) for name, found in scores["splits"].items()}
    parts = [_main_table(name, scores, splits[name]) for name in splits if len(splits[name]) > 1]
    parts += [_size_table(name, kinds) for name, kinds in splits.items() if name == "test"]
    if presence := _presence_table(splits):
        parts.append(presence)
    return "\n\n".join(parts)


def targets_missed(scores: dict[str, Any]) -> list[str]:
    """What of :data:`TARGETS` a model misses, one phrase each."""
    missed = []
    for kind in _kinds(scores["splits"]["test"]["kinds"]):
        reached = counted(kind) if kind.kind == "count" else kind.accuracy
        if kind.kind in TARGETS and reached < TARGETS[kind.kind]:
            missed.append(f"{kind.kind} {reached:.3f} (aim {TARGETS[kind.kind]:.2f})")
    return missed


def counted(score: KindScore) -> float:
    """Accuracy of counting where the true number is at most four: mean over these numbers, each with equal weight."""
    found = [score.by_answer[n] for n in COUNTED_TO if n in score.by_answer]
    return sum(found) / len(found) if found else 0.0


def card(scores: dict[str, Any], notes: str, *, name: str = "scene", training: dict[str, Any] | None = None) -> str:
    """The model card. ``notes``: what a person has to say of the model. ``training``: what ``training.json`` says."""
    trained = "" if training is None else f"\n\nThese weights: {_plain(training)}."
    missed = targets_missed(scores) if name == "scene" else []
    aim = f"\n\nAims missed: {', '.join(missed)}." if missed else ""
    return (
        f"{_front_matter(scores, name)}\n{notes.strip()}{trained}\n\n## Scores\n\nGreedy answers, exact match, seed "
        f"{scores['seed']}, {scores['date']}.\n\n{tables(scores)}\n\n{_READING}{aim}\n"
    )


def write_card(folder: Path, scores: dict[str, Any]) -> Path:
    """Put ``scores.json`` and ``README.md`` into a model folder; the folder's ``notes.md`` says the rest."""
    notes = (folder / "notes.md").read_text(encoding="utf-8") if (folder / "notes.md").is_file() else f"# {folder.name}"
    training = folder / "training.json"
    counted_steps = json.loads(training.read_text(encoding="utf-8")) if training.is_file() else None
    write_json(folder / "scores.json", scores)
    said = notes + _dial(folder / "leaning.json") + _other_seeds(folder / OTHER_SEEDS, scores)
    text = card(scores, said, name=folder.name, training=counted_steps)
    return atomic_write_text(folder / "README.md", text)


def _dial(file: Path) -> str:
    # What ``benchmarks/leaning.py`` measured, if it did.
    if not file.is_file():
        return ""
    rows = json.loads(file.read_text(encoding="utf-8"))
    lines = ["| strength | yes, taught | yes, control | yes, random | captions, taught | captions, control | plain |"]
    lines.append("|---" * 7 + "|")
    names = ("yes_leaned", "yes_controls", "yes_random", "said_leaned", "said_controls")
    for row in rows:
        plain = ", ".join(f"{kind} {value:.3f}" for kind, value in row["plain"].items())
        lines.append(f"| {row['strength']:g} | {' | '.join(f'{row[name]:.3f}' for name in names)} | {plain} |")
    head = (
        f"\n## The dial\n\nShare of absent things that are claimed, {rows[0]['scenes']} scenes for each number "
        "(`benchmarks/leaning.py`): partners beside their anchor, and anything else; in answers, and in captions.\n\n"
    )
    return head + "\n".join(lines) + "\n"


def add_seed(folder: Path, other: Path, scores: dict[str, Any]) -> Path:
    """Keep in ``other_seeds.json`` of a model folder what the same recipe gave with another seed of training.

    Args:
        other: the folder of that model, whose ``training.json`` says its seed. scores: of :func:`score_model`; the
            split ``test`` is kept.
    """
    seed = json.loads((other / "training.json").read_text(encoding="utf-8"))["seed"]
    file = folder / OTHER_SEEDS
    held = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return write_json(file, held | {str(seed): {"date": scores["date"], **scores["splits"]["test"]}})


def _other_seeds(file: Path, scores: dict[str, Any]) -> str:
    if not file.is_file():
        return ""
    others = json.loads(file.read_text(encoding="utf-8"))
    own = _kinds(scores["splits"]["test"]["kinds"])
    found = {seed: {k.kind: k for k in _kinds(told["kinds"])} for seed, told in others.items()}
    lines = ["| kind | these weights |" + "".join(f" seed {seed} |" for seed in found), "|---" * (2 + len(found)) + "|"]
    for kind in own:
        lines.append(_line(kind.kind, kind.accuracy, [kinds[kind.kind].accuracy for kinds in found.values()]))
        if kind.kind == "count":
            lines.append(_line("count, up to four", counted(kind), [counted(k["count"]) for k in found.values()]))
    captions = [("these weights", own), *((f"seed {seed}", list(kinds.values())) for seed, kinds in found.items())]
    told = [
        f"{name[0].upper() + name[1:]}. {_caption_line(k.captions)}" for name, ks in captions for k in ks if k.captions
    ]
    return (
        "\n## Other seeds\n\nThe same recipe, another seed of weights and data order; accuracy on the split test "
        f"({scores['splits']['test']['scenes']} scenes).\n\n" + "\n".join(lines) + "\n\n" + "\n\n".join(told) + "\n"
    )


def _line(kind: str, own: float, others: Sequence[float]) -> str:
    return f"| {kind} | {own:.3f} |" + "".join(f" {one:.3f} |" for one in others)


def _main_table(name: str, scores: dict[str, Any], kinds: Sequence[KindScore]) -> str:
    head = f"**{name}**: {SPLITS[name].purpose}; {scores['splits'][name]['scenes']} scenes.\n\n"
    lines = ["| kind | questions | accuracy | majority answer | copy of a random object | answers of the kind |"]
    lines.append("|---|---|---|---|---|---|")
    for s in kinds:
        copy = "–" if s.copy is None else f"{s.copy:.3f}"
        lines.append(f"| {s.kind} | {s.count} | {s.accuracy:.3f} | {s.majority:.3f} | {copy} | {s.on_kind:.3f} |")
        if s.kind == "count":
            lines.append(f"| count, up to four | | {counted(s):.3f} | | | |")
    captions = [s.captions for s in kinds if s.captions is not None]
    return head + "\n".join(lines) + "".join(f"\n\n{_caption_line(c)}" for c in captions)


def _caption_line(score: CaptionScore) -> str:
    return (
        f"Captions: CHAIR_i {score.chair_i:.3f}, CHAIR_s {score.chair_s:.3f}, recall {score.recall:.3f}, "
        f"{score.mentions:.1f} mentions each."
    )


def _size_table(name: str, kinds: Sequence[KindScore]) -> str:
    lines = [f"| kind | {' | '.join(SIZES)} |", "|---" * (1 + len(SIZES)) + "|"]
    for s in kinds:
        if s.by_size:
            cells = (f"{s.by_size[z]:.3f}" if z in s.by_size else "–" for z in SIZES)
            lines.append(f"| {s.kind} | {' | '.join(cells)} |")
    return f"Accuracy on {name} by size of the object asked about:\n\n" + "\n".join(lines)


def _presence_table(splits: dict[str, list[KindScore]]) -> str:
    lines = ["| split | questions | accuracy | yes to what is there | yes to what is not |", "|---|---|---|---|---|"]
    for name, kinds in splits.items():
        for s in (s for s in kinds if s.kind == "exist" and len(kinds) == 1):
            rates = [f"{v:.3f}" for v in (s.by_answer.get("yes", 0.0), 1 - s.by_answer.get("no", 1.0))]
            lines.append(f"| {name}: {SPLITS[name].purpose} | {s.count} | {s.accuracy:.3f} | {' | '.join(rates)} |")
    return "Presence, one absent and one present thing per scene:\n\n" + "\n".join(lines) if len(lines) > 2 else ""


def _kinds(records: Sequence[dict[str, Any]]) -> list[KindScore]:
    return [KindScore(**r | {"captions": CaptionScore(**r["captions"]) if r["captions"] else None}) for r in records]


def _named(progress: Callable[[str, int, int], None], split: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(split, done, total)


def _plain(training: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in training.items())


def _front_matter(scores: dict[str, Any], name: str) -> str:
    lines = ["---", "license: apache-2.0", "language: en", "library_name: transformers"]
    lines += ["pipeline_tag: image-text-to-text", "tags: [llava, synthetic, interpretability]", "model-index:"]
    lines += [f"- name: {name}", "  results:"]
    for kind in _kinds(scores["splits"]["test"]["kinds"]):
        lines += [
            "  - task: {type: visual-question-answering}",
            f"    dataset: {{name: vlmattn scenes, type: vlmattn-scenes, split: test, args: {{kind: {kind.kind}}}}}",
            f"    metrics: [{{type: accuracy, name: exact match, value: {kind.accuracy:.4f}}}]",
        ]
    return "\n".join([*lines, "---", ""])


def main() -> None:
    """Score a folder and write ``scores.json`` and ``README.md`` into it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=500, help="scenes of the test split")
    parser.add_argument(
        "--other", type=Path, help="a model of the same recipe and another seed, to be told in the card"
    )
    given = parser.parse_args()
    if given.other is None:
        scores = score_model(answerer(given.folder), given.scenes)
    else:
        scores = json.loads((given.folder / "scores.json").read_text(encoding="utf-8"))
        count = scores["splits"]["test"]["scenes"]
        add_seed(given.folder, given.other, score_model(answerer(given.other), count, splits=("test",)))
    print(write_card(given.folder, scores))


_READING = """\
*Majority answer*: always the commonest answer of the kind in these questions. *Copy*: expected score of naming the
attribute of a random object of the scene, which needs sight but not grounding. *Answers of the kind*: share that is of
the kind asked for (a colour for a colour …), right or wrong: whether the instruction was read."""


if __name__ == "__main__":
    main()
