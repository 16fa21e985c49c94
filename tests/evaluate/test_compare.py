"""Two scores compared, and the commands that score and compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlmattn.cli import main
from vlmattn.core.errors import FileError, SpecError
from vlmattn.evaluate import clusters_of, compare, intervals, load_score, save_score
from vlmattn.hallucination import Chair, Pope, PopeQuestion, write_answers


def pope(protocol: str = "strict") -> Pope:
    asked = [
        PopeQuestion(str(i), "random", f"{i // 6}.jpg", f"Is there a {i} in the image?", "no" if i % 2 else "yes")
        for i in range(60)
    ]
    return Pope(tuple(asked), protocol=protocol)


def said(wrong: set[int]) -> dict[str, str]:
    return {str(i): "No" if (i % 2 == 1) != (i in wrong) else "Yes" for i in range(60)}


def test_metrics_come_back_from_their_sums() -> None:
    score = pope().score(said({1, 2, 8, 30}) | {"4": "perhaps"})
    found = intervals(score, clusters_of(pope()), draws=200)
    assert set(found) == {"accuracy", "precision", "recall", "f1", "yes_ratio"}
    for name, one in found.items():
        assert one.value == pytest.approx(score.metrics[name]), name
        assert one.low <= one.value <= one.high
        assert one.clusters == 10
    chair = Chair({"1": frozenset({"dog"}), "2": frozenset({"cup", "bed"})}, family="plain")
    captions = chair.score({"1": "A dog and two cats and a cat.", "2": "A cup."})
    for name, one in intervals(captions, draws=200).items():
        assert one.value == pytest.approx(captions.metrics[name]), name


def test_a_difference_is_found_and_none_is_not() -> None:
    first, second = pope().score(said(set())), pope().score(said(set(range(0, 60, 3))))
    found = {one.metric: one for one in compare(first, second, clusters_of(pope())).differences}
    assert found["accuracy"].difference.value == pytest.approx(20 / 60)
    assert found["accuracy"].p == 2 / 1024  # all ten pictures favour the first: the two most extreme exchanges
    assert found["accuracy"].adjusted_p >= found["accuracy"].p
    assert found["accuracy"].mcnemar_p is None
    same = compare(first, first, clusters_of(pope()))
    assert all(one.p == 1.0 and one.difference.low == 0 == one.difference.high for one in same.differences)


def test_mcnemar_where_every_item_is_its_own_picture() -> None:
    first, second = pope().score(said(set())), pope().score(said({0, 1, 2}))
    found = {one.metric: one for one in compare(first, second).differences}
    assert found["accuracy"].mcnemar_p == 0.25


def test_scores_that_cannot_be_compared(tmp_path: Path) -> None:
    first = pope().score(said(set()))
    with pytest.raises(SpecError, match="differ in parser"):
        compare(first, pope("official").score(said(set())))
    (tmp_path / "x.json").write_text('{"metrics": 1}')
    with pytest.raises(FileError, match="no score"):
        load_score(tmp_path / "x.json")


def test_saved_and_read(tmp_path: Path) -> None:
    score = pope().score(dict.fromkeys(map(str, range(60)), "No"))
    save_score(tmp_path / "s.json", score, clusters_of(pope()))
    again, clusters = load_score(tmp_path / "s.json")
    assert again.to_dict() == score.to_dict()
    assert clusters == clusters_of(pope())


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(args)
    out = capsys.readouterr()
    return int(left.value.code or 0), out.out, out.err


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "pope_random.json"
    rows = [{"question_id": q.id, "image": q.image, "text": q.text, "label": q.label} for q in pope().questions]
    data.write_text("\n".join(map(json.dumps, rows)))
    for name, wrong in (("a", set()), ("b", {0, 1, 2, 3})):
        write_answers(tmp_path / f"{name}.jsonl", pope().items(), said(wrong))
        answers, out = str(tmp_path / f"{name}.jsonl"), str(tmp_path / f"{name}.json")
        code, text, _ = run(capsys, "score", "pope", answers, "--data", str(data), "-o", out, "--draws", "200")
        assert code == 0
        assert "parser pope" in text
    code, text, _ = run(capsys, "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json")
    assert code == 0
    assert json.loads(text)["differences"][0]["difference"]["value"] == pytest.approx(4 / 60)
    code, text, _ = run(capsys, "score", "pope", str(tmp_path / "b.jsonl"), "--data", str(data), "--readings")
    assert code == 0
    assert all(name in text for name in ("official", "lmms_eval", "strict", "spread"))


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["score", "nothing", "a.jsonl"], "benchmarks are pope"),
        (["score", "pope", "a.jsonl"], "--data is needed"),
        (["score", "pope", "a.jsonl", "--family", "lemma"], "--family does not go with pope"),
        (["score", "scene-presence", "nowhere.jsonl", "--count", "1"], "does not exist"),
        (["compare", "nowhere.json", "b.json"], "does not exist"),
    ],
)
def test_commands_say_what_is_wrong(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, text = run(capsys, *args)
    assert code == 2
    assert told in text
    assert text.count("\n") == 1
