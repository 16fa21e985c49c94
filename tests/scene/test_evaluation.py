"""Scores and baselines on answers that are known; the writer under a real kill; the card."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from vlmattn.scene import evaluate, split_item, write_split
from vlmattn.scene.captions import mentioned, score_captions
from vlmattn.scene.card import SPLITS_SCORED, TARGETS, add_seed, card, counted, score_model, targets_missed, write_card
from vlmattn.scene.evaluation import score
from vlmattn.scene.generator import Scene
from vlmattn.scene.questions import Question
from vlmattn.scene.splits import SPLITS

ASKED = [(scene, q) for scene, found in (split_item("test", 0, i) for i in range(30)) for q in found]
TRUTH = [q.answer for _, q in ASKED]


def test_the_truth_scores_one_and_nonsense_nothing() -> None:
    assert {s.accuracy for s in score(ASKED, TRUTH)} == {1.0}
    assert {s.on_kind for s in score(ASKED, TRUTH)} == {1.0}
    assert {s.accuracy for s in score(ASKED, ["?"] * len(ASKED))} == {0.0}
    assert {s.on_kind for s in score(ASKED, ["?"] * len(ASKED))} == {0.0}


@pytest.mark.parametrize("change", [str.upper, lambda t: f"  {t}.", lambda t: t.replace(" ", "  ")])
def test_case_space_and_full_stop_do_not_count(change: Any) -> None:
    assert {s.accuracy for s in score(ASKED, [change(t) for t in TRUTH])} == {1.0}


def hand_made() -> list[tuple[Scene, Question]]:
    scene = next(s for s, _ in ASKED if len({o.color for o in s.objects}) == len(s.objects) == 4)
    return [(scene, Question("color", "?", scene.objects[i].color, (i,))) for i in range(4)]


def test_baselines_by_hand() -> None:
    (found,) = score(hand_made(), ["nothing"] * 4)
    assert (found.count, found.majority, found.copy) == (4, 0.25, 0.25)
    yes_no = [(s, Question("exist", "?", a, ())) for (s, _), a in zip(hand_made(), "yyyn", strict=True)]
    (found,) = score(yes_no, "yyyy")
    assert (found.accuracy, found.majority, found.copy, found.by_size) == (0.75, 0.75, None, {})


def test_sizes_add_up() -> None:
    answers = [t if i % 3 else "?" for i, t in enumerate(TRUTH)]
    for found in score(ASKED, answers):
        if found.kind in ("color", "shape", "where", "size", "at"):
            mine = [q for _, q in ASKED if q.kind == found.kind]
            sizes = [s.objects[q.targets[0]].size for s, q in ASKED if q.kind == found.kind]
            total = sum(found.by_size[size] * sizes.count(size) for size in found.by_size)
            assert total == pytest.approx(found.accuracy * len(mine))


def test_every_question_is_asked_once_in_batches() -> None:
    sizes: list[int] = []
    ticks: list[tuple[int, int]] = []

    def answer(images: list[Any], texts: list[str]) -> Sequence[str]:
        sizes.append(len(texts))
        return ["yes"] * len(images)

    found = evaluate(answer, scenes=10, kinds=("exist",), batch=4, progress=lambda *t: ticks.append(t))
    assert sizes == [4, 4, 2]
    assert ticks == [(4, 10), (8, 10), (10, 10)]
    assert [s.kind for s in found] == ["exist"]


WRONG_BUT_OF_KIND = {
    "color": "red",
    "shape": "ring",
    "size": "tiny",
    "where": "top left",
    "at": "red ring",
    "compare": "red ring",
    "count": "nine",
    "exist": "no",
    "relation": "no",
    "caption": "a zebra",
}


def test_an_answer_can_be_of_the_kind_asked_for_and_wrong() -> None:
    for found in score(ASKED, [WRONG_BUT_OF_KIND[q.kind] for _, q in ASKED]):
        assert found.on_kind == 1.0
        assert found.accuracy < 0.7
    swapped = score(ASKED, ["blue" if q.kind != "color" else "large" for _, q in ASKED])
    assert {s.on_kind for s in swapped} == {0.0}


def test_presence_is_split_by_answer_and_by_what_was_absent() -> None:
    asked = [(s, q) for i in range(12) for s, found in [split_item("binding", 0, i)] for q in found]
    (always,) = score(asked, ["yes"] * len(asked))
    assert (always.accuracy, always.by_answer, always.by_foil) == (0.5, {"no": 0.0, "yes": 1.0}, {"binding": 0.0})


CAPTION = next(s for s, _ in ASKED if len(s.names) == 3)


@pytest.mark.parametrize(
    ("caption", "want"),
    [
        (", ".join(f"a {n}" for n in sorted(CAPTION.names)), (0.0, 0.0, 1.0, 3)),
        ("nothing at all", (0.0, 0.0, 0.0, 0)),
        (f"a {min(CAPTION.names)}, a {min(CAPTION.names)}", (0.0, 0.0, 1 / 3, 2)),
        (f"A {min(CAPTION.names)} and {max(CAPTION.names)}; a zebra, a red redcircle", (0.0, 0.0, 2 / 3, 2)),
    ],
)
def test_captions_that_claim_nothing_false(caption: str, want: tuple[float, ...]) -> None:
    found = score_captions([(CAPTION, caption)])
    assert (found.chair_i, found.chair_s, found.recall, found.mentions) == pytest.approx(want)


def test_chair_by_hand() -> None:
    absent = next(f"{c} {s}" for c in ("red", "blue") for s in ("ring", "star") if f"{c} {s}" not in CAPTION.names)
    first, second, third = sorted(CAPTION.names)
    said = [
        (CAPTION, f"a {first}, a {absent}, a {absent}"),
        (CAPTION, f"a {first}, a {second}"),
        (CAPTION, f"a {third}"),
    ]
    found = score_captions(said)
    assert found.chair_i == pytest.approx(2 / 6)
    assert found.chair_s == pytest.approx(1 / 3)
    assert found.recall == pytest.approx((1 + 2 + 1) / 9)
    assert mentioned("An orange cross,a RED circle.") == ["orange cross", "red circle"]
    with pytest.raises(ValueError, match="at least one"):
        score_captions([])


def test_the_card_shows_every_number_beside_both_baselines(tmp_path: Path) -> None:
    scores = score_model(lambda images, texts: ["yes"] * len(texts), 12)
    text = card(scores, "# Notes", training={"steps": 1234, "seed": 5})
    assert list(scores["splits"]) == list(SPLITS_SCORED)
    for kind in scores["splits"]["test"]["kinds"]:
        for value in (kind["accuracy"], kind["majority"], kind["copy"], kind["on_kind"]):
            assert value is None or f"{value:.3f}" in text
    for split in SPLITS_SCORED:
        assert SPLITS[split].purpose in text
    assert "steps 1234, seed 5" in text
    assert text.startswith("---\nlicense: apache-2.0\n")
    assert "# Notes" in text
    assert {m.split()[0] for m in targets_missed(scores)} == set(TARGETS)
    assert "Aims missed: " in text
    assert "color 0.000 (aim 0.97)" in text
    perfect = {
        "seed": 0,
        "date": "",
        "splits": {"test": {"scenes": 30, "kinds": [asdict(s) for s in score(ASKED, TRUTH)]}},
    }
    assert targets_missed(perfect) == []
    assert "Aims missed" not in card(perfect, "")
    (tmp_path / "notes.md").write_text("# Mine\n")
    assert "# Mine" in write_card(tmp_path, scores).read_text()


def test_the_card_shows_other_seeds_beside_the_weights(tmp_path: Path) -> None:
    scores = score_model(lambda images, texts: ["yes"] * len(texts), 12)
    found = score(ASKED, ["one" if q.kind == "count" else truth for (_, q), truth in zip(ASKED, TRUTH, strict=True)])
    splits = {"test": {"scenes": 30, "kinds": [asdict(s) for s in found]}}
    (numbers,) = (s for s in found if s.kind == "count")
    assert f"{counted(numbers):.3f}" != f"{numbers.accuracy:.3f}"
    other = tmp_path / "other"
    other.mkdir()
    (other / "training.json").write_text('{"seed": 7}')
    add_seed(tmp_path, other, {"date": "2026-11-29", "splits": splits})
    text = write_card(tmp_path, scores).read_text()
    section = text[text.index("## Other seeds") : text.index("## Scores")]
    kinds = {kind["kind"]: kind["accuracy"] for kind in scores["splits"]["test"]["kinds"]}
    assert "| kind | these weights | seed 7 |" in section
    for kind in ("color", "exist", "where"):
        assert f"| {kind} | {kinds[kind]:.3f} | 1.000 |" in section
    assert f"| count | 0.000 | {numbers.accuracy:.3f} |" in section
    assert f"| count, up to four | 0.000 | {counted(numbers):.3f} |" in section
    assert "Seed 7. Captions: CHAIR_i 0.000" in section


def test_counting_weighs_each_number_alike() -> None:
    asked = [(s, q) for s, q in ASKED if q.kind == "count"]
    (found,) = score(asked, ["one"] * len(asked))
    assert counted(found) == pytest.approx(
        1 / len({q.answer for _, q in asked} & {"zero", "one", "two", "three", "four"})
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_writer_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole, cut = write_split(tmp_path / "whole", "validation", 30, 1), tmp_path / "cut"
    # Slowed down by the test, so that the kill falls in the middle on any machine.
    code = (
        "import sys, time\nfrom vlmattn.scene import write_split\n"
        "write_split(sys.argv[1], 'validation', 30, 1, progress=lambda done, total: time.sleep(0.05))"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(cut)], cwd=Path(__file__).resolve().parents[2])
    limit = time.monotonic() + 60
    while len(list(cut.glob("images/*.png"))) < 5 and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert 5 <= len(list(cut.glob("images/*.png"))) < 30
    # What a kill in the middle of a file leaves.
    for leftover in (cut / "images" / ".validation-000020.png.abc", cut / ".questions.jsonl.abc"):
        leftover.write_bytes(b"half")
        os.utime(leftover, (0, 0))
    write_split(cut, "validation", 30, 1)
    assert contents(cut) == contents(whole)


def test_a_writer_killed_before_its_first_file_is_forgiven(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".split.json.abc").write_bytes(b"ha")
    os.utime(folder / ".split.json.abc", (0, 0))
    assert contents(write_split(folder, "test", 2, 1)) == contents(write_split(tmp_path / "new", "test", 2, 1))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
