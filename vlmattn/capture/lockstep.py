"""A second run of a model that stops at chosen layers of the first one: both know the same layer at the same time.

It runs in a thread of its own, which works only while the first one waits for it. Sessions rest in that thread, so that
the second run is neither captured nor steered by them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vlmattn.capture import door
from vlmattn.capture.branch import own_memory
from vlmattn.capture.door import AttentionCall
from vlmattn.capture.sites import AttentionSite, unwrap
from vlmattn.core.errors import CaptureError, UnsupportedModel

_PATIENCE = 600.0


class _EnoughError(Exception):
    """Nobody waits for the second run any more."""


class Lockstep:
    """Head outputs of a second prompt, layer by layer, each changed before the next layer is computed.

    Args:
        model: a transformers model. inputs: of the second run. sites: the layers to stop at, ascending.
    """

    edits = True

    def __init__(self, model: Any, inputs: Mapping[str, Any], sites: Sequence[AttentionSite]) -> None:
        self.model, self.inputs = unwrap(model), dict(inputs)
        self.sites = {id(site.module): site for site in sites}
        self._thread: threading.Thread | None = None
        self._seen: queue.Queue[tuple[int, Any]] = queue.Queue()
        self._back: queue.Queue[torch.Tensor | None] = queue.Queue()

    @property
    def resting(self) -> bool:
        """Whether the current thread is another one."""
        return threading.current_thread() is not self._thread

    def outputs(self, layer_idx: int) -> torch.Tensor:
        """(B, Q, H, D) head outputs of a layer; the run stops there until :meth:`go_on`.

        Raises:
            UnsupportedModel: the second prompt does not run. CaptureError: the layer was not the next one.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        layer, found = self._seen.get(timeout=_PATIENCE)
        if isinstance(found, BaseException):
            raise UnsupportedModel(
                f"{type(self.model).__name__} does not run on the second prompt: {str(found)[:200]}"
            ) from found
        if layer != layer_idx:
            self.close()
            raise CaptureError(f"the second run came to layer {layer}, the first one to layer {layer_idx}")
        return torch.as_tensor(found)

    def go_on(self, outputs: torch.Tensor) -> None:
        """Let the second run go on with these head outputs."""
        self._back.put(outputs)

    def close(self) -> None:
        """End the second run, wherever it is."""
        if self._thread is not None and self._thread.is_alive():
            self._back.put(None)
            self._thread.join(_PATIENCE)

    def visit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """See :class:`~vlmattn.capture.door.Visitor`."""
        if self.resting:
            return output
        self._seen.put((self.sites[id(call.module)].layer_idx, output))
        new = self._back.get(timeout=_PATIENCE)
        if new is None:
            raise _EnoughError
        return new

    def _run(self) -> None:
        modules = [site.module for site in self.sites.values()]
        try:
            with door.apart(), own_memory(self.model), torch.no_grad():
                door.subscribe(self, modules)
                try:
                    self.model(**self.inputs, use_cache=False)
                finally:
                    door.unsubscribe(self, modules)
        except _EnoughError:
            return
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            self._seen.put((-1, error))
