"""The API's side of a connection: nobody may hold one without asking for something."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S = 10.0
# Of a request's line and headers.
MAX_HEAD_BYTES = 32 << 10


class PromptProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it; a client that does not complete a request's head in time is cut off.

    Uvicorn itself bounds only the silence after a reply.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stops the clock when the head is complete; starts it at the first byte of the next one."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._cut)

    def _cut(self) -> None:
        self._deadline = None
        answering: Any = self.cycle  # a reply may have been begun meanwhile by what was buffered
        if (answering is None or answering.response_complete) and not self.transport.is_closing():
            self.transport.abort()

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
