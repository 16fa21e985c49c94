"""Connections that are cut off when their client sends no headers, or does not read what it is sent."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vlmattn.service.options import ServiceOptions

if TYPE_CHECKING:
    from vlmattn.service.desk import Desk


class Server(uvicorn.Server):
    """Tells the service at once that it is to stop, so that connections that are open ask for nothing more."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self.desk = desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        self.desk.draining = True
        # The base class would also raise the signal once more when all is done, and end the process by it.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def connection_class(options: ServiceOptions) -> type[H11Protocol]:
    """The class of connections with these limits."""

    class Connection(_Limited):
        read_timeout, write_timeout = options.read_timeout, options.write_timeout

    return Connection


class _Limited(H11Protocol):
    read_timeout = write_timeout = 20.0
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # What the system does not take at once counts as unread.
        transport.set_write_buffer_limits(0)
        self._late = self.loop.call_later(self.read_timeout, self._no_headers)

    def data_received(self, data: bytes) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if answered and self._late is None:
            self._late = self.loop.call_later(self.read_timeout, self._no_headers)
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            _stopped(self._late)
            self._late = None

    def _no_headers(self) -> None:
        self._late = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(self.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _stopped(self._unread)
        self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        _stopped(self._late, self._unread)
        super().connection_lost(exc)


def _stopped(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
