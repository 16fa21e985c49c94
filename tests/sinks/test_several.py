"""Several pictures, layers with windows, and each rule of a calibration by itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.sinks.test_rules import COORDS, PROMPT, WHERE, WIDTH, full, hidden_of, states
from tests.traces import layout
from vlmattn.core.layout import ImageLayout
from vlmattn.sinks import (
    Observation,
    Rules,
    attention_received,
    background_test,
    calibrated,
    candidates,
    massive_sinks,
    phi_of,
    tower_overlap,
    with_sinks,
)
from vlmattn.trace import Trace

RULES = Rules(few=0.2, large=0.5)


def two_pictures(**changes: Any) -> Trace:
    """The tiles of the usual layout as pictures of their own: tokens 2-5 and 7-8."""
    tokens = layout()
    (picture,) = tokens.images
    image, tile = tokens.image.copy(), tokens.tile.copy()
    image[7:9], tile[7:9] = 1, 0
    images = tuple(ImageLayout(picture.image_wh, (one,)) for one in picture.tiles)
    told = type(tokens)(**{**vars(tokens), "image": image, "tile": tile, "images": images})
    run = full()
    masses = np.concatenate([run.mass_lhqs[..., :3], np.zeros_like(run.mass_lhqs[..., :1]), run.mass_lhqs[..., 3:]], -1)
    return full(layout=told, mass_lhqs=masses, segments=told.segments(), **changes)


def test_every_picture_keeps_its_own_share_without_sinks() -> None:
    run = two_pictures()
    dropped = with_sinks(run, massive_sinks(run, WHERE), "drop").attn_lhqk
    assert np.array_equal(dropped[..., [7, 8]], run.attn_lhqk[..., [7, 8]])
    assert dropped[..., 2:6].sum(-1) == pytest.approx(run.attn_lhqk[..., 2:6].sum(-1), rel=1e-5)
    assert not dropped[..., 3].any()


def test_sinks_of_a_picture_are_those_on_it() -> None:
    run = two_pictures(hidden=hidden_of(states(sinks=(3, 8))))
    found = massive_sinks(run, WHERE)
    assert [(t.image, t.row, t.col) for t in found.visual] == [(0, 1, 0), (1, 0, 1)]
    for image, patches in enumerate((4, 2)):
        test = background_test(found, [], image=image)
        assert (test.sinks, test.patches) == (1, patches)
    assert tower_overlap(found, [], image=1).language_only == ((0, 0, 1),)
    assert found.patch_map(1).values[0].shape == (1, 2)


def test_a_patch_that_is_half_covered_lies_on_the_background() -> None:
    found = massive_sinks(full(), WHERE)
    assert background_test(found, [(0.0, 10.0, 10.0, 20.0)]).on_background == 1
    assert background_test(found, [(0.0, 10.0, 11.0, 20.0)]).on_background == 0


def test_received_attention_is_that_of_rows_that_can_see_a_token() -> None:
    run = full()
    seen = np.broadcast_to(run.columns[None] <= run.positions[:, None], (2, 12, PROMPT)).copy()
    seen[1] &= run.positions[:, None] - run.columns[None] < 4
    values = run.attn_lhqk * seen[:, None]
    got = attention_received(full(attn_lhqk=values, visible_lqk=seen))
    for layer, column in np.ndindex(2, PROMPT):
        rows = [values[layer, :, q, column].mean() for q in range(12) if seen[layer, q, column]]
        want = sum(rows) / len(rows) if rows else math.nan
        assert got[layer, column] == pytest.approx(want, abs=1e-6, nan_ok=True)
    assert np.isnan(got[1, :5]).all()


# -- calibration, rule by rule -----------------------------------------------------------------------------------------


def seen(seed: int, layers: tuple[int, ...] = (0, 1, 2, 3), **other: Any) -> Observation:
    """Four layers; coordinate 7 of tokens 0 and 3 is massive in ``layers``, 5 is large in every token."""
    x = np.random.default_rng(seed).normal(size=(4, PROMPT, WIDTH))
    x[..., 5], x[..., 7] = 9, 0
    for layer in layers:
        x[layer, [0, 3], 7] = 50
    x[:, 9, 7] = other.get("near", 0)
    return Observation(hidden_of(x, coords=COORDS, top=4))


def test_other_tokens_must_be_far_below() -> None:
    near = [seen(seed, near=4.25) for seed in range(6)]  # phi of 1.6, against 3.9
    assert calibrated(near, (7,), rules=Rules(few=0.2, large=0.5, gap=2)).found
    refused = calibrated(near, (7,), rules=Rules(few=0.2, large=0.5, gap=3))
    assert not refused.found
    assert "holds in 0 of 6" in refused.notes[0]


def test_sinks_begin_with_the_first_layer_of_any_prompt() -> None:
    both = [seen(seed, layers=(1, 2, 3) if seed % 2 else (2, 3)) for seed in range(6)]
    assert calibrated(both, (7,), rules=RULES).first_layer == 1


@pytest.mark.parametrize(("layers", "holds"), [((0,), False), ((0, 1), True), ((3,), True), ((1, 3), True)])
def test_a_coordinate_must_hold_in_most_layers_from_its_first_on(layers: tuple[int, ...], holds: bool) -> None:
    prompts = [seen(seed, layers=layers) for seed in range(6)]
    assert (7 in candidates(prompts, RULES)) == holds
    assert calibrated(prompts, (7,), rules=RULES).found == holds


@pytest.mark.parametrize(("having", "proposed"), [(1, False), (2, True)])
def test_a_candidate_shows_in_half_of_the_prompts(having: int, proposed: bool) -> None:
    prompts = [seen(seed, layers=(0, 1, 2, 3) if seed < having else ()) for seed in range(4)]
    assert (7 in candidates(prompts, RULES)) == proposed


def test_the_threshold_lies_half_way_between_the_weakest_sink_and_the_strongest_other_token() -> None:
    prompts = [seen(seed, near=4.25) for seed in range(6)]
    found = calibrated(prompts, (7,), rules=RULES)
    sizes = np.stack([phi_of(one.hidden, (7,)) for one in prompts])
    weakest, strongest = sizes[..., [0, 3]].min(), np.delete(sizes, [0, 3], axis=-1).max()
    assert found.tau == pytest.approx(math.sqrt(weakest * strongest), rel=1e-5)
    assert strongest < found.tau < weakest
