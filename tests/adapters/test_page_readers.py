"""Models that look at a page by cross attention and read their prompt in the decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.tiny import TINY
from vlmattn.adapters import adapter_for
from vlmattn.api.vlm import Vlm
from vlmattn.core.errors import LayoutError, PromptError, UnsupportedModel
from vlmattn.core.layout import TokenKind

KIND = "vision-encoder-decoder"


@pytest.mark.parametrize(
    ("wh", "box"),
    [
        ((64, 96), (0, 0, 64, 96)),
        ((100, 100), (0, -25, 100, 125)),
        # Enlarged to 64 x 213, shrunk to 28 x 96, and padded by 18 on either side.
        ((30, 100), (-18 * 30 / 28, 0, 46 * 30 / 28, 100)),
    ],
)
def test_the_page_lies_in_the_middle_of_the_model_s_size(wh: tuple[int, int], box: tuple[float, ...]) -> None:
    plan = adapter_for(*TINY[KIND]()).plan(wh)
    (tile,) = plan.layout.tiles
    assert tile.grid_hw == (12, 8)
    assert tile.source_box_xyxy == pytest.approx(box)


def test_words_of_the_question_have_rows_of_their_own() -> None:
    vlm = Vlm(*TINY[KIND](), name="donut")
    run = vlm.ask(data.coffee()[:120, :200], "Is it red?", max_new_tokens=3)
    layout = run.trace.layout
    assert layout.text.startswith("<image><s_docvqa><s_question>Is it red?</s_question><s_answer>")
    assert layout.memory == 96
    asked = layout.kinds == TokenKind.QUESTION
    assert "".join(layout.text[a:b] for a, b in layout.char_span[asked]) == "Is it red?"
    assert run.map("red").patch_map.values[0].shape == (12, 8)


def test_a_task_token_is_a_raw_prompt() -> None:
    adapter = adapter_for(*TINY[KIND]())
    picture = Image.fromarray(data.coffee()[:80, :60])
    encoded = adapter.encode([picture], "<image><s_docvqa>", raw=True)
    assert encoded.inputs["decoder_input_ids"].tolist() == [adapter.tokenizer.convert_tokens_to_ids(["<s_docvqa>"])]
    with pytest.raises(PromptError, match="sees its picture before the prompt"):
        adapter.encode([picture], "<s_docvqa><image>", raw=True)


def test_a_checkpoint_that_takes_no_questions_says_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapter_for(*TINY[KIND]())
    monkeypatch.setattr(type(adapter.tokenizer), "get_added_vocab", lambda _: {"<s_cord-v2>": 5})
    with pytest.raises(PromptError, match=r"takes no questions .* it has <s_cord-v2>"):
        adapter.encode([Image.fromarray(data.coffee()[:80, :60])], "What?")


def _turns(_: Any, processor: Any) -> None:
    processor.image_processor.do_align_long_axis = True


def _other_size(_: Any, processor: Any) -> None:
    processor.image_processor.size = {"height": 64, "width": 64}


def _trocr(model: Any, _: Any) -> None:
    model.config.encoder.model_type, model.config.decoder.model_type = "deit", "trocr"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_turns, LayoutError, "set do_align_long_axis=False"),
        (_other_size, LayoutError, r"disagree on image size \(height, width\)"),
        (_trocr, UnsupportedModel, "'trocr' is not supported: its decoder computes attention past"),
    ],
)
def test_what_would_place_patches_wrongly_is_refused(change: Any, error: type[Exception], message: str) -> None:
    model, processor = TINY[KIND]()
    change(model, processor)
    with pytest.raises(error, match=message):
        adapter_for(model, processor)


def test_a_batch_is_run_prompt_by_prompt() -> None:
    vlm = Vlm(*TINY[KIND](), name="donut")
    items = [(data.coffee()[:120, :200], "What?"), (data.coffee()[100:300, :90], "What is there to be seen?")]
    both = vlm.ask_many(items, max_new_tokens=2)
    for item, run in zip(items, both, strict=True):
        alone = vlm.ask(*item, max_new_tokens=2)
        assert np.array_equal(run.trace.attn_lhqk, alone.trace.attn_lhqk)
