"""Connections with limits on how many there are, how slowly requests come and how slowly answers are taken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from coverslip.server.settings import Limits

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

__all__ = ["LimitedProtocol", "limited_protocol"]


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn for clients that may be slow or many."""

    limits: ClassVar[Limits] = Limits()
    cycle: RequestResponseCycle | None  # type: ignore[assignment]
    _stalled: asyncio.TimerHandle | None = None
    _awaited: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.access_log = False  # it would show queries

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or close it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first of a request start the time in which its head has to come."""
        if self._awaited is None and (self.cycle is None or self.cycle.response_complete):
            self._await_request()
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._cancel_awaited()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all timers."""
        self._cancel_awaited()
        self._cancel_stalled()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the time in which the client has to take what it was given."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.limits.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """End that time."""
        self._cancel_stalled()
        super().resume_writing()

    def _await_request(self) -> None:
        self._awaited = self.loop.call_later(self.limits.header_s, self.transport.abort)

    def _cancel_awaited(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None

    def _cancel_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def limited_protocol(limits: Limits) -> type[LimitedProtocol]:
    """Return a protocol that keeps to limits."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits})
