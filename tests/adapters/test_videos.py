"""Videos: every family that takes them, on tiny models, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests import tiny_models
from tests.tiny import TINY
from vlmattn import Video
from vlmattn.adapters import adapter_for, families
from vlmattn.adapters.videos import may_run_together
from vlmattn.api.vlm import Vlm
from vlmattn.capture import CaptureSpec
from vlmattn.core.errors import LayoutError, PromptError, UnsupportedModel
from vlmattn.core.layout import TokenKind

SERVED = {kind for family in families() if family.videos for kind in family.model_types}
MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {kind: TINY[kind] for kind in SERVED if kind in TINY}
MODELS["llava_onevision"] = lambda: tiny_models.build("llava_onevision")
CAPTURE = CaptureSpec(rows=("question", "answer"), dtype="float32", top_k=0)


def film(frames: int, wh: tuple[int, int] = (96, 64), first: int = 0) -> Video:
    """A window that moves over a photograph."""
    photo = data.coffee()
    width, height = wh
    return Video([photo[20 : 20 + height, first + 30 * n : first + 30 * n + width] for n in range(frames)], fps=2.0)


def test_every_family_with_videos_has_a_tiny_model() -> None:
    assert set(MODELS) == SERVED


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_capture_leaves_a_model_that_sees_a_video_alone_and_its_rows_are_those_of_eager_attention(kind: str) -> None:
    verified = Vlm(*MODELS[kind](), name=kind).verify(film(4), "What is it?")
    assert verified.passed
    assert verified.row_error is not None


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_prompts_with_videos_have_in_a_batch_the_maps_and_answers_of_each_alone(kind: str) -> None:
    vlm = Vlm(*MODELS[kind](), name=kind)
    items: list[tuple[Any, str]] = [(film(4), "What?"), (film(4, (70, 110), 100), "What is there to be seen here?")]
    answers = ["a cat", "no"]
    batch = vlm.ask_many(items, answers=answers, capture=CAPTURE)
    for item, answer, run in zip(items, answers, batch, strict=True):
        alone = vlm.ask(*item, answer=answer, capture=CAPTURE)
        one, other = (r.map().patch_map for r in (run, alone))
        assert one.layout == other.layout
        assert one.layout.image_wh == item[0].wh
        assert one.layout.times == (0.0, 0.5, 1.0, 1.5)
        for a, b in zip(one.values, other.values, strict=True):
            assert np.allclose(a, b, rtol=0, atol=2e-6)
    written = vlm.ask_many(items, max_new_tokens=3)
    for item, run in zip(items, written, strict=True):
        assert run.answer == vlm.ask(*item, max_new_tokens=3).answer


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_frames_get_what_the_rows_say(kind: str) -> None:
    """The map of a frame against the attention of the model itself, column by column."""
    vlm = Vlm(*MODELS[kind](), name=kind)
    run = vlm.ask(film(4), "What is red?", answer="no", capture=CAPTURE)
    layout, trace = run.trace.layout, run.trace
    look = run.map("red")
    row = trace.rows_of(trace.read_tokens(trace.find("red", part="question").tokens))
    seeing = trace.layer_slots(trace.seeing)
    mean = trace.attn_lhqk[seeing][:, :, row].mean(axis=(0, 1, 2))
    got = []
    for index, tile in enumerate(layout.images[0].tiles):
        mine = (layout.tile == index)[trace.columns] & (layout.kinds == TokenKind.IMAGE)[trace.columns]
        assert mine.sum() == tile.cells
        got.append(mean[mine].sum())
        grid = look.patch_map.values[index]
        at = trace.columns[mine]
        assert np.allclose(grid[layout.row[at], layout.col[at]], mean[mine], atol=1e-6)
    assert np.isclose(look.frame_mass.mass_s.sum(), sum(got), atol=1e-5)
    assert np.isclose(look.frame_mass.mass_t.sum(), sum(got), atol=1e-5)


def test_merged_frames_have_one_grid_and_are_told_so() -> None:
    vlm = Vlm(*MODELS["qwen2_vl"](), name="qwen2_vl")
    run = vlm.ask(film(3), "What is red?", answer="no", capture=CAPTURE)
    look = run.map("red")
    assert look.patch_map.frames == ((0, 1), (2,))
    assert look.patch_map.times == ((0.0, 0.5), (1.0,))
    first, second, third = look.frames()
    assert (first.patch_map.values[0] == second.patch_map.values[0]).all()
    assert not (first.patch_map.values[0] == third.patch_map.values[0]).all()
    told = first.patch_map.provenance.steps[-1]
    assert told == "frame 0 at 0 s, on one grid with frame 1: they cannot be told apart"
    assert third.patch_map.provenance.steps[-1] == "frame 2 at 1 s"
    assert first.patch_map.to_dict()["tiles"][0]["frames"] == [0, 1]
    mass = look.frame_mass
    assert mass.mass_t[0] == mass.mass_t[1] == mass.mass_s[0] / 2
    assert mass.mass_t[2] == mass.mass_s[1]


@pytest.mark.parametrize("kind", ["llava_onevision", "internvl"])
def test_frames_that_are_not_merged_have_grids_of_their_own(kind: str) -> None:
    run = Vlm(*MODELS[kind](), name=kind).ask(film(3), "What?", answer="no", capture=CAPTURE)
    assert run.map().patch_map.frames == ((0,), (1,), (2,))


def test_what_is_written_between_frames_is_no_word_and_no_cell() -> None:
    adapter = adapter_for(*MODELS["internvl"]())
    layout = adapter.encode([film(2)], "What is 1?").layouts[0]
    between = layout.kinds == TokenKind.SEPARATOR
    assert (layout.image[between] == 0).all()
    assert (layout.char_span[between] == -1).all()
    words = [layout.text[a:b] for a, b in layout.char_span[layout.kinds == TokenKind.QUESTION]]
    assert "".join(words) == "What is 1?"
    written = adapter.tokenizer.decode(layout.input_ids[between])
    assert "Frame1: " in written
    assert "Frame2: " in written


def test_a_template_that_puts_pictures_before_videos_changes_no_numbers() -> None:
    model, processor = MODELS["llava_onevision"]()
    turn = "{% for p in message['content'] if p['type'] == 'KIND' %}<KIND>\n{% endfor %}"
    text = "{% for p in message['content'] if p['type'] == 'text' %}{{ p['text'] }}{% endfor %}"
    both = turn.replace("KIND", "image") + turn.replace("KIND", "video")
    processor.chat_template = "{% for message in messages %}" + both + text + "{% endfor %}"
    vlm = Vlm(model, processor, name="llava_onevision")
    photo = Image.fromarray(data.coffee()[:80, :120])
    layout = vlm.adapter.encode([film(2), photo], "What?").layouts[0]
    assert layout.text == "<image>\n<video>\nWhat?"
    assert [one.times for one in layout.images] == [(0.0, 0.5), ()]
    placed = np.flatnonzero(layout.kinds == TokenKind.IMAGE)
    assert layout.image[placed[0]] == 1
    assert layout.image[placed[-1]] == 0
    assert layout.segments()[2:4] == ("image:0", "image:1")


def test_places_of_videos_in_messages() -> None:
    adapter = adapter_for(*MODELS["qwen2_vl"]())
    photo = Image.fromarray(data.coffee()[:80, :120])

    def asked(*kinds: str) -> list[dict[str, Any]]:
        parts: list[dict[str, str]] = [{"type": kind} for kind in kinds]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]

    layout = adapter.encode([film(2), photo], asked("video", "image")).layouts[0]
    assert [bool(one.times) for one in layout.images] == [True, False]
    assert [layout.text[a:b] for a, b in layout.placeholders] == ["<|video_pad|>", "<|image_pad|>"]
    with pytest.raises(PromptError, match="places are of image, video, but what came is video, image"):
        adapter.encode([film(2), photo], asked("image", "video"))
    with pytest.raises(PromptError, match="more picture places than pictures"):
        adapter.encode([film(2)], asked("video", "video"))
    with pytest.raises(PromptError, match=r"reads as a picture's place"):
        adapter.encode([film(2)], "What is <|video_pad|>?")


def test_a_rendered_prompt_with_a_video_is_taken_as_it_is() -> None:
    adapter = adapter_for(*MODELS["qwen2_vl"]())
    layout = adapter.encode([film(2)], "<|video_pad|>What?", raw=True).layouts[0]
    assert layout.text[slice(*layout.question_span)] == "What?"
    with pytest.raises(PromptError, match="no place for the picture"):
        adapter.encode([film(2)], "What?", raw=True)


def test_a_video_is_refused_where_none_is_taken() -> None:
    vlm = Vlm(*tiny_models.tiny("llava"), name="llava")
    with pytest.raises(UnsupportedModel, match=r"llava takes no videos: .*; give single frames as pictures"):
        vlm.ask(film(2), "What?")


def test_a_processor_without_a_known_video_processor_is_named() -> None:
    model, processor = MODELS["qwen2_vl"]()
    processor.video_processor = MODELS["internvl"]()[1].video_processor
    with pytest.raises(LayoutError, match=r"needs a video processor of Qwen2VLVideoProcessor.*got InternVLVideoProc"):
        adapter_for(model, processor).encode([film(2)], "What?")


def test_more_frames_than_positions_are_refused() -> None:
    model, processor = MODELS["llava_onevision"]()
    model.config.text_config.max_position_embeddings = 40
    with pytest.raises(PromptError, match="40 positions: shorten the text or give fewer pictures or frames"):
        Vlm(model, processor, name="llava_onevision").ask(film(12), "What?")


def test_videos_of_different_length_are_refused_in_one_prompt_and_run_apart_in_a_batch() -> None:
    vlm = Vlm(*MODELS["llava_onevision"](), name="llava_onevision")
    with pytest.raises(PromptError, match="the videos have 2, 3 frames, but llava_onevision takes videos of equal len"):
        vlm.ask([film(2), film(3)], "What?")
    assert not may_run_together(vlm.adapter.spec, [[film(2)], [film(3)]])
    runs = vlm.ask_many([(film(2), "What?"), (film(3), "What?")], answers=["a", "b"])
    assert [len(run.trace.layout.images[0].times) for run in runs] == [2, 3]


def test_cells_that_hardly_change_have_no_token() -> None:
    vlm = Vlm(*MODELS["video_llama_3"](), name="video_llama_3")
    photo = data.coffee()[:64, :96].copy()
    moved = photo.copy()
    moved[40:, 60:] = 255 - moved[40:, 60:]
    run = vlm.ask(Video([photo, moved, moved], fps=1.0), "What?", answer="no", capture=CAPTURE)
    first, second, third = run.trace.layout.images[0].tiles
    assert first.lost == ()
    rows, cols = first.grid_hw
    assert (rows - 1, cols - 1) not in second.lost
    assert (0, 0) in second.lost
    assert third.cells == 1  # the processor keeps one of a frame that does not change
    assert not run.map(frame=2).patch_map.visible_cells()[0].all()


def test_at_most_one_video_where_the_processor_takes_one() -> None:
    adapter = adapter_for(*MODELS["molmo2"]())
    with pytest.raises(PromptError, match="2 videos, but molmo2 takes at most 1"):
        adapter.encode([film(2), film(2)], "What?")


@pytest.mark.parametrize("kind", ["glm4v", "smolvlm", "molmo2"])
def test_pictures_beside_videos_are_refused_where_the_model_cannot_tell_them_apart(kind: str) -> None:
    vlm = Vlm(*MODELS[kind](), name=kind)
    photo = data.coffee()[:80, :120]
    with pytest.raises(PromptError, match=f"{kind} takes pictures or videos in a prompt, not both"):
        vlm.ask([photo, film(2)], "What?")
    runs = vlm.ask_many([(photo, "What?"), (film(2), "What?")], answers=["a", "b"])
    assert [len(run.trace.layout.images[0].times) for run in runs] == [0, 2]


@pytest.mark.parametrize(("kind", "between"), [("qwen3_vl", "<0.2 seconds>"), ("glm46v", "0.0 seconds")])
def test_times_between_frames_are_separators(kind: str, between: str) -> None:
    adapter = adapter_for(*MODELS[kind]())
    layout = adapter.encode([film(4)], "What?").layouts[0]
    written = adapter.tokenizer.decode(layout.input_ids[layout.kinds == TokenKind.SEPARATOR])
    assert between in written
