"""All the ways to write a prompt, and what is said about those that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from tests.tiny_models import FAMILIES, build, tiny
from vlmattn.adapters import adapter_for
from vlmattn.core.errors import ModelError, PromptError, SpecError
from vlmattn.core.layout import TokenKind, TokenLayout

PICTURE = Image.new("RGB", (56, 56), (20, 90, 30))


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


IMAGE = {"type": "image"}


def question(layout: TokenLayout) -> str:
    return layout.text[slice(*layout.question_span)]


@pytest.mark.parametrize(
    ("prompt", "pictures", "match"),
    [
        ("", 1, "question is empty"),
        (" \n\t", 1, "question is empty"),
        ("What is <image>?", 1, "contains '<image>'"),
        ("<image>\nWhat?", 1, "contains '<image>'"),
        ("What?", 0, "no picture was given"),
        ("half \ud83d a pair", 1, "not valid Unicode"),
        ([], 1, "must end with a message of the user"),
        ([user(IMAGE)], 1, "question is empty"),
        ([user(IMAGE, IMAGE, "What?")], 1, "more picture places than pictures: 2 places, 1 pictures"),
        ([user(IMAGE, "What?")], 2, "fewer picture places than pictures: 1 places, 2 pictures"),
        ([user("What?"), {"role": "assistant", "content": "A cat."}], 1, "must end with a message of the user"),
        ([{"role": "owner", "content": "What?"}], 1, "role must be one of"),
        ([{"content": "What?"}], 1, "dict with role and content"),
        ([{"role": "user", "content": 5}], 1, "text or a list of parts"),
        ([user({"type": "sound"}, "What?")], 1, "a part of a message must be"),
        ([user({"type": "text"}, "What?")], 1, "a part of a message must be"),
        ([user("<image> What?")], 1, "contains '<image>'"),
        ([user(IMAGE | {"image": PICTURE}, "What?")], 1, "'image'.*pictures and videos go in the image argument"),
        (
            [user(IMAGE | {"url": "https://somewhere/a.jpg"}, "What?")],
            1,
            "'url'.*pictures and videos go in",
        ),
        ([user(IMAGE | {"path": "a.jpg"}, "What?")], 1, "'path'.*pictures and videos go in the image argument"),
        (
            [user({"type": "image_url", "image_url": {"url": "a"}}, "What?")],
            1,
            "'image_url'.*and videos go in",
        ),
        (["What?", ""], 2, "question is empty"),
    ],
)
@pytest.mark.parametrize("family", ["llava", "llava_onevision"])
def test_bad_prompts(family: str, prompt: Any, pictures: int, match: str) -> None:
    with pytest.raises(PromptError, match=match):
        adapter_for(*tiny(family)).encode([PICTURE] * pictures, prompt)


def test_a_video_placeholder_counts_where_the_model_has_one() -> None:
    with pytest.raises(PromptError, match="contains '<video>'"):
        adapter_for(*tiny("llava_onevision")).encode([PICTURE], "What is <video>?")
    assert question(adapter_for(*tiny("llava")).encode([PICTURE], "What is <video>?").layouts[0]) == "What is <video>?"


@pytest.mark.parametrize(
    ("prompt", "pictures", "match"),
    [
        ("USER: What? ASSISTANT:", 1, "no place for the picture"),
        ("USER: <image><image> What?", 1, "more picture places"),
        ("USER: <image> What?", 2, "fewer picture places"),
        ("<image>", 1, "no text besides"),
        ([user("What?")], 1, "raw=True takes a rendered prompt"),
    ],
)
def test_bad_raw_prompts(prompt: Any, pictures: int, match: str) -> None:
    with pytest.raises(PromptError, match=match):
        adapter_for(*tiny("llava")).encode([PICTURE] * pictures, prompt, raw=True)


@pytest.mark.parametrize(
    "text",
    [
        "What?",
        "ما لون السيارة؟",
        "מה זה?",
        "🐱🏳️‍🌈👩‍👩‍👧",
        "combining é and e\u0301, ﬁ ligature, İ",
        "\u200bzero\u200dwidth\u2066isolate\u2069",
        "{images} {question} {{ x }} {% if %}",
        "line\n\nbreaks\tand tabs",
        "NUL \x00 inside",
        "[INST] USER: ASSISTANT: <|im_end|>",
        "7310948620000",
        "<imag e>",
        "a" * 700,
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_question_is_found_whatever_it_says(family: str, text: str) -> None:
    layout = adapter_for(*tiny(family)).encode([PICTURE], text).layouts[0]
    assert question(layout) == text
    marked = layout.char_span[layout.kinds == TokenKind.QUESTION]
    assert marked.min() == layout.question_span[0]
    assert marked.max() == layout.question_span[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_words_elsewhere_are_not_the_question(family: str) -> None:
    chat = [user("red"), {"role": "assistant", "content": "red"}, user("red")]
    layout = adapter_for(*tiny(family)).encode([PICTURE], chat, system="red").layouts[0]
    assert layout.text.count("red") == 4
    assert layout.question_span[0] == layout.text.rfind("red")
    assert (layout.kinds == TokenKind.QUESTION).sum() == 3


def test_the_mark_that_locates_the_question_may_be_in_the_prompt() -> None:
    """Digits that the search itself would use, said in an earlier turn."""
    chat = [user("7310948620000"), {"role": "assistant", "content": "7311948623000"}, user("What?")]
    assert question(adapter_for(*tiny("llava")).encode([PICTURE], chat).layouts[0]) == "What?"


def test_white_space_around_the_question_is_not_part_of_it() -> None:
    layout = adapter_for(*tiny("llava")).encode([PICTURE], "  What?\n ").layouts[0]
    assert question(layout) == "What?"


def test_a_template_that_strips_and_repeats() -> None:
    model, processor = build("llava")
    processor.chat_template = (
        "{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}"
        "({{ p['text'] | trim }}){% endif %}{% endfor %}{% endfor %} answer the question above"
    )
    layout = adapter_for(model, processor).encode([PICTURE], " the question above  ").layouts[0]
    assert layout.question_span == (8, 26)
    assert question(layout) == "the question above"


@pytest.mark.parametrize(
    ("template", "error", "match"),
    [
        ("<image> hello", PromptError, "leaves out the question"),
        ("{{ messages[-1]['content'][-1]['text'] }}", PromptError, "wrote 0 '<image>' for 1 pictures"),
        ("{{ messages[0]['content'].no.such }}", PromptError, "refuses this prompt"),
        ("<image>{{ raise_exception('no system') }}", PromptError, "refuses this prompt: no system"),
        ("<image>{{ messages[-1]['content'][-1]['text'] | reverse }}", PromptError, "leaves out the question"),
        (
            "<image>{{ messages[-1]['content'][-1]['text'] }} {{ messages[-1]['content'][-1]['text'] | length }}",
            ModelError,
            "depends on the words",
        ),
    ],
)
def test_templates_that_cannot_be_used(template: str, error: type[Exception], match: str) -> None:
    model, processor = build("llava")
    processor.chat_template = template
    with pytest.raises(error, match=match):
        adapter_for(model, processor).encode([PICTURE], "What is it?")


def test_a_template_without_a_place_for_the_system_text_is_an_error() -> None:
    model, processor = build("llava")
    processor.chat_template = "<image>{{ messages[-1]['content'][-1]['text'] }}"
    adapter = adapter_for(model, processor)
    assert adapter.encode([PICTURE], "What?").layouts[0].text == "<image>What?"
    with pytest.raises(PromptError, match="leaves out the system text"):
        adapter.encode([PICTURE], "What?", system="Be brief.")


def test_system_text_is_given_once() -> None:
    adapter = adapter_for(*tiny("llava"))
    layout = adapter.encode([PICTURE], "What?", system="Be brief.").layouts[0]
    assert layout.text.startswith("Be brief.")
    chat = [{"role": "system", "content": "Be brief."}, user("What?")]
    assert adapter.encode([PICTURE], chat).layouts[0].text == layout.text
    with pytest.raises(PromptError, match="give one of them"):
        adapter.encode([PICTURE], chat, system="Be brief.")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llava", "USER: <image>\nWhat {q}? ASSISTANT:"),
        ("llava_next", "[INST] <image>\nWhat {q}? [/INST]"),
    ],
)
def test_without_a_chat_template_the_family_has_its_own_words(family: str, expected: str) -> None:
    model, processor = build(family)
    processor.chat_template = None
    layout = adapter_for(model, processor).encode([PICTURE], "What {q}?").layouts[0]
    assert layout.text == expected
    assert question(layout) == "What {q}?"


def test_pictures_come_first_unless_placed() -> None:
    adapter = adapter_for(*tiny("llava"))
    chat = [user("one"), {"role": "assistant", "content": "two"}, user("three")]
    assert adapter.encode([PICTURE], chat).layouts[0].text.startswith("USER: <image>\none")
    chat[2] = user("three", IMAGE, "four")
    placed = adapter.encode([PICTURE], chat).layouts[0]
    assert placed.text.endswith("USER: three<image>\nfour ASSISTANT:")
    assert question(placed) == "three<image>\nfour"


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("USER: <image>\nWhat? ASSISTANT:", None, "What?"),
        ("<image>\nUSER: What? ASSISTANT:", None, "USER: What?"),
        ("<image>\nUSER: What? ASSISTANT:", "What?", "What?"),
        ("What is in <image>", None, "What is in"),
        ("USER: What? <image> ASSISTANT:", None, "USER: What?"),
        ("<s>USER: <image> a word ", None, "a word"),
    ],
)
def test_raw_prompts_are_taken_as_they_are(text: str, given: str | None, expected: str) -> None:
    layout = adapter_for(*tiny("llava")).encode([PICTURE], text, raw=True, question=given).layouts[0]
    assert layout.text == text
    assert question(layout) == expected
    assert (layout.kinds == TokenKind.BOS).sum() == 1
    assert (layout.input_ids == layout.input_ids[0]).sum() == 1


def test_question_goes_with_raw_only_and_must_occur() -> None:
    adapter = adapter_for(*tiny("llava"))
    with pytest.raises(SpecError, match="raw=True"):
        adapter.encode([PICTURE], "What?", question="What?")
    with pytest.raises(PromptError, match="does not occur"):
        adapter.encode([PICTURE], "<image> What?", raw=True, question="Who?")


def test_a_batch_may_mix_questions_and_messages() -> None:
    adapter = adapter_for(*tiny("llava"))
    encoded = adapter.encode([[PICTURE], [PICTURE, PICTURE]], ["What?", [user("Compare them.")]])
    assert [question(layout) for layout in encoded.layouts] == ["What?", "Compare them."]
    assert [len(layout.images) for layout in encoded.layouts] == [1, 2]
    assert adapter.encode([PICTURE], ["What?"]).batch_size == 1
