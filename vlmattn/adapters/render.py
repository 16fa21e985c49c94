"""From messages to the text that the model reads, and where in it the question stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmattn.adapters.messages import Message, Part, check_count, check_encodable
from vlmattn.core.errors import ModelError, PromptError

Template = Callable[[list[Message]], str]


@dataclass(frozen=True)
class Rendered:
    """A rendered prompt. ``question_span``: [start, end) of the user's (last) text in it."""

    text: str
    question_span: tuple[int, int]


def plain_template(slots: Mapping[str, str], wording: str, after_image: str = "\n") -> Template:
    """A family's own ``wording``, with ``after_image`` after the placeholder of each picture and video.

    ``slots``: the placeholder of each kind, ``image`` and, where the family takes them, ``video``.
    """
    return lambda messages: _plain(messages, {kind: slot + after_image for kind, slot in slots.items()}, wording)


def template_of(processor: Any, slots: Mapping[str, str], fallback: str, after_image: str = "\n") -> Template:
    """How this processor renders messages: its chat template, its tokenizer's, or the family's ``fallback``."""
    template = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    if template is None:
        return plain_template(slots, fallback, after_image)

    def render(messages: list[Message]) -> str:
        chat = [{"role": m.role, "content": [_as_dict(p) for p in m.parts]} for m in messages]
        try:
            return str(processor.apply_chat_template(chat, chat_template=template, add_generation_prompt=True))
        except PromptError:
            raise
        except Exception as error:  # a template is a program of its own
            raise PromptError(f"the model's chat template refuses this prompt: {error}") from error

    return render


def _as_dict(part: Part) -> dict[str, str]:
    return {"type": part.kind} if part.text is None else {"type": "text", "text": part.text}


def _plain(messages: list[Message], slots: Mapping[str, str], fallback: str) -> str:
    """The family's own wording, for processors without a chat template."""
    out = [m.said for m in messages if m.role == "system"]
    for message in messages:
        if message.role == "user":
            # Not str.format: the question may hold braces.
            places = "".join(slots[kind] for kind in message.places)
            out.append(fallback.replace("{images}", places).replace("{question}", message.said))
        elif message.role == "assistant":
            out.append(message.said)
    return " ".join(out)


def render(messages: list[Message], template: Template, slots: Mapping[str, str]) -> Rendered:
    """Render messages and find the text of the last one.

    The same messages are rendered once more with marks in place of that text. What stands before the first and after
    the last mark stands around the question, whatever else the prompt says and however the template trims it.

    Raises:
        PromptError: if the template leaves out the question, the system text, a picture or a video.
    """
    text = template(messages)
    places = [kind for m in messages for kind in m.places]
    for kind, slot in slots.items():
        if text.count(slot) != places.count(kind):
            what = {"image": "picture", "video": "video"}[kind]
            raise PromptError(
                f"the chat template wrote {text.count(slot)} {slot!r} for {places.count(kind)} {what}s: it does not"
                f" know {what} parts. Give the processor the chat template of its checkpoint, or use raw=True"
            )
    for message in messages:
        if message.role == "system" and message.said.strip() not in text:
            raise PromptError("the model's chat template leaves out the system text: put it into the question instead")
    span = _around(text, messages, template)
    if not text[slice(*span)].strip():
        raise PromptError("the model's chat template leaves out the question")
    return Rendered(text, _trimmed(text, span))


def _around(text: str, messages: list[Message], template: Template) -> tuple[int, int]:
    said = "".join(m.said for m in messages)
    marks = _marks(said, sum(p.text is not None for p in messages[-1].parts))
    queue = iter(marks)
    parts = tuple(p if p.text is None else Part(next(queue)) for p in messages[-1].parts)
    marked = template([*messages[:-1], Message("user", parts)])
    first, last = marked.find(marks[0]), marked.rfind(marks[-1])
    if first < 0 or last < first:
        raise PromptError("the model's chat template leaves out the question")
    before, after = marked[:first], marked[last + len(marks[-1]) :]
    if not (text.startswith(before) and text.endswith(after) and len(before) + len(after) <= len(text)):
        raise ModelError("the chat template depends on the words of the question: the question cannot be located in it")
    return len(before), len(text) - len(after)


def _marks(said: str, count: int) -> list[str]:
    """``count`` strings of digits (which no template trims or changes) that do not occur in ``said``."""
    base = 7_310_948_620
    while str(base) in said:
        base += 1_000_003
    return [f"{base}{i:03d}" for i in range(count)]


def _trimmed(text: str, span: tuple[int, int]) -> tuple[int, int]:
    start, end = span
    inner = text[start:end]
    return start + len(inner) - len(inner.lstrip()), end - (len(inner) - len(inner.rstrip()))


def render_raw(
    text: str, kinds: Sequence[str], template: Template, slots: Mapping[str, str], question: str | None
) -> Rendered:
    """An already rendered prompt, taken as it is.

    The question is ``question`` (its last occurrence) if given, else the text after the last picture without what the
    model's own template would write after a question, else the text before the first picture.
    """
    check_encodable(text)
    for kind in dict.fromkeys(("image", *kinds)):
        check_count(text.count(slots[kind]), kinds.count(kind))
    pictures = [span for kind in set(kinds) for span in spans_of(text, slots[kind])]
    if not _without(text, [slots[kind] for kind in set(kinds)]).strip():
        raise PromptError("the prompt has no text besides its pictures")
    if question is not None:
        start = text.rfind(question)
        if start < 0 or not question.strip():
            raise PromptError(f"the question {question!r} does not occur in the prompt")
        return Rendered(text, _trimmed(text, (start, start + len(question))))
    after = max((end for _, end in pictures), default=0)
    end = len(text)
    tail = _tail(template)
    if tail and text.rstrip().endswith(tail):
        end = len(text.rstrip()) - len(tail)
    if text[after:end].strip():
        return Rendered(text, _trimmed(text, (after, end)))
    before = min((start for start, _ in pictures), default=end)
    span = (0, before) if text[:before].strip() else (after, len(text))
    return Rendered(text, _trimmed(text, span))


def spans_of(text: str, slot: str) -> list[tuple[int, int]]:
    """[start, end) of every occurrence of a placeholder."""
    return [m.span() for m in re.finditer(re.escape(slot), text)]


def order_of(text: str, slots: Mapping[str, str], kinds: Sequence[str]) -> list[int]:
    """Which of the given pictures and videos stands at each place of a rendered prompt.

    A template may put all pictures before all videos; those of one kind stay in order.

    >>> order_of("<i><i><v>?", {"image": "<i>", "video": "<v>"}, ["image", "video", "image"])
    [0, 2, 1]
    """
    found = sorted((span, kind) for kind in set(kinds) for span in spans_of(text, slots[kind]))
    queues = {kind: iter([n for n, one in enumerate(kinds) if one == kind]) for kind in set(kinds)}
    return [next(queues[kind]) for _, kind in found]


def _without(text: str, slots: Sequence[str]) -> str:
    for slot in slots:
        text = text.replace(slot, "")
    return text


def _tail(template: Template) -> str:
    """What the template writes after a question, trimmed; empty if it cannot be told."""
    mark = _marks("", 1)[0]
    try:
        text = template([Message("user", (Part(None), Part(mark)))])
    except PromptError:
        return ""
    return text[text.rfind(mark) + len(mark) :].strip() if mark in text else ""
