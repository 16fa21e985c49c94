"""Asking, looking, steering: every family, real photographs, and everything that can be wrong with a question."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

import vlmattn as va
from tests.tiny_models import FAMILIES, build, tiny
from vlmattn.api import WordGrounding
from vlmattn.core.errors import BudgetExceeded, ImageError, MapError, PromptError, SpecError, WordNotFound

QUESTION = "Is the red cup left of the red spoon?"


@lru_cache(maxsize=8)
def vlm(family: str) -> va.Vlm:
    return va.load(*tiny(family))


def ask(family: str = "llava", image: Any = None, question: Any = QUESTION, **options: Any) -> va.Run:
    model = vlm(family)
    # A random model may write the picture placeholder, which no trained one does.
    settings = {"max_new_tokens": 5, "suppress_tokens": [model.adapter.image_token_id]} | options
    return model.ask(data.coffee() if image is None else image, question, **settings)


def photographs() -> dict[str, Any]:
    coffee = Image.fromarray(data.coffee())
    rotated = coffee.copy()
    exif = Image.Exif()
    exif[0x0112] = 6
    import io

    stream = io.BytesIO()
    rotated.save(stream, "JPEG", exif=exif)
    alpha = coffee.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.tile(np.arange(600) % 256, (400, 1)).astype(np.uint8)))
    china, flower = load_sample_images().images
    return {
        "cat": data.chelsea(),
        "china": china,
        "flower": flower,
        "grey": data.camera(),
        "EXIF 6": stream.getvalue(),
        "alpha": alpha,
        "thin": data.coffee()[:7],
        "one pixel": np.zeros((1, 1, 3), dtype=np.uint8),
    }


PHOTOGRAPHS = photographs()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_go_through(family: str, name: str, tmp_path: Path) -> None:
    run = ask(family, PHOTOGRAPHS[name])
    look = run.map("cup")
    if name == "one pixel":
        with pytest.raises(MapError, match="flat"):
            _ = look.peak_xy
    else:
        quick = look.peak_xy
        assert quick == look.pixels.peak_xy == look.peak_xy
    width, height = run.pictures[0].wh
    assert look.pixels.values.shape == (height, width)
    if name == "EXIF 6":
        assert (width, height) == (400, 600)
        assert "EXIF orientation 6 applied" in run.trace.provenance.steps
    path = look.save(tmp_path / "look.png")
    assert look.overlay().image.size == (width, height)
    assert va.overlay.read_provenance(path)["label"] == "cup"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["raw", "value", "relative"])
def test_every_method_gives_a_map_of_every_patch(family: str, method: str) -> None:
    run = ask(family)
    look = run.map(0, method=method, layers="middle", normalise="share")
    assert look.patch_map.total == pytest.approx(1)
    assert sum(v.size for v in look.patch_map.values) == len(run.trace.layout.image_positions)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_says_what_each_question_says_alone(family: str) -> None:
    items = [(data.coffee(), QUESTION), (data.chelsea(), "Why?")]
    settings = {"max_new_tokens": 4, "suppress_tokens": [vlm(family).adapter.image_token_id]}
    for run, (image, question) in zip(vlm(family).ask_many(items, **settings), items, strict=True):
        alone = ask(family, image, question, max_new_tokens=4)
        assert run.answer == alone.answer
        assert run.trace.attn_lhqk.shape == alone.trace.attn_lhqk.shape
        assert np.allclose(run.trace.attn_lhqk, alone.trace.attn_lhqk, atol=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_given_answer_has_the_rows_of_the_written_one(family: str) -> None:
    run = ask(family)
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    again = vlm(family).ask(data.coffee(), QUESTION, answer=ids)
    assert again.answer == run.answer
    assert np.allclose(again.trace.attn_lhqk, run.trace.attn_lhqk, atol=2e-3)
    assert again.trace.scores is not None
    assert run.trace.scores is not None
    assert np.allclose(again.trace.scores.chosen_logp_t, run.trace.scores.chosen_logp_t, atol=1e-3)
    assert again.trace.provenance.steps[-1] == "given answer"


def test_a_given_text_is_looked_at_word_by_word() -> None:
    run = vlm("llava").ask(data.coffee(), QUESTION, answer="The cup, not the cup of tea")
    first, second = (run.map("cup", part="answer", occurrence=n) for n in (1, 2))
    assert first.label == "cup (answer, 1 of 2)"
    assert not np.allclose(first.patch_map.values[0], second.patch_map.values[0])
    assert [g.word for g in run.grounding()][:2] == ["The (answer, 1 of 2)", "cup (answer, 1 of 2)"]


def test_grounding_adds_up() -> None:
    for word in vlm("llava").ask(data.coffee(), QUESTION, answer="a cup").grounding():
        assert sum(word.shares.values()) == pytest.approx(1, abs=1e-3)
        assert word.image_share == pytest.approx(word.shares["image:0"])
        assert word.log_probability < 0


@pytest.mark.parametrize("family", FAMILIES)
def test_several_pictures_have_their_own_maps(family: str) -> None:
    run = ask(family, [data.coffee(), data.chelsea()], "Which one is the cat?")
    sizes = [run.map(0, image=n).pixels.image_wh for n in (0, 1)]
    assert sizes == [(600, 400), (451, 300)]
    with pytest.raises(SpecError, match="picture 2 does not exist; there are 2"):
        run.map(0, image=2)


def test_chat_messages_and_system_text() -> None:
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    run = ask(question=[{"role": "user", "content": content}])
    assert run.question == QUESTION
    assert "Be brief." in ask(system="Be brief.").trace.layout.text


PARTS = [{"type": "text", "text": "Look at this cup"}, {"type": "image"}, {"type": "text", "text": "what is it?"}]


@pytest.mark.parametrize("family", FAMILIES)
def test_words_around_the_picture(family: str) -> None:
    run = ask(family, question=[{"role": "user", "content": PARTS}])
    assert run.question.split() == ["Look", "at", "this", "cup", "what", "is", "it?"]
    assert [w.text for w in run.words("question")] == ["Look", "at", "this", "cup", "what", "is", "it", "?"]
    with pytest.raises(WordNotFound):
        run.map("image")
    for method in ("raw", "value"):
        with pytest.raises(MapError, match="'cup' stands before picture 0"):
            run.map("cup", part="question", method=method)
    after = [w for w in run.words("question") if w.text in ("what", "is", "it", "?")]
    alone = np.mean([run.map(w).patch_map.values[0] * len(w.tokens) for w in after], axis=0)
    whole = run.map(part="question")
    assert whole.patch_map.values[0].max() > 0.5 * alone.max() / np.mean([len(w.tokens) for w in after])
    assert "rows: the others cannot see picture 0" in whole.patch_map.provenance.steps[-1]


def test_the_second_picture_is_not_seen_from_between() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "a cup, and"}, {"type": "image"}, PARTS[2]]
    run = ask(image=[data.coffee(), data.chelsea()], question=[{"role": "user", "content": content}])
    assert run.map("cup", part="question").patch_map.total > 0
    with pytest.raises(MapError, match="'cup' stands before picture 1"):
        run.map("cup", part="question", image=1)
    assert run.map("what", part="question", image=1).patch_map.total > 0


def test_layers_count_from_the_models_end_whatever_was_kept() -> None:
    run = ask(capture=va.CaptureSpec(layers=[0, 1]))
    assert run.trace.depth == 3
    assert run.map(0).patch_map.provenance.layers == "layers 0-1 of 3"
    with pytest.raises(SpecError, match=r"layers \[2\] were not kept"):
        run.map(0, layers=-1)


def test_a_flat_map_has_no_peak_anywhere_and_is_still_drawn(tmp_path: Path) -> None:
    model, processor = build("llava")
    with torch.no_grad():
        for name, weight in model.model.language_model.named_parameters():
            if "q_proj.weight" in name:
                weight.zero_()
    run = va.load(model, processor).ask(data.coffee(), QUESTION, answer="a cup")
    look = run.map(0)
    for peak in (lambda: look.peak_xy, lambda: look.patch_map.peak(), look.box_xyxy):
        with pytest.raises(MapError, match="the map is flat"):
            peak()
    assert [g.peak_xy for g in run.grounding()] == [None, None]
    assert look.to_dict()["peak_xy"] is None
    assert va.overlay.read_provenance(look.save(tmp_path / "flat.png"))["flat"] is True


@pytest.mark.parametrize("convention", ["query", "predicting"])
def test_relative_maps_after_any_capture(convention: Any) -> None:
    capture = va.CaptureSpec(rows=("question", "answer"), convention=convention, dtype="float32")
    one = ask(capture=capture).map("cup", method="relative", convention=convention)
    assert one.patch_map.provenance.convention == convention
    step = one.patch_map.provenance.steps[-1]
    assert step.startswith(f"divided by the map of {va.maps.GENERIC_PROMPT!r} (raw attention of 'the last prompt row'")


class Half(va.Steering):
    layers = (1,)

    def edit_rows(self, probs_bhrk: torch.Tensor, where: Any) -> torch.Tensor:
        return probs_bhrk * 0.5

    def describe(self) -> str:
        return "halved rows of layer 1"


def test_steering_acts_inside_its_context_and_is_told() -> None:
    model, plain = vlm("llava"), ask()
    with model.steer(Half()):
        steered = ask()
        also = steered.map(0, method="value")
    after = ask()
    assert np.allclose(steered.trace.mass_lhqs[1][:, -3:].sum(-1), 0.5, atol=1e-3)
    assert "halved rows of layer 1" in steered.trace.provenance.steps
    assert "halved rows of layer 1" in also.patch_map.provenance.steps
    assert np.array_equal(after.trace.attn_lhqk, plain.trace.attn_lhqk)
    # A second pass of a steered run is steered too, and that of a plain one is not, whatever is in force now.
    with model.steer(Half()):
        assert "halved rows of layer 1" not in plain.map(0, method="value").patch_map.provenance.steps


class Darker(va.Steering):
    def edit_input(self, encoded: Any) -> Any:
        from dataclasses import replace

        return replace(encoded, inputs=encoded.inputs | {"pixel_values": encoded.inputs["pixel_values"] * 0.1})


def test_the_input_slot_changes_what_the_model_sees() -> None:
    class Nothing(va.Steering):
        def edit_input(self, encoded: Any) -> Any:
            return encoded

    plain = ask()
    assert np.array_equal(ask(steering=[Nothing()]).trace.attn_lhqk, plain.trace.attn_lhqk)
    assert not np.allclose(
        ask(steering=[Darker()]).trace.attn_lhqk[0][:, :3], plain.trace.attn_lhqk[0][:, :3], atol=1e-3
    )


def test_seeds_repeat_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one = ask(do_sample=True, seed=3, max_new_tokens=8)
    assert torch.equal(torch.rand(1), expected)
    assert one.answer == ask(do_sample=True, seed=3, max_new_tokens=8).answer
    assert one.answer != ask(do_sample=True, seed=4, max_new_tokens=8).answer
    assert one.trace.provenance.seed == 3


def test_beams_give_the_best_sequence_and_its_rows() -> None:
    run = ask(num_beams=3)
    ids = run.trace.layout.input_ids[run.trace.layout.answer_start :].tolist()
    given = vlm("llava").ask(data.coffee(), QUESTION, answer=ids)
    assert np.allclose(run.trace.attn_lhqk, given.trace.attn_lhqk, atol=2e-3)


def test_sheet_and_repr_and_dict() -> None:
    run = vlm("llava").ask(data.coffee(), QUESTION, answer="a red cup")
    sheet = run.sheet(["red", "cup"], layers=[0, 2])
    assert sheet.record["rows"] == ["red", "cup"]
    assert sheet.record["columns"] == ["layer 0", "layer 2"]
    assert "a red cup" in repr(run)
    told = run.to_dict()
    assert [w["word"] for w in told["words"]] == ["a", "red", "cup"]
    assert told["provenance"]["answer"] == "a red cup"


def test_what_is_not_known_of_a_word_is_null_in_json() -> None:
    unknown = WordGrounding("cup", float("nan"), {"system": float("nan"), "bos": 0.5}, None, float("nan"))
    told = json.loads(json.dumps(unknown.to_dict(), allow_nan=False))
    assert told["image_share"] is told["peak_xy"] is told["log_probability"] is None
    assert told["shares"] == {"system": None, "bos": 0.5}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"question": ""}, PromptError, "empty"),
        ({"question": " \n"}, PromptError, "empty"),
        ({"question": "what is <image>?"}, PromptError, "<image>"),
        ({"question": "word " * 3000}, PromptError, "positions"),
        ({"image": []}, PromptError, "no picture"),
        ({"image": "missing.jpg"}, ImageError, "does not exist"),
        ({"image": np.zeros((3, 3, 5))}, ImageError, "shape"),
        ({"image": None, "max_new_tokens": 0}, SpecError, "at least 1"),
        ({"answer": "  "}, PromptError, "empty"),
        ({"answer": []}, PromptError, "no tokens"),
        ({"capture": va.CaptureSpec(budget=100)}, BudgetExceeded, "over the budget"),
        ({"capture": va.CaptureSpec(rows="word:mug")}, WordNotFound, "Words there"),
        ({"capture": va.CaptureSpec(layers=[7])}, SpecError, "no attention in layer"),
    ],
)
def test_bad_questions_are_refused_before_the_model_runs(
    options: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vlm("llava")

    def run(*_: Any, **__: Any) -> None:
        pytest.fail("the model ran")

    monkeypatch.setattr(model.model, "generate", run)
    monkeypatch.setattr(model.model, "forward", run)
    with pytest.raises(error, match=message):
        ask(**options)


@pytest.mark.parametrize(
    ("what", "options", "error", "message"),
    [
        ("mug", {}, WordNotFound, "'cup'"),
        ("red", {"occurrence": 5}, SpecError, "occurs 2 times"),
        (99, {}, SpecError, "answer token 99"),
        (0, {"method": "gradcam"}, SpecError, "raw, value, relative"),
        (0, {"layers": "best"}, SpecError, "layer preset"),
        (0, {"normalise": "softmax"}, SpecError, "normalisation"),
        (0, {"convention": "query", "part": "answer"}, None, ""),
    ],
)
def test_bad_maps_are_refused(what: Any, options: dict[str, Any], error: type[Exception] | None, message: str) -> None:
    run = ask()
    if error is None:
        assert run.map(what, **options).patch_map.provenance.convention == "query"
    else:
        with pytest.raises(error, match=message):
            run.map(what, **options)


def test_rows_that_were_not_kept_say_what_to_do() -> None:
    run = ask(capture=va.CaptureSpec(rows="answer"))
    with pytest.raises(MapError, match=r"rows=\('question', 'answer'\)"):
        run.map("cup")


def test_nothing_is_asked_of_an_empty_batch() -> None:
    with pytest.raises(PromptError, match="no question"):
        vlm("llava").ask_many([])
