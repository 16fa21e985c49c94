"""POPE, CHAIR, MME, judged and drawn benchmarks: protocols, loaders, and what they refuse."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmattn.core.errors import DependencyMissing, FileError, SpecError, VlmattnError
from vlmattn.hallucination import (
    YES_NO_PROTOCOLS,
    AmberDiscriminative,
    AmberGenerative,
    AmberImage,
    AmberQuestion,
    Benchmark,
    Chair,
    HallusionBench,
    HallusionQuestion,
    Mme,
    MmeQuestion,
    Mmhal,
    MmhalQuestion,
    ObjectHalBench,
    Pope,
    PopeQuestion,
    SceneCaptions,
    ScenePresence,
    build_pope,
    coco_synonyms,
    coco_truth,
    load_mme,
    load_pope,
    load_truth,
    named_objects,
    open_synonyms,
    pope_statistics,
    read_answers,
    read_every_way,
    relabel,
    save_truth,
    write_answers,
)

EXAMPLES = ("chair", "judged", "parsers", "pope_build", "singular", "synonyms", "words", "yesno", "amber_yesno")


def pope(**options: Any) -> Pope:
    rows = [("a.jpg", "cat", "yes"), ("a.jpg", "dog", "no"), ("b.jpg", "cup", "yes"), ("b.jpg", "bed", "no")]
    asked = [PopeQuestion(str(i), "random", image, f"Is there a {w} in the image?", label)  # type: ignore[arg-type]
             for i, (image, w, label) in enumerate(rows, 1)]  # fmt: skip
    return Pope(tuple(asked), **options)


def every_benchmark() -> list[tuple[Benchmark, dict[str, str]]]:
    chair = Chair({"1": frozenset({"dog"})}, family="plain")
    pictures = (AmberImage("1", ("sky",), ("sun",)),)
    amber = AmberGenerative(pictures, {"sky": [], "sun": []}, frozenset(), nouns=str.split)
    asked = AmberDiscriminative((AmberQuestion("7", "state", "no"),))
    hallusion = HallusionBench((HallusionQuestion("VD", "map", "0", "1", "0", "Is it?", "yes"),))
    mme = Mme(tuple(MmeQuestion("count", "a.jpg", f"Is it {n}?", "yes", n) for n in (1, 2)))
    mmhal = Mmhal((MmhalQuestion("0", "other", "What?", "That.", (), "a.jpg"),), lambda q, text: "Rating: 4")
    halbench = ObjectHalBench({"0": frozenset({"dog"})}, {"0": "Describe."}, str.split)
    benches: list[Benchmark] = [pope(), chair, amber, asked, hallusion, mme, mmhal, halbench]
    benches += [ScenePresence(count=2), SceneCaptions(count=2)]
    return [(bench, {item.id: "Yes" for item in bench.items()}) for bench in benches]


@pytest.mark.parametrize(("bench", "answers"), every_benchmark(), ids=lambda one: getattr(one, "name", ""))
def test_what_every_benchmark_keeps_to(bench: Benchmark, answers: dict[str, str]) -> None:
    assert isinstance(bench, Benchmark)
    ids = [item.id for item in bench.items()]
    assert ids == [item.id for item in bench.items()]
    score = bench.score(answers)
    assert score.benchmark == bench.name
    assert score.settings["scorer"]
    assert all(set(own) <= set(ids) for own in score.outcomes.values())
    json.dumps(score.to_dict(), allow_nan=False)
    with pytest.raises(SpecError, match="have no answer"):
        bench.score(dict.fromkeys(ids[1:], "Yes"))
    with pytest.raises(SpecError, match="of no item"):
        bench.score(answers | {"unknown": "Yes"})


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    importlib.import_module(f"vlmattn.hallucination.{name}")
    result = doctest.testmod(sys.modules[f"vlmattn.hallucination.{name}"])
    assert result.attempted > 0
    assert result.failed == 0


def test_one_set_of_answers_has_many_accuracies() -> None:
    said = {"1": "Yes.", "2": "NO.", "3": "I cannot tell.", "4": "No\n"}
    found = {name: way.metrics for name, way in read_every_way(pope(), said).scores.items()}
    assert list(found) == list(YES_NO_PROTOCOLS)
    assert {name: one["accuracy"] for name, one in found.items()} == {
        "official": 0.5, "opera": 0.75, "vcd": 0.75, "repope": 0.75, "dash_b": 0.75, "lmms_eval": 0.25,
        "vlmevalkit": 0.75, "strict": 0.75,
    }  # fmt: skip
    assert found["strict"]["unparsed"] == 0.25
    assert found["strict"]["recall"] == 0.5
    assert found["lmms_eval"]["yes_ratio"] == 0.5  # of the labels, whatever was said
    assert found["official"]["yes_ratio"] == 1.0 - 0.0


def test_dropped_answers_leave_the_denominator() -> None:
    said = {"1": "Yes", "2": "No", "3": "Perhaps", "4": "Perhaps"}
    assert pope(protocol="repope").score(said).metrics["accuracy"] == 1.0
    assert pope(protocol="dash_b").score(said).metrics["accuracy"] == 0.5
    assert pope(protocol="dash_b").score(said).notes[0].startswith("2 answers are neither")


def test_an_always_no_model_has_no_precision() -> None:
    metrics = pope().score(dict.fromkeys("1234", "No")).metrics
    assert metrics["precision"] != metrics["precision"]
    assert pope(protocol="lmms_eval").score(dict.fromkeys("1234", "no")).metrics["precision"] == 0.0


def test_answers_in_other_languages_are_not_understood() -> None:
    score = pope(protocol="strict").score({"1": "はい", "2": "Нет", "3": "Oui", "4": ""})
    assert score.metrics["unparsed"] == 1.0
    assert score.metrics["accuracy"] == 0.0


def test_relabelled() -> None:
    rows = [
        {"question_id": 1, "image": "a.jpg", "text": "Is there a cat in the imange?", "label": "no"},
        {"question_id": 4, "image": "b.jpg", "text": "Is there a bed in the image?", "label": "no"},
    ]
    found = relabel(pope(), rows)
    assert [(q.id, q.label) for q in found.questions] == [("1", "no"), ("4", "no")]
    assert found.score({"1": "No", "4": "No"}).settings["labels"] == "repope"
    with pytest.raises(SpecError, match="no question"):
        relabel(pope(), [rows[0] | {"image": "c.jpg"}])


def test_built_pope_asks_what_it_says() -> None:
    objects = {f"{i}.jpg": ["cat", "dog", "tie", f"thing {i}"][i % 2 :] for i in range(8)}
    for strategy in ("random", "popular", "adversarial"):
        built = build_pope(objects, strategy, images=6, seed=4)
        assert built == build_pope(objects, strategy, images=6, seed=4)
        assert [q.label for q in built] == ["yes", "no"] * 18
        for q in built:
            name = q.text.removeprefix("Is there a ").removeprefix("Is there an ").removesuffix(" in the image?")
            assert (name in objects[q.image]) == (q.label == "yes")
    assert [q.image for q in built] != [q.image for q in build_pope(objects, "adversarial", images=6, seed=5)]


def test_popular_and_adversarial_negatives() -> None:
    lists = {"a": ["cat", "x"], "b": ["cat", "y"], "c": ["cup", "tie"], "d": ["cup", "tie", "dog"]}
    assert pope_statistics(list(lists.values())).often[:3] == ("cat", "cup", "tie")
    popular = {q.image: q.text for q in build_pope(lists, "popular", images=4, each=1) if q.label == "no"}
    assert popular["c"] == "Is there a cat in the image?"
    near = {q.image: q.text for q in build_pope(lists, "adversarial", images=4, each=1) if q.label == "no"}
    assert near["c"] == "Is there a dog in the image?"


def test_own_table_and_open_ones() -> None:
    table = coco_synonyms()
    assert named_objects("Two kittens on a dining table, by a hot dog.", table, "plain").nodes == (
        "cat", "dining table", "hot dog",
    )  # fmt: skip
    assert not table.never_found
    fruit = open_synonyms("fruit", {"apple": ["granny smith"], "pear": []})
    assert named_objects("A Granny Smith and pears", fruit, "plain").nodes == ("apple", "pear")
    with pytest.raises(SpecError, match="names both"):
        open_synonyms("twice", {"cup": ["mug"], "glass": ["mug"]})
    with pytest.raises(SpecError, match="lower case"):
        open_synonyms("loud", {"Cup": []})


def test_chair_by_hand() -> None:
    truth = {"1": frozenset({"dog", "cup"}), "2": frozenset({"cat"}), "3": frozenset({"bed"})}
    score = Chair(truth, family="plain").score({"1": "A dog, a dog and a car.", "2": "A cat.", "3": ""})
    assert score.metrics["chair_i"] == 1 / 4
    assert score.metrics["chair_s"] == 1 / 3
    assert score.metrics["recall"] == 2 / 4
    assert score.metrics["precision"] == 2 / 3
    assert score.settings["table"] == "vlmattn-coco"
    assert "1 captions are empty" in score.notes[0]


def test_truth_from_coco_files(tmp_path: Path) -> None:
    instances = {
        "categories": [{"id": 18, "name": "dog"}, {"id": 47, "name": "cup"}],
        "annotations": [{"image_id": 1, "category_id": 18}, {"image_id": 2, "category_id": 47}],
    }
    captions = {"annotations": [{"image_id": 1, "caption": "A puppy on a sofa."}, {"image_id": 3, "caption": "A cat."}]}
    for name, data in (("i.json", instances), ("c.json", captions)):
        (tmp_path / name).write_text(json.dumps(data))
    truth = coco_truth([tmp_path / "i.json"], [tmp_path / "c.json"], [1, 2], coco_synonyms(), "plain")
    assert truth == {"1": {"dog", "couch"}, "2": {"cup"}}
    assert load_truth(save_truth(tmp_path / "truth.json", truth)) == truth
    with pytest.raises(SpecError, match="in none of the annotation files: 9"):
        coco_truth([tmp_path / "i.json"], [], [1, 9], coco_synonyms(), "plain")
    with pytest.raises(FileError, match="pickle"):
        load_truth("chair.pkl")


def test_pictures_must_be_there(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(FileError, match=r"1 pictures are not in .*: b.jpg; published at"):
        pope(images=tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "b.jpg")
    assert pope(images=tmp_path).items()[0].images == (tmp_path / "a.jpg",)


def test_mme(tmp_path: Path) -> None:
    lines = "a.jpg\tIs it one?\tYes\tyes\na.jpg\tIs it two?\tNo\tNo.\nb.jpg\tOne?\tYes\tno\nb.jpg\tTwo?\tNo\tno"
    (tmp_path / "count.txt").write_text(lines)
    bench = load_mme(tmp_path, ["count"])
    from vlmattn.hallucination import read_mme_answers

    metrics = bench.score(read_mme_answers(tmp_path, ["count"])).metrics
    assert metrics["count"] == 100 * 0.75 + 100 * 0.5
    (tmp_path / "count.txt").write_text(lines.rsplit("\n", 1)[0])
    with pytest.raises(SpecError, match="exactly two"):
        load_mme(tmp_path, ["count"])


def test_response_rate_is_of_captions_that_speak() -> None:
    truth = {"0": frozenset({"dog"}), "1": frozenset({"dog"}), "2": frozenset({"dog"})}
    bench = ObjectHalBench(truth, dict.fromkeys(truth, "Describe."), str.split)
    metrics = bench.score({"0": "dog cat dog cat", "1": "nothing to see here", "2": "dog cat cup"}).metrics
    assert (metrics["response"], metrics["chair_s"], metrics["object"]) == (1.0, 1 / 3, 0.5)


def test_drawn_scenes_know_the_truth() -> None:
    bench = ScenePresence("random", 4)
    right = {item.id: item.truth["label"] for item in bench.items()}
    assert bench.score(right).metrics["f1"] == 1.0
    assert bench.score(dict.fromkeys(right, "yes")).metrics["yes_ratio"] == 1.0
    captions = SceneCaptions(count=3)
    told = {item.id: ", ".join(f"a {name}" for name in item.truth["objects"]) for item in captions.items()}
    assert captions.score(told).metrics["chair_i"] == 0.0
    assert captions.score(told).metrics["recall"] == 1.0


LAYOUTS = ("llava", "lmms-eval", "vlmevalkit", "amber")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_come_back(tmp_path: Path, layout: str) -> None:
    items = pope().items()
    said = {"1": "Yes", "2": 'No, "none"\tat all', "3": "はい\nYes", "4": "None"}
    path = tmp_path / ("a.tsv" if layout == "vlmevalkit" else "a.json")
    write_answers(path, items, said, layout=layout)
    assert read_answers(path, items) == said
    if layout == "llava":
        lines = path.read_text().splitlines()
        path.write_text("\n".join(reversed(lines)))
        assert read_answers(path, items) == said


def test_captions_come_back(tmp_path: Path) -> None:
    items = Chair({"226988": frozenset({"dog"})}, family="plain").items()
    write_answers(tmp_path / "c.jsonl", items, {"226988": "A dog."}, layout="chair")
    assert json.loads((tmp_path / "c.jsonl").read_text()) == {"image_id": 226988, "caption": "A dog."}
    assert read_answers(tmp_path / "c.jsonl", items) == {"226988": "A dog."}


def test_a_table_of_another_numbering_is_joined_by_question(tmp_path: Path) -> None:
    rows = list(reversed(pope().questions))
    lines = [f"{n}\t{q.image}\t{q.text}\t{q.label}\t{q.id} says no" for n, q in enumerate(rows)]
    (tmp_path / "t.tsv").write_text("\n".join(["index\timage_path\tquestion\tanswer\tprediction", *lines]))
    assert read_answers(tmp_path / "t.tsv", pope().items()) == {str(n): f"{n} says no" for n in range(1, 5)}


def test_sample_logs_are_joined_by_the_inner_id(tmp_path: Path) -> None:
    said = {"4": "No", "3": "Yes", "2": "no", "1": "yes"}
    logs = [
        {"doc_id": n, "target": "yes", "filtered_resps": [[text]], "input": "Is it?", "doc_hash": "0",
         "pope_accuracy": {"question_id": one, "score": 1.0, "prediction": text, "ground_truth": "yes"}}
        for n, (one, text) in enumerate(said.items(), 1)
    ]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text(rows(*logs))
    assert read_answers(tmp_path / "samples.jsonl", pope().items()) == said


def test_sheets_keep_the_words_none_and_na(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    said = {"1": "None", "2": "NA", "3": "", "4": "No"}
    book.active.append(["index", "image_path", "question", "prediction"])
    for q in pope().questions:
        book.active.append([int(q.id) + 70, q.image, q.text, said[q.id] or None])
    book.save(tmp_path / "model_POPE.xlsx")
    assert read_answers(tmp_path / "model_POPE.xlsx", pope().items()) == said


def rows(*given: Mapping[str, Any]) -> str:
    return "\n".join(json.dumps(row) for row in given)


QUESTION = {"question_id": 1, "image": "a.jpg", "text": "Is there a cat in the image?", "label": "yes"}


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ('{"question_id": 1, "text": "Y', "line 1, is not whole JSON"),
        ('[{"question_id": 1}', "not a whole JSON array"),
        ("[1, 2]", "not an object"),
        (rows({"question_id": 1, "text": "Yes"}, {"question_id": 2, "answer": "No"}), "several schemas"),
        (rows({"question_id": 1, "text": "Yes"}, {"question_id": 1, "text": "Yes"}), "answers 1 twice"),
        (rows({"question_id": 1, "text": "Yes"}, {"question_id": 99, "text": "Yes"}), "row 2 is of no item"),
        (rows({"question_id": 1, "text": 5}), "and not text"),
        (rows({"question": "Is there a cat in the image?", "answer": "Yes"}), "joined by position"),
        (rows({"question_id": 1, "question": "Is there a bus in the image?", "answer": "Yes"}), "another version"),
        (rows({"question_id": 1, "label": "yes"}), "no answers under a known name"),
    ],
)
def test_answer_files_that_cannot_be_used(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(VlmattnError, match=told):
        read_answers(tmp_path / "a.jsonl", pope().items())


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (rows(QUESTION, QUESTION), "occur twice: 1"),
        (rows({**QUESTION, "label": "maybe"}), "not yes or no"),
        (rows({"question_id": 1, "text": "Is there?"}), "has no 'label'"),
        (rows({**QUESTION, "text": ["a", "b"], "label": ["yes"]}), "2 questions and 1 labels"),
        (rows(QUESTION)[:-9], "not whole JSON"),
        (rows(QUESTION), "has 1 questions and should have 3000 or 2910"),
    ],
)
def test_pope_files_that_cannot_be_used(tmp_path: Path, text: str, told: str) -> None:
    name = "coco_pope_random.json" if "3000" in told else "part_random.json"
    (tmp_path / name).write_text(text)
    with pytest.raises(VlmattnError, match=told):
        load_pope(tmp_path, ["random"])


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: load_pope("/nowhere", ["random"]), FileError, "published at github.com/RUCAIBox"),
        (lambda: pope(protocol="none"), SpecError, "protocols are official"),
        (lambda: Chair({}), SpecError, "at least one picture"),
        (lambda: Chair({"1": frozenset({"unicorn"})}), SpecError, "unicorn"),
        (lambda: Chair({"1": frozenset({"dog"})}, family="x"), SpecError, "families are lemma"),
        (lambda: build_pope({"a": ["cat"]}, "random", images=1), SpecError, "there are 0"),
        (lambda: ScenePresence("nowhere", 1), SpecError, "does not exist"),
        (lambda: load_truth("/nowhere.json"), FileError, "does not exist"),
    ],
)
def test_what_cannot_be_made(call: Callable[[], Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        call()


def test_missing_nltk_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmattn.hallucination import words

    for name in ("nltk", "nltk.tokenize", "nltk.tokenize.destructive"):
        monkeypatch.setitem(sys.modules, name, None)
    for cached in (words._treebank, words._sentences):
        cached.cache_clear()
    with pytest.raises(DependencyMissing, match=r"pip install 'vlmattn\[hallucination\]'"):
        named_objects("A dog.", coco_synonyms(), "lemma")
