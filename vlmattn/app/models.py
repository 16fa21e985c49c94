"""The models to choose from, each loaded once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api import Vlm


class Models:
    """Models by name; each is loaded when it is first asked for, and kept.

    Args:
        names: what may be chosen, the first by default. load: makes a model of its name; default
            :func:`vlmattn.load`.

    Raises:
        SpecError: no name, or one twice.
    """

    def __init__(self, names: Sequence[str], load: Callable[[str], Vlm] | None = None) -> None:
        if not names or len(set(names)) < len(names):
            raise SpecError(f"give the name of at least one model, and each once; got {list(names)}")
        self.names = tuple(names)
        self._load, self._lock = load, threading.Lock()
        self._held: dict[str, Vlm] = {}

    def get(self, name: str | None = None) -> Vlm:
        """The model of a name; by default the first.

        Raises:
            SpecError: a name that is not among those to choose from. Others as :func:`vlmattn.load`; a model that could
                not be loaded is tried again the next time.
        """
        wanted = self.names[0] if name is None else name
        if wanted not in self.names:
            raise SpecError(f"model {wanted!r} is not to be chosen here; there are {', '.join(self.names)}")
        with self._lock:
            if wanted not in self._held:
                from vlmattn.api import load

                self._held[wanted] = (self._load or load)(wanted)
            return self._held[wanted]
