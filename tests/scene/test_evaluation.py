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
from vlmattn.scene.card import SPLITS_SCORED, card, score_model
from vlmattn.scene.evaluation import score
from vlmattn.scene.generator import Scene
from vlmattn.scene.questions import Question
from vlmattn.scene.splits import SPLITS

ASKED = [(scene, q) for scene, found in (split_item("test", 0, i) for i in range(30)) for q in found]
TRUTH = [q.answer for _, q in ASKED]


def test_the_truth_scores_one_and_nonsense_nothing() -> None:
    assert {s.accuracy for s in score(ASKED, TRUTH)} == {1.0}
    assert {s.accuracy for s in score(ASKED, ["?"] * len(ASKED))} == {0.0}


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


def test_the_card_shows_every_number_beside_both_baselines() -> None:
    scores = score_model(lambda images, texts: ["yes"] * len(texts), 12)
    text = card(scores, {"steps": 1234, "minutes": 5.0})
    assert list(scores["splits"]) == list(SPLITS_SCORED)
    for kind in scores["splits"]["test"]["kinds"]:
        for value in (kind["accuracy"], kind["majority"], kind["copy"]):
            assert value is None or f"{value:.3f}" in text
    for split in SPLITS_SCORED[1:]:
        assert SPLITS[split].purpose in text
    assert "1,234 steps" in text
    assert "missed on color (0.000)" in text
    perfect = {"seed": 0, "splits": {"test": {"scenes": 30, "kinds": [asdict(s) for s in score(ASKED, TRUTH)]}}}
    assert "on each of color, shape, exist: reached." in card(perfect)


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
    (cut / "images" / ".validation-000020.png.abc").write_bytes(b"half")
    (cut / ".questions.jsonl.abc").write_bytes(b"half")
    write_split(cut, "validation", 30, 1)
    assert contents(cut) == contents(whole)


def test_a_writer_killed_before_its_first_file_is_forgiven(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".split.json.abc").write_bytes(b"ha")
    assert contents(write_split(folder, "test", 2, 1)) == contents(write_split(tmp_path / "new", "test", 2, 1))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
