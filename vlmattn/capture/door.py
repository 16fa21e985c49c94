"""The one door: every attention call of transformers asks ``ALL_ATTENTION_FUNCTIONS`` for its kernel.

While a session is open, that question is answered with a function that runs the model's own kernel first and then
lets the session look at the same query, key, value and mask. Configuration, mask function and kernel stay as they
are. Nothing is left behind: the answer is the original one again when the last session closes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch


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

    def visit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """Look at a call and its output (B, Q, H, D_v); return the output, or another one to use instead."""
        ...


_lock = threading.RLock()
_visitors: dict[int, tuple[Visitor, ...]] = {}
_open = 0
_before: dict[str, Any] = {}


def subscribe(visitor: Visitor, modules: list[torch.nn.Module]) -> None:
    """Let ``visitor`` see every attention call of ``modules`` until :func:`unsubscribe`."""
    global _open
    with _lock:
        for module in modules:
            _visitors[id(module)] = (*_visitors.get(id(module), ()), visitor)
        _open += 1
        if _open == 1:
            _hang_up()


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
            _take_down()


def is_open() -> bool:
    """Whether any session stands at the door."""
    return _open > 0


def _hang_up() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as functions

    original = functions.get_interface
    if "get_interface" in functions.__dict__:  # someone else's; it is put back afterwards
        _before["get_interface"] = original

    def get_interface(name: str, default: Callable[..., Any]) -> Callable[..., Any]:
        return _Doorman(name, original(name, default))

    functions.get_interface = get_interface


def _take_down() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as functions

    functions.__dict__.pop("get_interface", None)
    functions.__dict__.update(_before)
    _before.clear()


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
