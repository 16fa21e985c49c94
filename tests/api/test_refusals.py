"""Options that cannot be used: one error of ours that names them, and errors of others left as they are."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

import vlmattn as va
from tests.tiny_models import tiny
from vlmattn.core.errors import CaptureError, FileError, ImageError, PromptError, SpecError

PICTURE = np.full((40, 60, 3), 90, dtype=np.uint8)
PICTURE[5:20, 30:50] = (200, 30, 30)
QUESTION = "Is the red cup left of the red spoon?"


@lru_cache(maxsize=1)
def vlm() -> va.Vlm:
    return va.load(*tiny("llava"))


@lru_cache(maxsize=1)
def told() -> va.Run:
    return vlm().ask(PICTURE, QUESTION, answer="a red cup")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_sample": True, "temperature": 0.0}, "temperature"),
        ({"do_sample": True, "temperature": -1.0}, "temperature"),
        ({"do_sample": True, "temperature": "hot"}, "temperature='hot'"),
        ({"do_sample": True, "top_k": -1}, "top_k=-1"),
        ({"num_beams": 0}, "num_beams must be a whole number, at least 1, got 0"),
        ({"num_beams": -2}, "num_beams"),
        ({"num_beams": "two"}, "num_beams"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 would give several answers"),
        ({"nonsense": 3}, "nonsense"),
        ({"cache_implementation": "zzz"}, "zzz"),
        ({"streamer": 3}, "streamer=3"),
        ({"logits_processor": 3}, "logits_processor=3"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup"),
        ({"input_ids": 3}, "input_ids cannot be given"),
        ({"return_dict_in_generate": False}, "return_dict_in_generate cannot be given"),
        ({"steering": 3}, "steering"),
        ({"steering": [3]}, "steering"),
    ],
)
def test_generation_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        vlm().ask(PICTURE, QUESTION, max_new_tokens=3, **options)
    assert "\n" not in str(error.value)


def test_errors_of_a_users_own_code_stay_what_they_are() -> None:
    class Broken(va.Steering):
        def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
            raise ValueError("mine")

    def processor(ids: Any, scores: Any) -> Any:
        raise TypeError("mine too")

    with pytest.raises(ValueError, match=r"^mine$"):
        vlm().ask(PICTURE, QUESTION, max_new_tokens=2, top_p=None, steering=[Broken()])
    with pytest.raises(TypeError, match="mine too"):
        vlm().ask(PICTURE, QUESTION, max_new_tokens=2, logits_processor=[processor])


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("red", {"heads": 1}, r"write \[1\]"),
        ("red", {"heads": "some"}, "head preset 'some' does not exist"),
        ("red", {"heads": {0: [1]}}, "heads must be whole numbers"),
        ("red", {"heads": [-99]}, "head -99 does not exist"),
        ("red", {"layers": 1.0}, "layers must be whole numbers or the name of a preset, got 1.0"),
        ("red", {"layers": [1.5]}, "layers must be whole numbers"),
        ("red", {"layers": True}, "layers must be whole numbers"),
        ("red", {"layers": object()}, "layers must be whole numbers"),
        ("red", {"layers": [-99]}, "layer -99 does not exist"),
        ("red", {"occurrence": "a"}, "occurrence must be a whole number"),
        ("red", {"occurrence": 1.0}, "occurrence must be a whole number"),
        ("red", {"occurrence": 0}, "occurrence must be a whole number"),
        (None, {"occurrence": 1}, "name the word"),
        (0, {"occurrence": 1}, "name the word"),
        (0, {"part": "question"}, "leave out part"),
        ("red", {"part": "both"}, "part must be"),
        ("red", {"nope": 1}, "no option 'nope'; there are layers"),
        ("red", {"floor": 1}, "method='relative' only"),
        ("red", {"method": "relative", "floor": "x"}, "floor must be 'auto' or a number"),
        ("red", {"method": "relative", "floor": float("nan")}, "floor must be"),
        ("red", {"method": None}, "method must be one of raw, value, relative, .*; got None"),
    ],
)
def test_map_options_that_cannot_be_used(what: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        told().map(what, **options)


def test_negative_heads_and_layers_count_from_the_end() -> None:
    run = told()
    count = run.trace.attn_lhqk.shape[1]
    last = run.map("red", heads=[-1], layers=[-1]).patch_map
    assert np.array_equal(
        last.values[0], run.map("red", heads=[count - 1], layers=[run.trace.layers[-1]]).patch_map.values[0]
    )


def test_a_map_says_its_method_and_what_its_numbers_are() -> None:
    plain, relative = told().map("red"), told().map("red", method="relative", normalise="uniform")
    assert plain.patch_map.provenance.method == "raw"
    for look, words in ((plain, ("raw attention", "not normalised")), (relative, ("relative attention", "uniform"))):
        line = look.patch_map.provenance.summary()
        assert QUESTION in line
        assert all(word in line for word in words)
    assert "generic prompt" in told().map("red", method="relative").patch_map.provenance.unit
    assert plain.patch_map.provenance.unit.startswith("attention on a patch")
    assert relative.patch_map.provenance.unit == "relative attention: 1 is an even look"


@pytest.mark.parametrize(
    ("arguments", "options", "rows", "columns"),
    [
        ((), {"layers": "vicrop"}, 3, 1),
        ((), {"layers": 1}, 3, 1),
        (("red",), {}, 1, 3),
        ((0,), {"layers": [0, -1]}, 1, 2),
    ],
)
def test_a_sheet_takes_one_word_and_every_choice_of_layers(
    arguments: Any, options: dict[str, Any], rows: int, columns: int
) -> None:
    sheet = told().sheet(*arguments, **options)
    assert (len(sheet.record["rows"]), len(sheet.record["columns"])) == (rows, columns)


@pytest.mark.parametrize("options", [{"layers": []}, {"layers": "best"}, {"layers": [1.5]}, {"nope": 1}])
def test_sheets_of_layers_that_are_not_there(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        told().sheet(**options)


def test_grounding_of_layers_and_heads_is_that_of_their_rows() -> None:
    run = told()
    rows = run.trace.rows_of(run.words()[1].tokens)
    for layers, heads in (([1], [0]), ([0, -1], [-1]), ("vicrop", None)):
        word = run.grounding(layers=layers, heads=heads)[1]
        assert word.peak_xy == run.map(run.words()[1], layers=layers, heads=heads).peak_xy
    relative = [run.map(word, method="relative").peak_xy for word in run.words()]
    assert [word.peak_xy for word in run.grounding(method="relative")] == relative
    word = run.grounding(layers=[1], heads=[0])[1]
    assert word.image_share == pytest.approx(run.trace.mass("image:0")[1, 0, rows].mean())
    assert run.to_dict(layers=[1], heads=[0])["words"][1]["image_share"] == pytest.approx(word.image_share)
    assert run.grounding()[1].image_share != word.image_share
    for wrong in ({"heads": [77]}, {"layers": [9]}, {"method": "gradcam"}):
        with pytest.raises(SpecError):
            run.grounding(**wrong)


def test_grounding_tells_share_and_peak_of_every_picture() -> None:
    small = PICTURE[:20, :30]
    run = vlm().ask([PICTURE, small], "Which one is red?", answer="both")
    (word,) = run.grounding()
    assert len(word.image_shares) == len(word.peaks_xy) == 2
    assert word.image_share == pytest.approx(sum(word.image_shares))
    assert word.peaks_xy == tuple(run.map("both", image=n).peak_xy for n in (0, 1))
    assert word.peak_xy == word.peaks_xy[int(np.argmax(word.image_shares))]
    assert [p["share"] for p in run.to_dict()["words"][0]["pictures"]] == pytest.approx(list(word.image_shares))


@pytest.mark.parametrize("items", [3, "ab", None])
def test_items_that_are_no_list(items: Any) -> None:
    with pytest.raises((SpecError, PromptError)):
        vlm().ask_many(items)


def test_a_bad_picture_among_several_is_named() -> None:
    bad = np.full((4, 4), np.nan)
    with pytest.raises(ImageError, match=r"picture 1 of 2 .*NaN"):
        vlm().ask([PICTURE, bad], QUESTION)


def test_an_answer_that_does_not_fit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm().adapter, "decode_answer", lambda _: pytest.fail("decoded"))
    with pytest.raises(PromptError, match="positions: shorten the answer"):
        vlm().ask(PICTURE, QUESTION, answer="word " * 5000)


@pytest.mark.parametrize("answer", [None, "red"])
def test_attention_that_is_no_number_names_the_layer(answer: str | None) -> None:
    from copy import deepcopy

    model, processor = tiny("llava")
    broken = deepcopy(model)
    with torch.no_grad():
        broken.model.language_model.layers[1].self_attn.q_proj.weight.fill_(float("nan"))
    with pytest.raises(CaptureError, match="attention of layer 1 is NaN"):
        va.load(broken, processor).ask(PICTURE, QUESTION, answer=answer, **({} if answer else {"max_new_tokens": 2}))


@pytest.mark.parametrize("path", [None, 3])
def test_places_that_are_no_path(path: Any) -> None:
    with pytest.raises(FileError, match="path"):
        told().map("red").save(path)
