"""Intervals and tests against their definitions, and against what other programs print."""

from __future__ import annotations

import doctest
import gzip
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlmattn.evaluate.statistics as st
from vlmattn.core.errors import SpecError


@pytest.fixture
def folder(golden: Path) -> Path:
    return golden / "hallucination"


def counts(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[len(r["hallucinated"]), len(r["generated_nodes"])] for r in rows], dtype=float)


def test_vectors(folder: Path) -> None:
    held = json.loads((folder / "stats/stats_vectors.json").read_text())
    c, m, w = held["clustered"], held["mcnemar"], held["wilson"]
    assert st.standard_error(c["scores"]) == c["clt_se_ddof1"]
    assert st.standard_error(c["scores"], c["clusters"], few_clusters=False) == c["lmms_eval_clustered_se"]
    assert st.standard_error(c["scores"], c["clusters"]) == c["inspect_ai_clustered_se"]
    found = st.mcnemar(m["a"], m["b"])
    assert (found.only_a, found.only_b, found.p, found.mid_p) == (6, 1, m["exact_two_sided_binomial_p"], m["mid_p"])
    assert (found.chi2, found.chi2_corrected) == (m["chi2_no_correction"], m["chi2_edwards_cc"])
    a, b = (np.array([[x, 1.0] for x in m[name]]) for name in "ab")
    assert st.permutation_test(a, b, st.ratio, draws=2**20) == m["exact_sign_flip_p_two_sided"]
    one = st.wilson(w["k"], w["n"])
    assert [one.low, one.high] == w["wilson95"]


def test_opera_against_greedy(folder: Path) -> None:
    want = json.loads((folder / "stats/chair_paired_greedy_vs_opera.json").read_text())
    rows = json.loads(gzip.decompress((folder / "chair/expected_per_caption.json.gz").read_bytes()))
    greedy, opera = rows["greedy/nltk_pos_lemma"], rows["ours/nltk_pos_lemma"]
    for name, own in (("greedy", greedy), ("ours", opera)):
        found = st.bootstrap(counts(own), st.ratio)
        assert found.value == want[name]["CHAIRi"]
        assert [found.low, found.high] == want[name]["CHAIRi_boot95_image_level"]
    gap = st.paired_bootstrap(counts(greedy), counts(opera), st.ratio)
    assert [gap.low, gap.high] == want["paired_boot95_CHAIRi_diff_greedy_minus_opera"]
    a, b = ([bool(r["hallucinated"]) for r in own] for own in (greedy, opera))
    assert st.mcnemar(a, b).p == want["mcnemar_exact_p"]


def test_pictures_are_drawn_whole() -> None:
    # Six equal answers a picture carry no more than one: the interval is that of the pictures alone.
    one = np.array([[float(i % 3 > 0), 1.0] for i in range(60)])
    six = np.repeat(one, 6, axis=0)
    alone = st.bootstrap(one, st.ratio, seed=3)
    together = st.bootstrap(six, st.ratio, clusters=[i // 6 for i in range(360)], seed=3)
    assert (together.low, together.high) == (alone.low, alone.high)
    careless = st.bootstrap(six, st.ratio, seed=3)
    assert careless.high - careless.low < 0.6 * (alone.high - alone.low)


def test_same_seed_same_numbers() -> None:
    table = np.random.default_rng(1).random((50, 2)) + 0.1
    assert st.bootstrap(table, st.ratio, seed=5) == st.bootstrap(table, st.ratio, seed=5)
    assert st.bootstrap(table, st.ratio, seed=5) != st.bootstrap(table, st.ratio, seed=6)


def test_exact_permutation_is_every_exchange() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 5, (7, 2)) + 1.0, rng.integers(0, 5, (7, 2)) + 1.0
    seen = abs(a[:, 0].sum() / a[:, 1].sum() - b[:, 0].sum() / b[:, 1].sum())
    far = 0
    for swap in itertools.product((False, True), repeat=7):
        mask = np.array(swap)[:, None]
        x, y = np.where(mask, b, a).sum(axis=0), np.where(mask, a, b).sum(axis=0)
        far += abs(x[0] / x[1] - y[0] / y[1]) >= seen - 1e-12
    assert st.permutation_test(a, b, st.ratio) == far / 128


def test_auroc_is_the_share_of_pairs() -> None:
    rng = np.random.default_rng(4)
    scores, labels = rng.integers(0, 6, 40).astype(float), rng.integers(0, 2, 40)
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
    assert st.auroc(scores.tolist(), labels.tolist()) == pytest.approx(np.mean(pairs))
    assert np.isnan(st.auroc([1.0], [1]))


def test_ten_thousand_draws_of_nine_thousand_answers_are_fast() -> None:
    table = np.ones((9000, 2))
    start = time.process_time()
    st.bootstrap(table, st.ratio, clusters=[i // 6 % 500 for i in range(9000)])
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: st.mcnemar([1, 0], [1]), "same items"),
        (lambda: st.mcnemar([], []), "not empty"),
        (lambda: st.mcnemar([0.5], [1]), "zeros and ones"),
        (lambda: st.bootstrap([[1.0, 2.0]], st.ratio, draws=0), "draws must be"),
        (lambda: st.bootstrap([[np.nan, 2.0]], st.ratio), "finite"),
        (lambda: st.bootstrap([[1.0, 2.0]], st.ratio, clusters=["a", "b"]), "as many clusters"),
        (lambda: st.bootstrap([], st.ratio), "not empty"),
        (lambda: st.wilson(3, 2), "not possible"),
        (lambda: st.holm([0.5, 2.0]), "lie in"),
        (lambda: st.standard_error([1.0]), "at least two"),
        (lambda: st.auroc([np.inf, 1.0], [0, 1]), "finite"),
    ],
)
def test_bad_input(call: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        call()


def test_examples() -> None:
    result = doctest.testmod(st)
    assert result.attempted > 0
    assert result.failed == 0
