"""What sinks say where there is little to say: no sinks, flat rows, unknown attention, other prompts, bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sinks.test_rules import COORDS, PROMPT, RULES, WHERE, WIDTH, full, hidden_of, observation, states
from tests.traces import layout
from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.sinks import (
    Observation,
    SinkCoordinates,
    background_test,
    calibrated,
    image_centric_heads,
    massive_sinks,
    received_sinks,
    sink_roles,
    tower_overlap,
    with_sinks,
)

NONE = SinkCoordinates((), WIDTH, source="calibrated on 8 held-out prompts", confidence=0.7)


def other_prompt() -> Any:
    tokens = layout()
    return full(layout=type(tokens)(**{**vars(tokens), "input_ids": tokens.input_ids + 1}))


def test_layers_are_those_asked_for_where_there_are_no_sinks_too() -> None:
    found = massive_sinks(full(), NONE, layers=[1])
    assert found.layers == (1,)
    assert found.score_ln.shape == (1, PROMPT)
    with pytest.raises(SpecError, match="not kept"):
        massive_sinks(full(), NONE, layers=[5])


def test_layers_without_attention_are_told_and_those_not_asked_for_are_not() -> None:
    assert not massive_sinks(full(), WHERE, layers=[0]).notes
    assert not received_sinks(full(received_lhn=np.ones((2, 2, PROMPT))), layers=[0]).notes
    deeper = massive_sinks(full(depth=4), WHERE)
    assert "layers [2, 3] were not looked at" in deeper.notes[0]


def test_a_share_that_no_token_can_receive_is_refused() -> None:
    with pytest.raises(SpecError, match="below 16, the number of tokens"):
        received_sinks(full(), alpha=16.0)
    assert received_sinks(full(), alpha=15.0).cut_l == pytest.approx([15 / 16] * 2)


def test_rows_that_give_other_patches_next_to_nothing_keep_their_sum() -> None:
    values = np.zeros((2, 2, 12, PROMPT), dtype=np.float32)
    values[..., 3], values[..., 4] = 0.9, 1e-43
    run = full(attn_lhqk=values)
    dropped = with_sinks(run, massive_sinks(run, WHERE), "drop").attn_lhqk
    assert np.isfinite(dropped).all()
    assert dropped[..., 4] == pytest.approx(values[..., 3], rel=1e-5)
    assert not dropped[..., 3].any()


@pytest.mark.parametrize("rule", ["massive", "received"])
def test_either_rule_tells_what_to_leave_out(rule: str) -> None:
    received = np.full((2, 2, PROMPT), 0.01, dtype=np.float32)
    received[:, :, 5] = 0.5
    run = full(received_lhn=received)
    found = massive_sinks(run, WHERE) if rule == "massive" else received_sinks(run)
    (sink,) = found.visual
    dropped = with_sinks(run, found, "drop")
    assert not dropped.attn_lhqk[..., sink.position].any()
    assert sink.position == (3 if rule == "massive" else 5)


def test_attention_that_no_kept_row_shows_is_no_ground_to_refuse_a_coordinate() -> None:
    seen = [observation(seed) for seed in range(8)]
    for one in seen:
        assert one.received_ln is not None
        one.received_ln[:, [0, 3]] = np.nan
    found = calibrated(seen, (7,), rules=RULES)
    assert found.coordinates == (7,)
    assert "attention not known" in found.notes[0]


def test_tokens_beside_the_decoder_are_no_candidates() -> None:
    # Keys beside the tokens have no states; what is told of them, NaN, is not looked at.
    seen = []
    for seed in range(8):
        x = states(seed, sinks=(0, 1))
        x[..., 5] = 9  # so that no other token comes near
        x[:, :1] = np.nan
        seen.append(Observation(hidden_of(x, coords=(7,)), 1, None))
    found = calibrated(seen, (7,), rules=RULES)
    assert found.coordinates == (7,)


@pytest.mark.parametrize("use", [image_centric_heads, sink_roles])
def test_sinks_of_another_prompt_are_refused_by_all_that_reads_rows(use: Any) -> None:
    with pytest.raises(MapError, match="another prompt"):
        use(other_prompt(), massive_sinks(full(), WHERE))


@pytest.mark.parametrize(("boxes", "background"), [([], 6), ([(0.0, 0.0, 40.0, 20.0)], 0)], ids=["none", "all"])
def test_boxes_that_cover_nothing_or_everything(boxes: list[Any], background: int) -> None:
    test = background_test(massive_sinks(full(), WHERE), boxes)
    assert (test.background, test.on_background, test.p_value) == (background, int(background > 0), 1.0)
    nothing = background_test(massive_sinks(full(), NONE), boxes)
    assert (nothing.sinks, nothing.p_value) == (0, 1.0)
    assert np.isnan(nothing.share)


def test_the_tower_of_a_picture_that_is_not_there() -> None:
    with pytest.raises(SpecError, match="picture 1 does not exist"):
        tower_overlap(massive_sinks(full(), WHERE), [], image=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coordinates": (3.5,)}, "whole numbers"),
        ({"coordinates": (True,)}, "whole numbers"),
        ({"first_layer": "2"}, "whole numbers"),
        ({"first_layer": -1}, "at least 0"),
        ({"tau_relative": "0.3"}, "between 0 and 1"),
        ({"tau_relative": float("nan")}, "between 0 and 1"),
        ({"confidence": 1.5}, "from 0 to 1"),
    ],
)
def test_coordinates_that_cannot_be_are_refused_in_code_and_in_files(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=message):
        SinkCoordinates(**({"coordinates": COORDS, "width": WIDTH} | changes))
    path = tmp_path / "sinks.json"
    held = json.loads(WHERE.save(path).read_text(encoding="utf-8"))
    path.write_text(json.dumps(held | changes), encoding="utf-8")
    with pytest.raises(FileError, match=message):
        SinkCoordinates.load(path)
