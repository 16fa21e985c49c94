"""Runs: the same answers by one process or two, in one sitting or many, and as plain generation gives them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import vlmattn as va
from tests.evaluate.asked import Presence
from vlmattn.core.errors import CaptureError, FileError, ImageError, SpecError
from vlmattn.evaluate import Decoding, Manifest, Store, batches, evaluate, read_results, seed_of
from vlmattn.evaluate.plan import mine
from vlmattn.hallucination import Benchmark, Item

ROOT = Path(__file__).resolve().parents[2]
ENV = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
SHORT = Decoding(max_new_tokens=6)


@pytest.fixture(scope="module")
def vlm() -> va.Vlm:
    return va.load("scene")


def launched(folder: Path, *arguments: str, processes: int = 1) -> subprocess.Popen[bytes]:
    alone = [sys.executable, "-m", "tests.evaluate.asked"]
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    start = alone if processes == 1 else [*together, "--module", "tests.evaluate.asked"]
    out = subprocess.DEVNULL
    return subprocess.Popen([*start, str(folder), *arguments], cwd=ROOT, env=ENV, stdout=out, stderr=out)


def test_answers_are_those_of_asking(vlm: va.Vlm, tmp_path: Path) -> None:
    benchmark = Presence(1)
    assert isinstance(benchmark, Benchmark)
    done = evaluate(vlm, benchmark, tmp_path, decoding=SHORT, batch=3)
    asked = {i.id: vlm.ask(i.images[0], i.prompt, max_new_tokens=6).answer for i in benchmark.items()}
    assert done.answers == asked == read_results(tmp_path)
    assert done.answered == len(asked)
    assert benchmark.score(done.answers).metrics["accuracy"] > 0.5
    again = evaluate(vlm, benchmark, tmp_path, decoding=SHORT, batch=3)
    assert (again.answers, again.answered) == (asked, 0)
    held = Manifest.load(tmp_path)
    assert held is not None
    assert len(held.environments) == 2
    assert held.settings["model"] == "scene"
    assert held.settings["items"] == len(asked)


def test_steering_acts_as_in_asking(vlm: va.Vlm, tmp_path: Path) -> None:
    class Blind(va.Steering):
        def edit_scores(self, scores_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
            return scores_bhrk.masked_fill(where.columns(2), -1e4)

    benchmark = Presence(2)
    seen = evaluate(vlm, benchmark, tmp_path / "seen", decoding=SHORT).answers
    blind = evaluate(vlm, benchmark, tmp_path / "blind", decoding=SHORT, steering=[Blind()]).answers
    assert seen != blind
    one = benchmark.items()[0]
    assert blind[one.id] == vlm.ask(one.images[0], one.prompt, max_new_tokens=6, steering=[Blind()]).answer
    with pytest.raises(SpecError, match="steering: "):
        evaluate(vlm, benchmark, tmp_path / "seen", decoding=SHORT, steering=[Blind()])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"decoding": Decoding(max_new_tokens=7)}, "decoding"),
        ({"batch": 2}, "batch"),
        ({"limit": 3}, "items"),
    ],
)
def test_a_folder_of_another_run_is_refused(vlm: va.Vlm, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    benchmark = Presence(1)
    before = evaluate(vlm, benchmark, tmp_path, decoding=SHORT, limit=4).answers
    settings: dict[str, Any] = {"decoding": SHORT, "limit": 4} | change
    with pytest.raises(SpecError, match=rf"another run \(.*{named}"):
        evaluate(vlm, benchmark, tmp_path, **settings)
    assert read_results(tmp_path) == before


def test_answers_without_a_manifest_are_refused(vlm: va.Vlm, tmp_path: Path) -> None:
    evaluate(vlm, Presence(1), tmp_path, decoding=SHORT, limit=2)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(FileError, match="no manifest"):
        evaluate(vlm, Presence(1), tmp_path, decoding=SHORT, limit=2)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(FileError, match="damaged"):
        evaluate(vlm, Presence(1), tmp_path, decoding=SHORT, limit=2)


def test_a_bad_picture_is_named_and_the_rest_is_kept(vlm: va.Vlm, tmp_path: Path) -> None:
    class WithBad(Presence):
        def items(self) -> list[Item]:
            bad = tmp_path / "bad.png"
            bad.write_bytes(b"no picture")
            return [*super().items()[:3], Item("broken", (bad,), "What?")]

    with pytest.raises(ImageError, match=r"items .*broken"):
        evaluate(vlm, WithBad(1), tmp_path / "run", decoding=SHORT, batch=1)
    assert len(Store(tmp_path / "run").committed()) == 3


def test_logits_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    broken = va.load("scene")
    with torch.no_grad():
        broken.model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(CaptureError, match="logits are NaN"):
        evaluate(broken, Presence(1), tmp_path, decoding=SHORT, limit=2)
    assert not Store(tmp_path).committed()


@pytest.mark.parametrize(
    ("items", "size", "match"),
    [
        ([], 2, "no items"),
        ([Item("a", (), "x"), Item("a", (), "y")], 2, "'a' occurs"),
        ([Item("a", (), "x")], 0, "at least"),
    ],
)
def test_plans_that_cannot_be(items: list[Item], size: int, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        batches(items, size)


def test_plans_are_alike_and_whole() -> None:
    items = [Item(str(n), ("x",) * (n % 2 + 1), "w" * (n * 7 % 13)) for n in range(23)]
    plan = batches(items, 4)
    assert sorted(i.id for batch in plan for i in batch) == sorted(i.id for i in items)
    assert all(len({len(i.images) for i in batch}) == 1 for batch in plan)
    assert all(len(batch) <= 4 for batch in plan)
    lengths = [len(batch[0].prompt) for batch in plan if len(batch[0].images) == 2]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("generate", [{"logits_processor": []}, {"x": object()}])
def test_decoding_is_plain(generate: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="plain values"):
        Decoding(generate=generate)
    with pytest.raises(SpecError, match="max_new_tokens"):
        Decoding(max_new_tokens=0)


def test_samples_have_seeds_of_their_own(vlm: va.Vlm, tmp_path: Path) -> None:
    sampled = Decoding(max_new_tokens=6, seed=3, generate={"do_sample": True, "temperature": 3.0})
    one = evaluate(vlm, Presence(1), tmp_path / "one", decoding=sampled).answers
    two = evaluate(vlm, Presence(1), tmp_path / "two", decoding=sampled).answers
    other = evaluate(
        vlm, Presence(1), tmp_path / "other", decoding=Decoding(6, seed=4, generate=sampled.generate)
    ).answers
    assert one == two != other
    assert seed_of(3, "a") != seed_of(3, "b") != seed_of(4, "b")


@pytest.mark.slow
def test_killed_at_any_moment_by_any_number_of_processes_the_results_are_the_same(tmp_path: Path) -> None:
    assert launched(tmp_path / "whole").wait(300) == 0
    whole = (tmp_path / "whole" / "results.jsonl").read_bytes()
    rng = random.Random(0)
    for kill in range(3):
        process = launched(tmp_path / "killed", processes=1 + kill % 2)
        time.sleep(4 + 8 * rng.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run(["pkill", "-9", "-f", str(tmp_path / "killed")], check=False)
        time.sleep(0.2)
    assert launched(tmp_path / "killed", processes=2).wait(300) == 0
    assert (tmp_path / "killed" / "results.jsonl").read_bytes() == whole
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [line["id"] for line in lines] == [item.id for item in Presence().items()]


def test_processes_share_what_is_left_and_answer_nothing_twice() -> None:
    parts = [mine(11, [0, 4, 5], rank, 3) for rank in range(3)]
    assert sorted(number for part in parts for number in part) == [1, 2, 3, 6, 7, 8, 9, 10]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
