"""Panels hold the very maps that ``raw_attention`` and ``run.map`` give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmattn as va
from tests import traces
from tests.report.made import picture_of, trace_of
from vlmattn.core.errors import MapError, SpecError
from vlmattn.core.head_preset import HeadPreset
from vlmattn.core.images import Picture
from vlmattn.core.layout import ImageLayout, Tile
from vlmattn.core.videos import Video
from vlmattn.maps import raw_attention
from vlmattn.report import MapView, MarkedBox, Panel, panel_of
from vlmattn.report.from_trace import spans_of
from vlmattn.sinks import with_sinks


@pytest.fixture(scope="module")
def run() -> Any:
    vlm = va.load("scene-sinks")
    scene, _ = va.scene.split_item("test", seed=0, index=9)
    return vlm.ask(scene.image, "How many objects are there?")


def flat(patch_map: Any) -> np.ndarray:
    return np.concatenate([np.asarray(v).ravel() for v in patch_map.values])


def mean_of(view: MapView, word: int, lines: slice = slice(None)) -> np.ndarray:
    weights = np.array(view.weights)[lines]
    return np.asarray((view.grids.values[word, lines] * weights[:, None]).sum(0) / weights.sum())


def close(view: MapView, word: int, wanted: np.ndarray, lines: slice = slice(None)) -> None:
    slack = 0.51 * view.grids.step[word, lines].max() + 1e-7
    assert np.abs(mean_of(view, word, lines) - wanted).max() <= slack


def test_every_word_and_layer_is_the_map_of_raw_attention() -> None:
    trace = traces.trace()
    panel = panel_of(trace, [picture_of((40, 20))])
    spans = spans_of(trace)
    assert [w.text for w in panel.words] == ["whole answer", "Is", "the", "red", "cup", "red", "red", "not", "Red"]
    for word, span in enumerate(spans):
        what = None if word == 0 else span
        close(panel.views[0], word, flat(raw_attention(trace, what)))
        for layer in (0, 1):
            close(panel.views[0], word, flat(raw_attention(trace, what, layers=[layer])), slice(layer, layer + 1))


def test_a_preset_counts_each_head_once() -> None:
    trace = traces.trace()
    preset = HeadPreset("mine", ((0, 0), (1, 0), (1, 1)), depth=2, source="by hand", note="")
    panel = panel_of(trace, [picture_of((40, 20))], heads=[preset])
    view = panel.views[1]
    assert (view.heads, view.weights, view.source) == ("mine", (1.0, 2.0), "by hand")
    close(view, 4, flat(raw_attention(trace, spans_of(trace)[4], heads=preset)))


def test_a_preset_whose_heads_were_not_kept_is_left_out_and_said() -> None:
    preset = HeadPreset("mine", ((0, 7),), depth=2, source="by hand", note="")
    panel = panel_of(traces.trace(), [picture_of((40, 20))], heads=[preset])
    assert len(panel.views) == 1
    assert "heads [7] were not kept" in panel.notes[0]


def test_shares_are_those_of_the_masses() -> None:
    trace = trace_of()
    panel = panel_of(trace, [picture_of()])
    row = int(np.flatnonzero(trace.positions == trace.layout.answer_start - 1)[0])
    wanted = trace.mass("image:0")[:, :, row].mean(axis=1)
    first = next(n for n, w in enumerate(panel.words) if w.part == "answer")
    assert panel.views[0].share[first, :, 0] == pytest.approx(wanted, rel=1e-5)


def test_pieces_give_question_and_answer_back() -> None:
    trace = traces.trace()
    panel = panel_of(trace, [picture_of((40, 20))])
    assert "".join(text for text, _ in panel.question) == trace.question
    assert "".join(text for text, _ in panel.answer) == trace.answer
    assert [(text, panel.words[n].occurrence) for text, n in panel.answer if n is not None] == [
        ("red", 1), ("not", 1), ("Red", 2),
    ]  # fmt: skip


def test_words_whose_rows_were_not_kept_have_no_map_and_say_why() -> None:
    base = trace_of()
    answer_only = replace(
        base, positions=base.positions[3:], attn_lhqk=base.attn_lhqk[:, :, 3:], mass_lhqs=base.mass_lhqs[:, :, 3:]
    )
    panel = panel_of(answer_only, [picture_of()])
    assert [w.part for w in panel.words if w.note] == ["question"] * 3
    assert all("were not kept" in w.note for w in panel.words if w.note)
    assert np.isnan(panel.views[0].share[1]).all()


def test_cells_out_of_the_window_are_hidden_layer_by_layer() -> None:
    trace = trace_of()
    seen = np.ones((*trace.attn_lhqk.shape[:1], *trace.attn_lhqk.shape[2:]), dtype=np.bool_)
    seen[1, :, :6] = False
    trace = replace(trace, visible_lqk=seen)
    view = panel_of(trace, [picture_of()]).views[0]
    assert view.visible is not None
    assert not view.visible[0, 1, :6].any()
    assert view.visible[0, 1, 6:].all()
    assert view.visible[0, 0].all()


def test_lost_cells_are_never_seen() -> None:
    tile = Tile("base", (2, 2), (0, 0, 60, 40), lost=((1, 0),))
    view = panel_of(trace_of(images=[ImageLayout((60, 40), (tile,))]), [picture_of()]).views[0]
    assert view.visible is not None
    assert view.visible[0, 0].tolist() == [True, True, False, True]


def test_several_pictures_have_their_own_cells_and_shares() -> None:
    images = [
        ImageLayout((60, 40), (Tile("base", (2, 3), (0, 0, 60, 40)),)),
        ImageLayout((20, 20), (Tile("base", (2, 2), (0, 0, 20, 20)),)),
    ]
    trace = trace_of(images=images)
    panel = panel_of(trace, [picture_of(), picture_of((20, 20))])
    close(panel.views[0], 0, np.concatenate([flat(raw_attention(trace, image=n)) for n in (0, 1)]))
    assert panel.views[0].share.shape[2] == 2


def test_sinks_are_marked_and_left_out_as_by_with_sinks(run: Any) -> None:
    (panel,) = run.panels(sinks=True)
    assert panel.sinks
    tile = run.trace.layout.images[0].tiles[0]
    assert {s.cell for s in panel.sinks} == {t.row * tile.grid_hw[1] + t.col for t in run.sinks().visual}
    kept, clean = panel.views[0], next(v for v in panel.views if v.sinks == "drop" and v.heads == "all")
    assert kept.sinks == "keep"
    close(clean, 0, flat(raw_attention(with_sinks(run.trace, run.sinks(), "drop"))))
    assert clean.grids.levels[0, 3, panel.sinks[0].cell] == 0


def test_a_run_gives_its_maps_by_other_methods_too(run: Any) -> None:
    raw, value, lens = run.panels(methods=["raw", "value", "logit_lens"], sinks=False)
    span = spans_of(run.trace)[3]
    close(raw.views[0], 3, flat(run.map(span).patch_map))
    close(value.views[0], 3, flat(run.map(span, method="value", layers=[2]).patch_map), slice(2, 3))
    assert lens.views[0].layers == ()
    close(lens.views[0], 3, flat(run.map(span, method="logit_lens").patch_map))
    assert raw.unit != value.unit
    assert value.views[0].share == pytest.approx(raw.views[0].share, abs=1e-6)


def test_the_models_own_heads_can_be_chosen(run: Any) -> None:
    own = run.vlm.known_heads()
    assert {v.heads for v in run.panels()[0].views} == {"all", *own}
    assert {v.heads for v in run.panels(heads=[])[0].views} == {"all"}


def test_steering_stands_in_the_title(run: Any) -> None:
    with run.vlm.steer(va.steering.PAI(alpha=0.3, first_layer=1)):
        other = run.vlm.ask(run.pictures[0], "How many objects are there?", max_new_tokens=2)
    assert other.panels()[0].title == "scene-sinks + PAI"


def test_verdicts_come_from_what_was_checked(run: Any) -> None:
    from vlmattn.api import Checked
    from vlmattn.api.checking import CheckedWord

    word = run.words()[0]
    run.checked = Checked((CheckedWord(word.text, 0.8, True, word),), "words", "by hand", "mark", run.answer, "")
    try:
        (panel,) = run.panels()
    finally:
        run.checked = None
    assert [(w.text, w.risk) for w in panel.words if w.risk is not None] == [(word.text, 0.8)]
    assert panel.risk_by == "by hand"


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"methods": ["psychic"]}, "method must be one of"),
        ({"methods": []}, "at least one method"),
        ({"heads": ["psychic"]}, "head preset 'psychic' does not exist"),
        ({"heads": [3]}, "presets or their names"),
        ({"boxes": [("cup", (5, 5, 1, 1))]}, "positive width"),
        ({"boxes": [("cup", 3)]}, "a box must be"),
        ({"boxes": [("cup", (0, 0, 5, 5), 4)]}, "boxes must lie on pictures 0 to 0"),
    ],
)
def test_what_cannot_be_is_told(run: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        run.panels(**options)


def test_parts_that_do_not_belong_together_are_refused() -> None:
    panel = panel_of(trace_of(), [picture_of()])
    with pytest.raises(MapError, match="belong together"):
        replace(panel, pictures=(picture_of((61, 40)),))
    with pytest.raises(MapError, match=r"\(words, cells\)"):
        replace(panel, words=panel.words[1:])
    with pytest.raises(MapError, match="a layout for each picture"):
        replace(panel, pictures=())
    with pytest.raises(MapError, match="grids must have shape"):
        replace(panel.views[0], layers=(0,))
    frames = Video([np.zeros((40, 60, 3), np.uint8)] * 2, fps=1.0)
    with pytest.raises(MapError, match="2 frames"):
        replace(panel, pictures=(frames,))


def test_an_answer_without_text_leaves_the_question() -> None:
    trace = trace_of(answer=".")
    panel = panel_of(trace, [Picture(Image.new("RGB", (60, 40)), "x")], boxes=[MarkedBox("a", (0, 0, 1, 1))])
    assert isinstance(panel, Panel)
    assert [w.part for w in panel.words] == ["all", "question", "question", "question"]


PHOTO = np.random.default_rng(3).integers(0, 255, (70, 110, 3), dtype=np.uint8)
# Crops and a thumbnail; cross attention with blind layers; a resampler's queries; an encoder that reads the question;
# frames that are merged.


@pytest.mark.parametrize("family", ["internvl", "mllama", "idefics2", "florence2", "qwen2_vl"])
def test_models_of_every_kind_give_the_maps_of_run_map(family: str) -> None:
    from tests.tiny import TINY
    from vlmattn.api.vlm import Vlm

    vlm = Vlm(*TINY[family](), name=family)
    shown: Any = PHOTO if family != "qwen2_vl" else [PHOTO, Video([PHOTO[:56, :56], PHOTO[-56:, -56:]], fps=2.0)]
    run = vlm.ask(shown, "What is red?", answer="a red spoon")
    (panel,) = run.panels(heads=[])
    word = next(n for n, w in enumerate(panel.words) if w.text == "spoon")
    looks = [run.map("spoon", image=n).patch_map for n in range(len(run.pictures))]
    close(panel.views[0], word, np.concatenate([flat(look) for look in looks]))
    seen = np.concatenate([c.ravel() for look in looks for c in look.visible_cells()])
    visible = panel.views[0].visible
    assert (seen == (True if visible is None else visible[word].any(0))).all()
    assert panel.views[0].layers == run.trace.seeing
    asked = [w.note for w in panel.words if w.part == "question"]
    assert all(asked) if family == "florence2" else not any(asked)
