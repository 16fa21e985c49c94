"""Scores of heads on arrays, beside plain computations and by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from vlmattn.core.errors import SpecError
from vlmattn.heads import (
    Looked,
    best_offset,
    bootstrap_interval,
    choose_by_pointing,
    copy_hits,
    copy_score,
    elbow,
    gradient_importance,
    head_divergence,
    image_mass,
    induction_score,
    kept_heads,
    localization_heads,
    normalised_entropy,
    offset_score,
    pointing,
    pointing_hits,
    previous_token_score,
    spatial_entropy,
    token_divergence,
    vision_aware,
    visual_head_score,
    votes,
    without_outliers,
)
from vlmattn.heads.localization import bottom_row, first_layer


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- visual heads ------------------------------------------------------------------------------------------------------


def test_visual_score_is_mass_times_what_entropy_leaves() -> None:
    attn = rng().dirichlet(np.ones(9), size=(3, 2))[..., :7]
    for place in np.ndindex(3, 2):
        row = attn[place]
        share = row / row.sum()
        want = row.sum() * (1 + sum(p * math.log(p) for p in share) / math.log(7))
        assert visual_head_score(attn)[place] == pytest.approx(want, abs=1e-12)
        assert image_mass(attn)[place] == pytest.approx(row.sum())


def test_visual_score_at_its_ends() -> None:
    assert visual_head_score(np.full(16, 1 / 16)) == pytest.approx(0, abs=1e-12)
    assert visual_head_score(np.zeros(4)) == 0
    assert np.isnan(normalised_entropy(np.zeros(4)))
    assert visual_head_score(np.array([0.25])) == 0.25  # one patch: nothing to spread over
    assert np.isnan(visual_head_score(np.full(3, np.nan)))
    with pytest.raises(SpecError, match="not below 0"):
        image_mass(np.array([-0.1, 0.2]))


# -- localization heads ------------------------------------------------------------------------------------------------


def flood(grid: np.ndarray) -> list[list[tuple[int, int]]]:
    """Parts of a map above its mean, by a search over the eight neighbours."""
    left = {(int(r), int(c)) for r, c in np.argwhere(grid > grid.mean())}
    parts = []
    while left:
        part, todo = [], [left.pop()]
        while todo:
            r, c = todo.pop()
            part.append((r, c))
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            todo += near
        parts.append(part)
    return parts


@pytest.mark.parametrize("seed", range(6))
def test_spatial_entropy_counts_parts_of_eight_neighbours(seed: int) -> None:
    grid = rng(seed).random((6, 7))
    for variant in ("paper", "code"):
        weights = [sum(1 if variant == "paper" else grid[p] - grid.mean() for p in part) for part in flood(grid)]
        shares = np.array(weights) / sum(weights)
        assert spatial_entropy([grid], variant=variant) == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-9)


def test_diagonal_neighbours_are_one_part_and_tiles_are_apart() -> None:
    assert spatial_entropy([np.eye(3)]) == 0
    one = np.array([[0.0, 1.0]])
    assert spatial_entropy([one, one[:, ::-1]]) == pytest.approx(math.log(2))
    assert np.isnan(spatial_entropy([np.ones((2, 2))]))
    with pytest.raises(SpecError, match="one grid"):
        spatial_entropy([np.ones(3)])


def test_the_elbow_does_not_depend_on_the_order_of_heads() -> None:
    values = np.concatenate([np.linspace(0.9, 0.7, 5), np.linspace(0.06, 0.0, 30)])
    for variant in ("paper", "code"):
        found = {elbow(rng(n).permutation(values), variant=variant) for n in range(5)}
        assert len(found) == 1
        assert found.pop() <= 0.7
    assert elbow(values, variant="code") == 0.06


def test_the_elbow_is_where_curvature_is_highest() -> None:
    values = np.sort(rng(3).random(20))[::-1]
    y = (values - values[-1]) / (values[0] - values[-1])
    step = 1 / 19
    best, where = -1.0, 0
    slopes = [(y[1] - y[0]) / step, *[(y[i + 1] - y[i - 1]) / (2 * step) for i in range(1, 19)], (y[19] - y[18]) / step]
    for i in range(1, 19):
        second = (slopes[i + 1] - slopes[i - 1]) / (2 * step)
        bend = abs(second) / (1 + slopes[i] ** 2) ** 1.5
        if bend > best:
            best, where = bend, i
    assert elbow(values) == values[where]


@pytest.mark.parametrize(("values", "want"), [([0.3], 0.3), ([0.5, 0.2], 0.2), ([0.4] * 5, 0.4), ([0.1, np.nan], 0.1)])
def test_too_few_or_equal_values_keep_every_head(values: list[float], want: float) -> None:
    assert elbow(np.array(values)) == want
    with pytest.raises(SpecError, match="at least one"):
        elbow(np.array([np.nan]))
    with pytest.raises(SpecError, match="variant"):
        elbow(np.array([1.0]), variant="fork")  # type: ignore[arg-type]


def test_votes_go_to_the_lowest_entropies_of_kept_heads() -> None:
    entropy = rng(1).random((8, 3, 4))
    kept = rng(2).random((3, 4)) < 0.6
    found = votes(entropy, kept, per_sample=3)
    for sample in range(8):
        ranked = sorted((entropy[sample][p], p) for p in np.ndindex(3, 4) if kept[p])
        assert {p for _, p in ranked[:3]} == {(int(a), int(b)) for a, b in np.argwhere(found[sample])}
    entropy[0] = np.nan
    assert not votes(entropy, kept)[0].any()
    assert votes(entropy[1:], np.ones((3, 4), dtype=bool)).sum(axis=(1, 2)).tolist() == [6] * 7  # half of twelve


def test_localization_heads_are_those_with_most_votes() -> None:
    mass = np.tile(np.linspace(0.02, 0.0, 16).reshape(4, 4), (10, 1, 1))
    entropy = np.full((10, 4, 4), 2.0)
    mass[:, [1, 2], 0], mass[:, 3, 3], mass[:, 0, 0] = 0.8, 0.7, 0.9
    entropy[:, 1, 0], entropy[:6, 2, 0], entropy[6:, 3, 3], entropy[:, 0, 0] = 0.1, 0.2, 0.2, 0.0
    assert localization_heads(mass, entropy, k=2, start=1)[0] == (1, 0)
    assert 3 <= kept_heads(mass[0], start=1)[0].sum() <= 5  # of 12; the foot of the bend belongs to it
    assert (0, 0) not in localization_heads(mass, entropy, start=1)
    assert localization_heads(mass, entropy, k=3, start=1, per_sample=1) == ((1, 0),)
    with pytest.raises(SpecError, match="one shape"):
        localization_heads(mass[:0], entropy[:0])


def test_the_first_two_of_32_layers_are_left_out_in_proportion() -> None:
    assert [first_layer(depth) for depth in (1, 4, 16, 32, 80)] == [0, 0, 1, 2, 5]
    assert bottom_row([np.array([[0.1, 0.2], [0.3, 0.4]])]) == pytest.approx(0.7)


# -- divergence --------------------------------------------------------------------------------------------------------


def test_divergence_is_the_plain_norm() -> None:
    a, b = rng().normal(size=(2, 3, 4, 5))
    for place in np.ndindex(3, 4):
        want = math.sqrt(sum((x - y) ** 2 for x, y in zip(a[place], b[place], strict=True)))
        assert head_divergence(a, b)[place] == pytest.approx(want)
    with pytest.raises(SpecError, match="one shape"):
        head_divergence(a, b[:1])


def test_outliers_are_high_in_both_and_in_their_own_layer() -> None:
    vhd = np.array([[1.0, 1, 1, 9], [1, 1, 9, 1], [1, 1, 1, 9]])
    energy = np.array([[1.0, 1, 1, 9], [9, 1, 1, 1], [1, 1, 1, 1]])
    cleaned = without_outliers(vhd, energy)
    assert cleaned[0].tolist() == [1, 1, 1, 0]
    assert (cleaned[1:] == vhd[1:]).all()
    assert np.isnan(without_outliers(np.array([[1.0, np.nan]]), np.array([[1.0, np.nan]]))[0, 1])


def test_token_divergence_sums_the_highest_of_each_layer() -> None:
    vhd = np.array([[1.0, 4, 3], [2, 0, 7]])
    assert token_divergence(vhd, k=2) == 4 + 3 + 7 + 2
    assert token_divergence(vhd, k=9) == vhd.sum()
    assert vision_aware(vhd).tolist() == [[False, True, False], [False, False, True]]
    with pytest.raises(SpecError, match="k >= 1"):
        token_divergence(vhd, k=0)


# -- copying, patterns, importance -------------------------------------------------------------------------------------


def test_copy_scores_count_tokens_whose_highest_patch_holds_them() -> None:
    attn, holds = rng().random((2, 3, 5, 6)), rng(1).random((5, 6)) < 0.4
    hits = copy_hits(attn, holds)
    for layer, head, token in np.ndindex(2, 3, 5):
        assert hits[layer, head, token] == holds[token, attn[layer, head, token].argmax()]
    both = copy_score([hits, hits[..., :2]])
    assert both[0, 0] == pytest.approx((hits[0, 0].sum() + hits[0, 0, :2].sum()) / 7)
    assert not copy_hits(np.zeros((1, 1, 1, 2)), np.array([[True, False]])).any()
    with pytest.raises(SpecError, match="no copied token"):
        copy_score([hits[..., :0]])


def test_patterns_read_their_diagonals() -> None:
    attn = rng().dirichlet(np.ones(9), size=(2, 9))
    assert previous_token_score(attn)[1] == pytest.approx(np.mean([attn[1, q, q - 1] for q in range(1, 9)]))
    assert offset_score(attn, 3)[0] == pytest.approx(np.mean([attn[0, q, q - 3] for q in range(3, 9)]))
    score, which = best_offset(attn, (2, 3, 20))
    assert score[0] == max(offset_score(attn, 2)[0], offset_score(attn, 3)[0])
    assert which[0] in (2, 3)
    # token 0 begins, then 4 tokens twice: row 5 repeats token 1, after which token 2 came.
    assert induction_score(attn, 4, start=1)[0] == pytest.approx(np.mean([attn[0, q, q - 3] for q in range(5, 9)]))
    for wrong in (
        lambda: offset_score(attn, 9),
        lambda: induction_score(attn, 9),
        lambda: offset_score(attn[:, :3], 1),
    ):
        with pytest.raises(SpecError):
            wrong()


def test_gradient_importance_sums_before_it_takes_the_size() -> None:
    output, slope = rng().normal(size=(2, 4, 3, 5))
    for head in range(3):
        assert gradient_importance(output, slope)[head] == pytest.approx(abs((output * slope)[:, head].sum()))


def test_intervals_are_seeded_hold_the_mean_and_leave_nan_out() -> None:
    values = rng().normal(size=(40, 2, 3))
    values[:10, 0, 0] = np.nan
    values[:, 1, 2] = np.nan
    low, high = bootstrap_interval(values, rng(5))
    again = bootstrap_interval(values, rng(5))
    assert np.array_equal(low, again[0], equal_nan=True)
    mean = np.nanmean(values[..., 0], axis=0)
    assert (low[..., 0] < mean).all()
    assert (mean < high[..., 0]).all()
    assert np.isnan([low[1, 2], high[1, 2]]).all()
    spread = high[0, 1] - low[0, 1]
    assert spread == pytest.approx(2 * 1.96 * values[:, 0, 1].std() / math.sqrt(40), rel=0.15)
    with pytest.raises(SpecError, match="N >= 1"):
        bootstrap_interval(values[:0], rng())


# -- pointing ----------------------------------------------------------------------------------------------------------


def looked(seed: int, kind: str = "") -> Looked:
    draw = rng(seed)
    return Looked(draw.random((2, 3, 6)), draw.random(6) < 0.4, kind)


def test_heads_are_added_while_pointing_rises() -> None:
    found = [looked(seed, "ab"[seed % 2]) for seed in range(12)]
    chosen = choose_by_pointing(found, most=4)
    shares = [np.mean(list(pointing(found, chosen[:n]).values())) for n in range(1, len(chosen) + 1)]
    assert all(b > a for a, b in pairwise(shares))
    single = {h: np.mean(list(pointing(found, [h]).values())) for h in np.ndindex(2, 3)}
    assert single[chosen[0]] == max(single.values())
    every = [np.mean(list(pointing(found, [*chosen, h]).values())) for h in np.ndindex(2, 3) if h not in chosen]
    assert len(chosen) == 4 or max(every) <= shares[-1]


def test_hits_and_all_heads_by_plain_loops() -> None:
    one = looked(3)
    hits = pointing_hits(one.attn_lhk, one.touched_k)
    assert all(hits[p] == one.touched_k[one.attn_lhk[p].argmax()] for p in np.ndindex(2, 3))
    assert pointing([one])[""] == one.touched_k[one.attn_lhk.sum((0, 1)).argmax()]
    nothing = Looked(np.zeros((1, 1, 2)), np.array([True, True]))
    assert pointing([nothing], [(0, 0)]) == {"": 0.0}
    for wrong in ([], [one]):
        with pytest.raises(SpecError):
            choose_by_pointing(wrong, most=0)
    call: Any = pointing
    with pytest.raises(SpecError, match="at least one head"):
        call([one], [])
