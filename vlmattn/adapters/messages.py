"""Prompts as chat messages: one shape for all the ways a user may write them, or a clear error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from vlmattn.core.errors import PromptError

Prompt = str | Sequence[Mapping[str, Any]]
ROLES = ("system", "user", "assistant")
_PICTURES = ("image", "image_url", "video", "video_url", "url", "path", "base64")


@dataclass(frozen=True)
class Part:
    """A piece of a message: text, or the place of a picture or a video (``text`` is None), as ``kind`` says."""

    text: str | None
    kind: str = "image"


@dataclass(frozen=True)
class Message:
    """One turn. ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    parts: tuple[Part, ...]

    @property
    def places(self) -> tuple[str, ...]:
        """The kinds of its places, ``image`` or ``video``, in order."""
        return tuple(p.kind for p in self.parts if p.text is None)

    @property
    def said(self) -> str:
        """All text of the message."""
        return " ".join(p.text for p in self.parts if p.text is not None)


def is_batch(prompt: object) -> TypeGuard[list[Prompt]]:
    """Whether ``prompt`` is a list of prompts rather than one: its items are strings or lists, not messages."""
    if isinstance(prompt, (str, Mapping)) or not isinstance(prompt, Sequence) or not prompt:
        return False
    return not isinstance(prompt[0], Mapping)


def conversation(
    prompt: Prompt, kinds: Sequence[str], *, system: str | None, placeholders: tuple[str, ...]
) -> list[Message]:
    """The prompt as messages with one place per picture and video, the last message being the user's.

    Where the prompt names no places, all pictures and videos come first in the first message of the user.

    Args:
        kinds: ``image`` or ``video`` for each that was given, in order.

    Raises:
        PromptError: no text, a place too many or too few or of the other kind, a placeholder such as ``<image>`` inside
            text.
    """
    plain = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages = [_message(m) for m in plain]
    if system is not None:
        if any(m.role == "system" for m in messages):
            raise PromptError(
                "system was given, but the messages already start with a system message: give one of them"
            )
        messages = [Message("system", (Part(system),)), *messages]
    _check_text(messages, placeholders)
    return _with_places(messages, kinds)


def _message(raw: Any) -> Message:
    if not isinstance(raw, Mapping) or "role" not in raw or "content" not in raw:
        raise PromptError(f"a message must be a dict with role and content, got {_short(raw)}")
    if raw["role"] not in ROLES:
        raise PromptError(f"a message's role must be one of {', '.join(ROLES)}, got {raw['role']!r}")
    content = raw["content"]
    if isinstance(content, str):
        return Message(raw["role"], (Part(content),))
    if not isinstance(content, Sequence):
        raise PromptError(f"a message's content must be text or a list of parts, got {_short(content)}")
    return Message(raw["role"], tuple(_part(p) for p in content))


def _part(raw: Any) -> Part:
    if isinstance(raw, str):
        return Part(raw)
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    held = [key for key in _PICTURES if raw.get(key) is not None] if isinstance(raw, Mapping) else []
    if held:
        raise PromptError(
            f"a part of a message holds a picture ({held[0]!r}), which would not be looked at: pictures and videos go "
            "in the image argument, and a part {'type': 'image'} or {'type': 'video'} only says where one stands"
        )
    if kind in ("image", "video"):
        return Part(None, str(kind))
    if kind == "text" and isinstance(raw.get("text"), str):
        return Part(raw["text"])
    raise PromptError(
        f"a part of a message must be {{'type': 'text', 'text': …}}, {{'type': 'image'}} or {{'type': 'video'}}, got"
        f" {_short(raw)}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _check_text(messages: list[Message], placeholders: tuple[str, ...]) -> None:
    if not messages or messages[-1].role != "user":
        raise PromptError("a prompt must end with a message of the user: there is nothing to answer otherwise")
    if not messages[-1].said.strip():
        raise PromptError("the question is empty: write what you want to know about the picture")
    for message in messages:
        check_encodable(message.said)
        for mark in placeholders:
            if mark in message.said:
                raise PromptError(
                    f"the text of the {message.role} contains {mark!r}, which this model reads as a picture's place."
                    " Leave it out (pictures are placed for you), mark places with {'type': 'image'} parts, or pass an"
                    " already rendered prompt with raw=True"
                )


def check_encodable(text: str) -> None:
    """Raises PromptError if ``text`` is not valid Unicode (half of a surrogate pair)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"the prompt is not valid Unicode text at character {error.start}: {error.reason}") from None


def _with_places(messages: list[Message], kinds: Sequence[str]) -> list[Message]:
    places = [kind for m in messages for kind in m.places]
    if not places:
        first = next(i for i, m in enumerate(messages) if m.role == "user")
        parts = tuple(Part(None, kind) for kind in kinds) + messages[first].parts
        return [*messages[:first], Message("user", parts), *messages[first + 1 :]]
    check_count(len(places), len(kinds))
    if places != list(kinds):
        raise PromptError(
            f"the prompt's places are of {', '.join(places)}, but what came is {', '.join(kinds)}: give them in the "
            "order of their places"
        )
    return messages


def check_count(places: int, pictures: int) -> None:
    """Raises PromptError if the prompt has another number of picture places than there are pictures."""
    if places == pictures:
        return
    if places == 0:
        raise PromptError(f"the prompt has no place for the picture, but {pictures} came: add its placeholder")
    more = "more" if places > pictures else "fewer"
    raise PromptError(f"the prompt has {more} picture places than pictures: {places} places, {pictures} pictures")
