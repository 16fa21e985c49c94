"""Every scorer against the official programs' own results on published answers, to the last digit."""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlmattn.hallucination import (
    Chair,
    coco_synonyms,
    load_amber,
    load_amber_questions,
    load_hallusionbench,
    load_pope,
    named_objects,
    parse_yes_no,
    questions_of,
    read_chair_synonyms,
)
from vlmattn.hallucination.amber import AmberGenerative
from vlmattn.hallucination.chair import chair_metrics
from vlmattn.hallucination.singular import pattern_singular
from vlmattn.hallucination.words import join_and_find

NO_NLTK = importlib.util.find_spec("nltk") is None


@pytest.fixture
def folder(golden: Path) -> Path:
    return golden / "hallucination"


def load(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


def captions(folder: Path, name: str) -> dict[str, str]:
    text = gzip.decompress((folder / f"chair/opera_llava15_{name}.jsonl.gz").read_bytes()).decode()
    return {str(row["image_id"]): row["caption"] for row in map(json.loads, text.splitlines())}


def chair(folder: Path, family: str) -> Chair:
    truth = load(folder / "chair/coco_gt_objects_500.json.gz")
    table = read_chair_synonyms(folder / "chair/synonyms.txt")
    return Chair({one: frozenset(names) for one, names in truth.items()}, table, family)


def verdicts(text: str) -> dict[str, str | None]:
    mme = parse_yes_no(text, "lmms_eval_mme") or "other"
    kit = parse_yes_no(text, "vlmevalkit") or "Unknown"
    amber, lmms = parse_yes_no(text, "amber"), parse_yes_no(text, "lmms_eval_amber")
    return {
        "pope_official": parse_yes_no(text, "pope"),
        "opera_pai": parse_yes_no(text, "opera"),
        "vcd_if_label_yes": parse_yes_no(text, "vcd", label="yes"),
        "vcd_if_label_no": parse_yes_no(text, "vcd", label="no"),
        "repope": parse_yes_no(text, "repope"),
        "dash_b": parse_yes_no(text, "dash_b"),
        "lmms_eval_pope_counts_as": parse_yes_no(text, "lmms_eval_pope"),
        "lmms_eval_mme": mme,
        "vlmevalkit_yorn": kit.title(),
        "openchair_judge": parse_yes_no(text, "openchair") or "ERROR",
        "amber_official": amber and amber.title(),
        "lmms_eval_amber_d": lmms and lmms.title(),
    }


def test_parsers(folder: Path) -> None:
    rows = load(folder / "parsers/yesno_parser_vectors.json")
    assert len(rows) == 45
    for row in rows:
        found = verdicts(row["text"])
        assert found == {name: row[name] for name in found}, row["text"]


def test_pope_files(folder: Path) -> None:
    pope = load_pope(folder / "pope")
    assert len(pope.questions) == 9000
    assert len({(q.key, q.label) for q in pope.questions}) == 5127
    assert [q.label for q in pope.questions[:4]] == ["yes", "no", "yes", "no"]
    score = pope.score({q.id: "Yes" for q in pope.questions})
    assert score.metrics["accuracy"] == 0.5
    assert score.metrics["yes_ratio"] == 1.0
    assert score.metrics["mean_f1"] == pytest.approx(2 / 3)


def test_pope_legacy_and_several_questions_a_row(folder: Path, tmp_path: Path) -> None:
    packed = folder / "pope/coco_pope_random_2910_legacy.json.gz"
    (tmp_path / "coco_pope_random.json").write_bytes(gzip.decompress(packed.read_bytes()))
    legacy = load_pope(tmp_path, ["random"])
    assert legacy.name == "pope-random2910"
    assert sum(q.label == "yes" for q in legacy.questions) == 1500
    new = {q.key for q in load_pope(folder / "pope", ["random"]).questions}
    assert all(q.key in new for q in legacy.questions)
    lines = (folder / "pope/pai_pope_chat_random_head20.jsonl").read_text().splitlines()
    assert len(questions_of([json.loads(line) for line in lines], "random")) == 120


@pytest.mark.parametrize("number", range(4))
def test_pope_confusion(folder: Path, number: int) -> None:
    row = load(folder / "pope/confusion_vectors.json")[number]
    from vlmattn.hallucination import Confusion

    found = Confusion(row["TP"], row["FP"], row["TN"], row["FN"]).metrics()
    names = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1", "yes_ratio": "Yes_ratio"}
    assert {theirs: found[ours] for ours, theirs in names.items()} == {n: row[n] for n in names.values()}


def test_singular_forms(folder: Path) -> None:
    words = load(folder / "chair/pattern_singularize_table.json.gz")
    assert len(words) == 2867
    assert {word: pattern_singular(word) for word in words} == words


def test_synonym_file_with_its_quirks(folder: Path) -> None:
    table = read_chair_synonyms(folder / "chair/synonyms.txt")
    assert table.name == "chair"
    assert (len(table.nodes), len(table.objects), len(table.pairs)) == (403, 80, 55)
    assert {" motor bike", " cheesecake", "iPhone", "stove top oven"} < set(table.never_found)
    assert set(coco_synonyms().objects) == set(table.objects)


@pytest.mark.parametrize("name", ["greedy", "beam5", "ours"])
def test_chair_without_any_data(folder: Path, name: str) -> None:
    found = chair(folder, "plain").official(captions(folder, name))["overall_metrics"]
    want = load(folder / "chair/expected_overall.json")[f"{name}/pattern_singularize"]
    assert {n: found[n] for n in ("CHAIRs", "CHAIRi", "Recall")} == {n: want[n] for n in ("CHAIRs", "CHAIRi", "Recall")}
    # Punctuation is cut a little differently without NLTK: a few words of 48,000.
    assert found["Len"] == pytest.approx(want["Len"], abs=2e-4)


@pytest.mark.slow
@pytest.mark.skipif(NO_NLTK, reason="NLTK is not installed")
@pytest.mark.parametrize("name", ["greedy", "beam5", "ours"])
@pytest.mark.parametrize(("family", "theirs"), [("pattern", "pattern_singularize"), ("lemma", "nltk_pos_lemma")])
def test_chair(folder: Path, name: str, family: str, theirs: str) -> None:
    from vlmattn.core.errors import DependencyMissing

    try:
        named_objects("A dog.", coco_synonyms(), family)
    except DependencyMissing as error:
        pytest.skip(str(error))
    found = chair(folder, family).official(captions(folder, name))["overall_metrics"]
    want = load(folder / "chair/expected_overall.json")[f"{name}/{theirs}"]
    assert {n: found[n] for n in ("CHAIRs", "CHAIRi", "Recall", "Len")} == {
        n: want[n] for n in ("CHAIRs", "CHAIRi", "Recall", "Len")
    }


@pytest.mark.parametrize("name", ["greedy", "ours"])
@pytest.mark.parametrize("family", ["pattern_singularize", "nltk_pos_lemma"])
def test_chair_arithmetic_of_both_families(folder: Path, name: str, family: str) -> None:
    # From the words that the official pipelines found, so that neither tagger nor WordNet is needed.
    truth = load(folder / "chair/coco_gt_objects_500.json.gz")
    sums = dict.fromkeys(("chair_s", "hallucinated", "objects", "recalled", "kinds", "truth", "length"), 0.0)
    rows = load(folder / "chair/expected_per_caption.json.gz")[f"{name}/{family}"]
    for row in rows:
        nodes, there = row["generated_nodes"], set(truth[str(row["image_id"])])
        wrong = [node for node in nodes if node not in there]
        assert wrong == [node for _, node in row["hallucinated"]]
        sums["chair_s"] += bool(wrong)
        sums["hallucinated"] += len(wrong)
        sums["objects"] += len(nodes)
        sums["recalled"] += len(set(nodes) & there)
        sums["truth"] += len(there)
    found = chair_metrics(sums, len(rows))
    want = load(folder / "chair/expected_overall.json")[f"{name}/{family}"]
    assert (found["chair_s"], found["chair_i"], found["recall"]) == (want["CHAIRs"], want["CHAIRi"], want["Recall"])


@pytest.mark.parametrize("family", ["pattern_singularize", "nltk_pos_lemma"])
def test_joined_words(folder: Path, family: str) -> None:
    # Joined words go in again: joining is done once and for all.
    table = read_chair_synonyms(folder / "chair/synonyms.txt")
    for case in load(folder / "chair/edge_cases.json"):
        want = case[family]
        found = join_and_find(want["merged"], table)
        assert (list(found.words), list(found.nodes)) == (want["words"], want["nodes"]), case["caption"]


def test_edge_cases_without_any_data(folder: Path) -> None:
    table = read_chair_synonyms(folder / "chair/synonyms.txt")
    for case in load(folder / "chair/edge_cases.json"):
        want, found = case["pattern_singularize"], named_objects(case["caption"], table, "plain")
        assert list(found.nodes) == want["nodes"], case["caption"]
        if "'" not in case["caption"]:
            assert list(found.indices) == want["idxs"], case["caption"]
            assert list(found.merged) == want["merged"], case["caption"]


def test_traced_words(folder: Path) -> None:
    table = read_chair_synonyms(folder / "chair/synonyms.txt")
    for row in load(folder / "chair/token_trace_40.json.gz"):
        assert [pattern_singular(token) for token in row["tokens"]] == row["pattern"]
        assert list(join_and_find(row["pattern"], table).merged) == row["double_merged_pattern"]


@pytest.mark.skipif(NO_NLTK, reason="NLTK is not installed")
def test_traced_tokens_and_lemmas(folder: Path) -> None:
    from vlmattn.core.errors import DependencyMissing
    from vlmattn.hallucination.words import lemma, lemmas_of, tokens_of

    rows = load(folder / "chair/token_trace_40.json.gz")
    for row in rows:
        assert tokens_of(row["caption"].lower()) == row["tokens"]
    try:
        lemma("dogs", "n")
    except DependencyMissing as error:
        pytest.skip(str(error))
    for row in rows:
        assert lemmas_of(row["tokens"], row["pos"]) == row["lemma"]


def stub(a: str, b: str) -> float:
    near = {frozenset(("automobile", "car")): 0.85, frozenset(("puppy", "dog")): 0.86}
    return 1.0 if a == b else near.get(frozenset((a, b)), 0.0)


def printed(text: str) -> dict[str, float]:
    lines = [line.split(":") for line in text.splitlines() if ":\t" in line]
    return {name.lower(): float(value) for name, value in lines}


def test_amber_captions(folder: Path) -> None:
    want = load(folder / "amber/expected_with_stub_similarity.json")["generative"]
    nouns = {r["response"]: row["nouns"] for r, row in zip(want["responses"], want["per_sample"], strict=True)}
    whole = load_amber(folder / "amber", similarity=stub, nouns=lambda text: nouns[text])
    assert len(whole.pictures) == 1004
    said = {str(row["id"]): row["response"] for row in want["responses"]}
    some = replace(whole, pictures=tuple(p for p in whole.pictures if p.id in said))
    assert some.score(said).metrics == printed(want["stdout"])
    harness = replace(some, sums="lmms_eval").score(said).metrics
    counts = {name: sum(values.values()) for name, values in some.score(said).outcomes.items()}
    few = 0.001 * len(some.pictures)
    assert harness["chair"] == pytest.approx(100 * counts["hallucinated"] / (counts["nouns"] + few), abs=1e-12)
    assert harness["cover"] == pytest.approx(100 * counts["covered"] / (counts["truth"] + few), abs=1e-12)
    assert harness["cog"] == pytest.approx(100 * counts["imagined"] / (counts["hallu"] + few), abs=1e-12)
    clean = len(some.pictures) - counts["hal"]
    assert harness["hal"] == pytest.approx(100 - 100 * clean / (len(some.pictures) + few), abs=1e-12)
    for row in want["per_sample"]:
        one = replace(whole, pictures=tuple(p for p in whole.pictures if p.id == str(row["id"])))
        assert one.score({one.pictures[0].id: said[one.pictures[0].id]}).metrics == printed(row["stdout_single"])


def test_amber_says_when_it_has_no_word_vectors(folder: Path) -> None:
    bench = load_amber(folder / "amber", nouns=str.split)
    assert isinstance(bench, AmberGenerative)
    assert bench.score({p.id: "sky" for p in bench.pictures}).settings["similarity"] == "exact"


@pytest.mark.parametrize("case", ["discriminative_stdout", "all_perfect_stdout", "always_yes_stdout"])
def test_amber_questions(folder: Path, case: str) -> None:
    bench = load_amber_questions(folder / "amber")
    assert len(bench.questions) == 14216
    said = {}
    for q in bench.questions:
        number = int(q.id)
        patterned = "No" if number % 3 == 0 else "Yes"
        patterned = "No." if number % 103 == 0 else "yes" if number % 101 == 0 else patterned
        said[q.id] = {"d": patterned, "a": q.label.title() if "perfect" in case else "Yes"}[case[0]]
    text = load(folder / "amber/expected_with_stub_similarity.json")[case]
    found = bench.score(said).metrics
    for block, name in zip(
        text.split("\n\n"), ("", "existence_", "attribute_", "state_", "number_", "action_", "relation_"), strict=True
    ):
        want = dict(printed(block.split("\n", 1)[1]).items())
        assert {k: found[name + k] for k in want} == want, name
    groups = [found[f"vlmevalkit_{name}"] for name in ("attribute", "existence", "relation")]
    assert found["vlmevalkit_average"] == pytest.approx(sum(groups) / 3)
    assert groups[0] == pytest.approx(found["attribute_accuracy"], abs=0.06)
    assert groups[1] == pytest.approx(found["existence_accuracy"], abs=0.06)


def test_hallusionbench(folder: Path) -> None:
    bench = load_hallusionbench(folder / "hallusionbench/HallusionBench.json.gz")
    assert (len(bench.questions), sum(q.label == "no" for q in bench.questions)) == (1129, 645)
    from vlmattn.hallucination import read_answers

    path = folder / "hallusionbench/HallusionBench_result_sample.json.gz"
    said = read_answers(path, bench.items())
    some = replace(bench, questions=tuple(q for q in bench.questions if q.id in said))
    found, want = some.score(said).metrics, load(folder / "hallusionbench/expected_yes_substring.json")["result"]
    assert (found["a_acc"], found["q_acc"]) == (want["aAcc"], want["qAcc"])
    assert found["f_acc"] == want["fAcc_official_skips_VS_figure0"]
    assert found["f_acc_all"] == want["fAcc_intern_all_figures"]
    drawn = [q for q in some.questions if q.file]
    right = {q.id: ("yes" if "yes" in said[q.id].lower() else "no") == q.label for q in drawn}
    pairs = {(q.subcategory, q.set_id, q.question_id) for q in drawn}
    both = [p for p in pairs if all(right[q.id] for q in drawn if (q.subcategory, q.set_id, q.question_id) == p)]
    assert found["vlmevalkit_a_acc"] == sum(right.values()) / len(drawn)
    assert found["vlmevalkit_q_acc"] == len(both) / len(pairs)
    assert found["vlmevalkit_average"] == pytest.approx(
        (found["vlmevalkit_a_acc"] + found["vlmevalkit_q_acc"] + found["vlmevalkit_f_acc"]) / 3
    )
