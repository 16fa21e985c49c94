"""Every rule against loops over whole matrices, on small traces with random numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.traces import layout, trace
from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.maps import HighNormToken, raw_attention
from vlmattn.sinks import (
    PUBLISHED,
    Observation,
    Rules,
    SinkCoordinates,
    attention_received,
    background_test,
    calibrated,
    candidates,
    image_centric_heads,
    massive_activations,
    massive_sinks,
    phi_of,
    published_coordinates,
    received_sinks,
    sink_roles,
    threshold,
    tower_overlap,
    with_sinks,
)
from vlmattn.trace import Trace
from vlmattn.trace.trace import Hidden

WIDTH, PROMPT = 16, 16
COORDS = (2, 7)


def hidden_of(states_lnd: np.ndarray, coords: tuple[int, ...] = COORDS, top: int = 3) -> Hidden:
    order = np.argsort(-np.abs(states_lnd), axis=-1, kind="stable")[..., :top]
    return Hidden(
        tuple(range(len(states_lnd))),
        np.sqrt((states_lnd**2).mean(-1)).astype(np.float32),
        np.abs(states_lnd).max(-1).astype(np.float32),
        np.abs(states_lnd).argmax(-1),
        coords,
        states_lnd[..., list(coords)].astype(np.float32),
        states_lnd.shape[-1],
        order,
        np.take_along_axis(states_lnd, order, -1).astype(np.float32),
        np.median(np.abs(states_lnd), axis=-1).astype(np.float32),
    )


def states(seed: int = 0, sinks: tuple[int, ...] = (0, 3), size: float = 50.0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(2, PROMPT, WIDTH))
    x[:, list(sinks), 7] = size
    return x


def full(seed: int = 0, **changes: Any) -> Trace:
    """Rows 8 … 19 on all 16 prompt columns; the rest of a row is on the answer."""
    rng = np.random.default_rng(seed)
    positions, columns = np.arange(8, 20), np.arange(PROMPT)
    values = rng.random((2, 2, 12, PROMPT)) * (columns <= positions[:, None])
    values /= values.sum(-1, keepdims=True) * 1.25
    tokens = layout()
    ids = tokens.segment_ids()[:PROMPT]
    masses = np.stack([values[..., ids == s].sum(-1) for s in range(len(tokens.segments()))], axis=-1)
    masses[..., -1] = 1 - masses.sum(-1)
    given = {"attn_lhqk": values.astype(np.float32), "columns": columns, "mass_lhqs": masses.astype(np.float32)}
    given |= {"hidden": hidden_of(states()), "value_norm_lhk": rng.random((2, 2, PROMPT)).astype(np.float32) + 0.1}
    return trace(**(given | changes))


WHERE = SinkCoordinates(COORDS, WIDTH, tau_relative=0.8)


def test_phi_is_the_largest_sink_coordinate_over_the_rms() -> None:
    x = states()
    phi = phi_of(hidden_of(x), COORDS)
    for layer in range(2):
        for token in range(PROMPT):
            rms = math.sqrt(sum(v * v for v in x[layer, token]) / WIDTH + 1e-6)
            assert phi[layer, token] == pytest.approx(max(abs(x[layer, token, c]) for c in COORDS) / rms, abs=1e-5)
    one_hot, constant = np.zeros((1, 1, 4096)), np.ones((1, 1, 4096))
    one_hot[..., 7] = 300.0
    assert phi_of(hidden_of(one_hot), (7,))[0, 0] == pytest.approx(64, rel=1e-4)
    assert phi_of(hidden_of(constant), (7,))[0, 0] == pytest.approx(1, rel=1e-4)


def test_massive_activations_are_told_by_token_layer_and_coordinate() -> None:
    x = states(size=300.0)
    found = massive_activations(hidden_of(x), absolute=100, times_median=50)
    assert [(m.layer, m.position, m.coordinate) for m in found] == [(0, 0, 7), (0, 3, 7), (1, 0, 7), (1, 3, 7)]
    assert found[0].times_median == pytest.approx(300 / np.median(np.abs(x[0, 0])), rel=1e-5)
    assert not massive_activations(hidden_of(x))
    with pytest.raises(MapError, match="hidden_top"):
        massive_activations(Hidden((0,), *[np.zeros((1, 1))] * 2, np.zeros((1, 1)), (), np.zeros((1, 1, 0))))


def test_sinks_their_kinds_and_what_they_take() -> None:
    run = full()
    found = massive_sinks(run, WHERE)
    assert [(t.position, t.kind, t.first) for t in found.tokens] == [(0, "text", True), (3, "visual", False)]
    assert (found.visual[0].tile, found.visual[0].row, found.visual[0].col) == (0, 1, 0)
    assert found.visual[0].box_xyxy == (0, 10, 20, 20)
    rows = run.attn_lhqk.mean(1)
    assert np.abs(found.visual_share_lq - rows[..., 3]).max() < 1e-6
    assert np.abs(found.text_share_lq - rows[..., 0]).max() < 1e-6
    assert np.abs(found.image_share_lq - rows[..., [2, 3, 4, 5, 7, 8]].sum(-1)).max() < 1e-6
    assert found.visual[0].share == pytest.approx(rows[..., 3].mean(), abs=1e-6)
    assert "patch tile 0 row 1 column 0 of picture 0" in str(found)
    assert found.to_dict()["tokens"][1]["box_xyxy"] == [0, 10, 20, 20]
    grid = found.patch_map(0).values[0]
    assert grid[1, 0] == pytest.approx(found.visual[0].score)


def test_columns_that_were_not_kept_have_no_share_but_the_first_token_has_its_mass() -> None:
    whole = full()
    picture = layout().image_positions
    run = full(attn_lhqk=whole.attn_lhqk[..., picture], columns=picture, value_norm_lhk=None)
    found = massive_sinks(run, WHERE)
    assert np.abs(found.text_share_lq - whole.attn_lhqk.mean(1)[..., 0]).max() < 1e-6
    other = massive_sinks(full(attn_lhqk=run.attn_lhqk, columns=picture, hidden=hidden_of(states(sinks=(3, 9)))), WHERE)
    assert np.isnan(other.text_share_lq).all()
    assert other.to_dict()["shares"][0]["text_sinks"] is None


def test_received_attention_of_kept_rows_and_of_the_whole_prompt() -> None:
    run = full()
    got = attention_received(run)
    rows = run.attn_lhqk.mean(1)
    for layer in range(2):
        for column in range(PROMPT):
            seeing = [rows[layer, q, column] for q in range(12) if run.positions[q] >= column]
            assert got[layer, column] == pytest.approx(sum(seeing) / len(seeing), abs=1e-6)
    received = np.random.default_rng(3).random((2, 2, PROMPT)).astype(np.float32)
    found = received_sinks(full(received_lhn=received), alpha=8.0)
    assert np.array_equal(found.is_sink_ln, received.mean(1) > 8.0 / PROMPT)
    later = received_sinks(full(received_lhn=received), alpha=8.0, least_rows=4)
    assert not later.is_sink_ln[:, -3:].any()
    assert np.array_equal(later.is_sink_ln[:, :-3], found.is_sink_ln[:, :-3])
    assert "kept rows only" in received_sinks(run).notes[0]


def test_maps_without_sinks_keep_the_pictures_share_and_maps_of_sinks_hold_nothing_else() -> None:
    run = full()
    found = massive_sinks(run, WHERE)
    dropped, only = with_sinks(run, found, "drop"), with_sinks(run, found, "only")
    picture = layout().image_positions
    for head in np.ndindex(2, 2, 12):
        row = run.attn_lhqk[head].astype(float)
        left = sum(row[j] for j in picture if j != 3)
        for j in range(PROMPT):
            want = 0 if j == 3 else row[j] * (left + row[3]) / left if j in picture else row[j]
            assert dropped.attn_lhqk[head][j] == pytest.approx(want, abs=1e-6)
            if j in picture:
                assert only.attn_lhqk[head][j] == pytest.approx(row[j] if j == 3 else 0, abs=1e-6)
    assert raw_attention(dropped, 0).total == pytest.approx(raw_attention(run, 0).total, abs=1e-5)
    assert "left out" in dropped.provenance.steps[-1]
    assert with_sinks(run, found, "keep") is run


def test_a_row_that_looks_at_nothing_but_sinks_becomes_empty() -> None:
    values = np.zeros((2, 2, 12, PROMPT), dtype=np.float32)
    values[..., 3] = 1
    run = full(attn_lhqk=values)
    assert with_sinks(run, massive_sinks(run, WHERE), "drop").attn_lhqk.sum() == 0


def test_layers_whose_attention_was_not_kept_have_sinks_but_no_shares() -> None:
    run = full()
    part = full(attn_lhqk=run.attn_lhqk[:1], mass_lhqs=run.mass_lhqs[:1], layers=(0,), heads=((0, 1),),
                value_norm_lhk=None)  # fmt: skip
    found = massive_sinks(part, WHERE)
    assert (found.layers, found.notes) == ((0, 1), ())
    assert np.isnan(found.visual_share_lq[1]).all()
    assert found.visual[0].share == pytest.approx(float(run.attn_lhqk[0, ..., 3].mean()), abs=1e-6)


def test_no_sinks_is_said_and_changes_nothing() -> None:
    run = full(hidden=None)
    none = SinkCoordinates((), WIDTH, source="calibrated on 8 held-out prompts", confidence=0.7)
    found = massive_sinks(run, none)
    assert not found.found
    assert "no sinks found" in str(found)
    assert found.patch_map().is_flat
    same = with_sinks(run, found, "drop")
    assert np.array_equal(same.attn_lhqk, run.attn_lhqk)
    assert "no visual sinks to leave out" in same.provenance.steps[-1]


def test_image_centric_heads_by_hand() -> None:
    run = full()
    found = massive_sinks(run, WHERE, layers=[1])
    chosen = image_centric_heads(run, found, least_mass=0.3, rho=0.85)
    picture = layout().image_positions
    for layer, head, row in np.ndindex(2, 2, 12):
        values = run.attn_lhqk[layer, head, row]
        mass = values[picture].sum()
        want = layer == 1 and mass >= 0.3 and 1 - values[3] / mass >= 0.85
        assert chosen[layer, head, row] == want
    assert chosen.any()
    assert not chosen[1].all()
    with pytest.raises(SpecError, match="rho"):
        image_centric_heads(run, found, rho=1.5)


def test_roles_by_hand() -> None:
    run = full(positions=np.arange(8, 20))
    roles = sink_roles(run, massive_sinks(run, WHERE))
    for layer in range(2):
        first, text, visual = roles[3 * layer : 3 * layer + 3]
        norms, rows = run.value_norm_lhk[layer].astype(float), run.attn_lhqk[layer].astype(float)
        others = [j for j in range(PROMPT) if j not in (0, 3)]
        parts, ratios, mixed = [], [], []
        for head in range(2):
            ratios.append(norms[head, 3] / np.median(norms[head, others]))
            for q in range(12):
                written = rows[head, q] * norms[head]
                parts.append(written[3] / written.sum())
                mixed.append(sum(written[j] for j in others if j != run.positions[q]) / written.sum())
        assert visual.value_ratio == pytest.approx(np.mean(ratios))
        assert visual.contribution == pytest.approx(np.mean(parts))
        assert visual.attention == pytest.approx(rows[..., 3].mean())
        assert visual.mixing == pytest.approx(np.mean(mixed))
        assert first.attention == pytest.approx(rows[..., 0].mean())
        assert text.tokens == 0
        assert np.isnan(text.value_ratio)
    apart = np.ones((2, 12, PROMPT), dtype=bool)
    apart[1, :, :2] = False  # no keys of the second layer
    unseen = sink_roles(full(visible_lqk=apart), massive_sinks(run, WHERE))[3]
    assert (unseen.group, unseen.tokens, roles[3].tokens) == ("first", 0, 1)
    assert np.isnan(unseen.value_ratio)
    with pytest.raises(MapError, match="value norms"):
        sink_roles(full(value_norm_lhk=None), massive_sinks(run, WHERE))


def test_sinks_on_the_background() -> None:
    found = massive_sinks(full(), WHERE)
    off = background_test(found, [(0.0, 10.0, 20.0, 20.0)])
    assert (off.sinks, off.on_background, off.patches) == (1, 0, 6)
    assert off.p_value == 1.0
    on = background_test(found, [(20.0, 0.0, 40.0, 20.0)])
    assert (on.on_background, on.background, on.share) == (1, 3, 1.0)
    assert on.p_value == pytest.approx(0.5)
    with pytest.raises(SpecError, match="picture 3"):
        background_test(found, [], image=3)


def test_marks_of_the_tower_and_sinks_of_the_language_model_are_told_apart() -> None:
    found = massive_sinks(full(), WHERE)
    marks = [
        HighNormToken(9.0, 4.0, 0, 1, 0, 1, 0),
        HighNormToken(8.0, 3.0, 0, 2, 1, 0, 1),
        HighNormToken(7.0, 3.0, 0, 5),
    ]
    overlap = tower_overlap(found, marks)
    assert (overlap.both, overlap.tower_only, overlap.language_only) == (((0, 1, 0),), ((1, 0, 1),), ())


# -- calibration -------------------------------------------------------------------------------------------------------


def observation(seed: int, received: float | None = 0.5, **options: Any) -> Observation:
    # Coordinate 5 is large in every token, as some are in every trained model.
    x = states(seed, **options)
    x[..., 5] = 9
    got = None if received is None else np.full((2, PROMPT), 0.02, dtype=np.float32)
    if got is not None:
        got[:, [0, 3]] = received
    return Observation(hidden_of(x, coords=(2, 5, 7), top=6), 0, got)


RULES = Rules(few=0.2, large=0.5)


def test_a_calibration_finds_what_few_tokens_have_and_not_what_all_have() -> None:
    seen = [observation(seed) for seed in range(8)]
    assert 7 in candidates(seen[:3], RULES)
    assert 5 not in candidates(seen[:3], RULES)
    found = calibrated(seen, (2, 5, 7), model="tiny", rules=RULES)
    assert found.coordinates == (7,)
    assert found.confidence == pytest.approx(0.676, abs=1e-3)
    assert found.first_layer == 0
    assert massive_sinks(full(), found).is_sink_ln[:, [0, 3]].all()


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ([observation(s, received=0.02) for s in range(8)], "0 of 8 prompts, its tokens receive 1 times"),
        ([observation(s, size=1.0) for s in range(8)], "not large in few tokens"),
        ([observation(s, size=50.0 if s < 5 else 1.0) for s in range(8)], "5 of 8"),
        ([observation(s, sinks=(0, 1, 2, 3, 4, 5, 6)) for s in range(8)], "0 of 8"),
    ],
    ids=["draws nothing", "not massive", "not every time", "in many tokens"],
)
def test_a_calibration_says_that_there_are_none_and_why(seen: list[Observation], why: str) -> None:
    found = calibrated(seen, (7,), rules=RULES)
    assert not found.found
    assert why in str(found)
    assert found.confidence is not None


def test_what_is_large_for_a_narrow_model_only_is_not_massive() -> None:
    # Ten times the median of its token is more than half the root of a width of 16, and nothing massive.
    seen = [observation(s, size=9.0) for s in range(8)]
    for one in seen:
        one.hidden.coord_lnc[:, [n for n in range(PROMPT) if n not in (0, 3)], 2] = 0.5
    assert calibrated(seen, (7,), rules=replace(RULES, median=1.0)).coordinates == (7,)
    assert not calibrated(seen, (7,), rules=RULES).found
    assert 7 in candidates(seen, replace(RULES, median=1.0))
    assert 7 not in candidates(seen, RULES)


def test_unknown_attention_is_no_ground_to_refuse_a_coordinate() -> None:
    found = calibrated([observation(s, received=None) for s in range(8)], (7,), rules=RULES)
    assert found.coordinates == (7,)
    assert "attention not known" in found.notes[0]


def test_coordinates_are_saved_and_loaded(tmp_path: Path) -> None:
    found = calibrated([observation(s) for s in range(8)], (7,), model="tiny", rules=RULES)
    assert SinkCoordinates.load(found.save(tmp_path / "sinks.json")) == found
    for text in ("", "{}", '{"kind": "vlmattn sink coordinates", "format": 1}', "[1]"):
        (tmp_path / "bad.json").write_text(text, encoding="utf-8")
        with pytest.raises(FileError, match=r"bad\.json"):
            SinkCoordinates.load(tmp_path / "bad.json")
    with pytest.raises(FileError, match="none"):
        SinkCoordinates.load(tmp_path / "none.json")


def test_published_coordinates_belong_to_checkpoints_of_a_name_and_a_size() -> None:
    found = published_coordinates("llava-hf/llava-1.5-13b-hf", 5120, 40)
    assert found is not None
    assert found.coordinates == (2100, 4743)
    assert found.tau == pytest.approx(0.3125 * math.sqrt(5120))
    assert published_coordinates("llava-hf/llava-1.5-13b-hf", 64, 3) is None
    assert published_coordinates("me/another", 4096, 32) is None
    assert all(c < one.width for one in PUBLISHED.values() for c in one.coordinates)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SinkCoordinates((16,), 16), "0 to width - 1"),
        (lambda: SinkCoordinates((1,), 16, tau_relative=1.5), "between 0 and 1"),
        (lambda: threshold(WHERE, tau=20.0), "at most the root of the width, 4"),
        (lambda: threshold(WHERE, tau=1.0, tau_relative=0.1), "not both"),
        (lambda: threshold(WHERE, tau_relative=0.0), "threshold of"),
        (lambda: massive_sinks(full(), WHERE, layers=[5]), "not kept"),
        (lambda: massive_sinks(full(), SinkCoordinates((3,), WIDTH, first_layer=7)), "begin at layer 7"),
        (lambda: threshold(WHERE, tau="3"), "tau must be a number"),
        (lambda: received_sinks(full(), alpha=0), "alpha"),
        (lambda: received_sinks(full(), alpha="5"), "alpha"),
        (lambda: received_sinks(full(), least_rows=0), "least_rows"),
        (lambda: received_sinks(full(), least_rows=1.5), "least_rows"),
        (lambda: background_test(massive_sinks(full(), WHERE), [], covered=1.0), "covered"),
        (lambda: Rules(large="much"), "large"),
        (lambda: calibrated([], (1,)), "at least one"),
        (lambda: Rules(few=0), "few"),
        (lambda: Rules(gap=0.5), "gap"),
        (lambda: Rules(median=0.5), "median"),
        (lambda: with_sinks(full(), massive_sinks(full(), WHERE), "some"), "keep, drop, only"),
    ],
)
def test_what_cannot_be_is_told(call: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        call()


def test_sinks_of_another_prompt_and_states_that_were_not_kept_are_refused() -> None:
    run = full()
    with pytest.raises(MapError, match="hidden_coords"):
        massive_sinks(run, SinkCoordinates((3,), WIDTH))
    with pytest.raises(MapError, match="hidden=True"):
        massive_sinks(full(hidden=None), WHERE)
    tokens = layout()
    other = full(layout=type(tokens)(**{**vars(tokens), "input_ids": tokens.input_ids + 1}))
    with pytest.raises(MapError, match="another prompt"):
        with_sinks(other, massive_sinks(run, WHERE), "drop")
