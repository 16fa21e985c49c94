"""The one door: every attention call of transformers asks ``ALL_ATTENTION_FUNCTIONS`` for its kernel.

While a session is open, that question is answered with a function that runs the model's own kernel first and then
lets the session look at the same query, key, value and mask. Configuration, mask function and kernel stay as they
are. Compiled code, which would not come by, runs as plain Python meanwhile. Nothing is left behind: all is as it was
when the last session closes, in whatever order they close.

Logits processors may run the model themselves (a contrast branch, classifier-free guidance). :func:`depth` says how
deep inside them the current thread is, so that a session can leave such passes alone.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from vlmattn.core.errors import CaptureError


@dataclass
class AttentionCall:
    """One call of an attention function.

    Attributes:
        kernel: the name the configuration asks for (``sdpa``, ``eager``, ``flash_attention_2`` …).
        query: (B, H, Q, D). key: (B, H_kv, K, D). value: (B, H_kv, K, D_v).
        mask: what the model made for its kernel: None, (B, K), (B, 1|H, Q, K) or a BlockMask.
        options: remaining keyword arguments (scaling, softcap, sliding_window, s_aux …).
    """

    kernel: str
    module: torch.nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: Any
    options: dict[str, Any]


class Visitor(Protocol):
    """Something that wants to see attention calls of certain modules."""

    @property
    def edits(self) -> bool:
        """Whether outputs may be changed."""
        ...

    @property
    def resting(self) -> bool:
        """Whether the visitor neither looks nor edits at the moment."""
        ...

    def visit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """Look at a call and its output (B, Q, H, D_v); return the output, or another one to use instead."""
        ...


_lock = threading.RLock()
_visitors: dict[int, tuple[Visitor, ...]] = {}
_open = 0
_undo: list[Callable[[], None]] = []
_stance: list[Any] = []
_inside = threading.local()


def subscribe(visitor: Visitor, modules: list[torch.nn.Module]) -> None:
    """Let ``visitor`` see every attention call of ``modules`` until :func:`unsubscribe`.

    Raises:
        CaptureError: another visitor is there already, and one of the two changes what the other would see.
    """
    global _open
    with _lock:
        _check_alone(visitor, modules)
        for module in modules:
            _visitors[id(module)] = (*_visitors.get(id(module), ()), visitor)
        _open += 1
        if _open == 1:
            _undo.extend((_hang_up(), _watch_processors()))
        if "torch._dynamo" in sys.modules and not _stance:
            _stance.append(torch.compiler.set_stance("force_eager"))


def unsubscribe(visitor: Visitor, modules: list[torch.nn.Module]) -> None:
    """Undo :func:`subscribe`; the door is taken down with the last visitor."""
    global _open
    with _lock:
        for module in modules:
            rest = tuple(v for v in _visitors.get(id(module), ()) if v is not visitor)
            if rest:
                _visitors[id(module)] = rest
            else:
                _visitors.pop(id(module), None)
        _open -= 1
        if _open == 0:
            while _undo:
                _undo.pop()()
            while _stance:
                _stance.pop().__exit__(None, None, None)


def is_open() -> bool:
    """Whether any session stands at the door."""
    return _open > 0


def depth() -> int:
    """How many logits processors are running in this thread, one inside the other."""
    return getattr(_inside, "depth", 0)


@contextmanager
def apart() -> Iterator[None]:
    """Let the current thread run models as logits processors do: sessions leave them alone."""
    _inside.depth = depth() + 1
    try:
        yield
    finally:
        _inside.depth -= 1


def _check_alone(visitor: Visitor, modules: list[torch.nn.Module]) -> None:
    others = {id(v): v for module in modules for v in _visitors.get(id(module), ()) if not v.resting}
    if others and (visitor.edits or any(other.edits for other in others.values())):
        raise CaptureError(
            "another capture of this model is open, and one of the two steers: what each of them sees would depend on "
            "their order. Put the steering and what is to be kept into one session"
        )


def _hang_up() -> Callable[[], None]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as functions

    theirs = functions.__dict__.get("get_interface")  # someone else's, if any; it is put back afterwards
    original = functions.get_interface

    def get_interface(name: str, default: Callable[..., Any]) -> Callable[..., Any]:
        return _Doorman(name, original(name, default))

    def undo() -> None:
        functions.__dict__.pop("get_interface", None)
        if theirs is not None:
            functions.get_interface = theirs

    functions.get_interface = get_interface
    return undo


def _watch_processors() -> Callable[[], None]:
    from transformers.generation.logits_process import LogitsProcessorList as Processors

    original = Processors.__call__

    @functools.wraps(original)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        _inside.depth = depth() + 1
        try:
            return original(self, *args, **options)
        finally:
            _inside.depth -= 1

    def undo() -> None:
        if Processors.__call__ is call:
            Processors.__call__ = original

    Processors.__call__ = call
    return undo


class _Doorman:
    """The model's own attention function, with visitors let in after it."""

    __slots__ = ("kernel", "name")

    def __init__(self, name: str, kernel: Callable[..., Any]) -> None:
        self.name = name
        self.kernel = kernel

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any = None,
        *args: Any,
        **options: Any,
    ) -> tuple[torch.Tensor, Any]:
        result = self.kernel(module, query, key, value, attention_mask, *args, **options)
        visitors = _visitors.get(id(module))
        if not visitors:
            return result
        call = AttentionCall(self.name, module, query, key, value, attention_mask, options)
        output = result[0]
        for visitor in visitors:
            output = visitor.visit(call, output)
        return (output, *result[1:])
