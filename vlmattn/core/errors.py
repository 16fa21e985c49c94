"""Every error this library raises on purpose.

::

    VlmattnError
    ├── InputError              what the user gave cannot be used
    │   ├── ImageError          a picture cannot be read or has no usable size
    │   │   └── VideoError      a video cannot be read, or its frames do not belong together
    │   ├── PromptError         a prompt has no text, no image slot, or too many
    │   │   └── WordNotFound    a word or phrase does not occur; lists those that do
    │   ├── SpecError           a layer, head, row rule, preset or option does not exist
    │   └── FileError           a file is missing, half written, or of another format
    │       └── RunInProgress   another run is writing the same folder
    ├── ModelError              the model or its processor cannot be used
    │   ├── ModelLoadError      a name, folder or object does not give model and processor
    │   ├── UnsupportedModel    the family is not supported; says why
    │   └── LayoutError         the image tokens do not match what the geometry says
    ├── CaptureError            attention rows could not be kept exactly
    │   ├── UnsupportedAttention    a layer's attention cannot be reproduced row by row
    │   ├── BudgetExceeded      what would be kept is over the memory budget
    │   ├── ConcurrentUse       two threads ran one model inside one capture
    │   └── VerificationFailed  capture changed tokens or logits
    ├── MapError                a map cannot be made from what was kept
    └── DependencyMissing       an optional or system library is absent; says what to install

Messages say what was expected, what came, and what to do. ``VlmattnError`` is never raised itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class VlmattnError(Exception):
    """Base of every error that vlmattn raises on purpose."""


class InputError(VlmattnError, ValueError):
    """What the user gave cannot be used."""


class ImageError(InputError):
    """A picture cannot be read, or has no usable size."""


class VideoError(ImageError):
    """A video cannot be read, or its frames do not belong together."""


class PromptError(InputError):
    """A prompt has no text, no image slot, or a wrong number of slots."""


class WordNotFound(PromptError, LookupError):
    """A word or phrase does not occur in the question or the answer."""

    def __init__(self, word: str, *, where: str, words: Sequence[str]) -> None:
        self.word = word
        self.where = where
        self.words = tuple(words)
        close = get_close_matches(word, self.words, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        listed = ", ".join(repr(w) for w in self.words[:60]) or "none"
        more = f" and {len(self.words) - 60} more" if len(self.words) > 60 else ""
        super().__init__(f"{word!r} does not occur in the {where}.{hint} Words there: {listed}{more}.")


class SpecError(InputError):
    """A layer, head, row rule, preset or option does not exist."""


class FileError(InputError):
    """A file is missing, half written, or of another format."""


class RunInProgress(FileError):
    """Another run is writing the same folder."""


class ModelError(VlmattnError):
    """The model or its processor cannot be used."""


class ModelLoadError(ModelError):
    """A name, folder or object does not give a model and its processor."""


class UnsupportedModel(ModelError):
    """The model's family is not supported; the message says why."""


class LayoutError(ModelError):
    """The image tokens of an input do not match what the geometry says."""


class CaptureError(VlmattnError):
    """Attention rows could not be kept exactly."""


class UnsupportedAttention(CaptureError):
    """A layer's attention cannot be reproduced row by row."""


class BudgetExceeded(CaptureError):
    """What a capture would keep is over the memory budget."""


class ConcurrentUse(CaptureError):
    """Two threads ran one model inside one capture."""


class VerificationFailed(CaptureError):
    """Capture changed the tokens or the logits of the model."""


class MapError(VlmattnError):
    """A map cannot be made from what was kept."""


class DependencyMissing(VlmattnError, ImportError):
    """An optional or system library is absent; the message says what to install."""
