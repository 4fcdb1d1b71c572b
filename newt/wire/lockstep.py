"""A bidirectional stream on which every request gets one reply, driven by the calling thread alone.

grpcio's own stream hands each request to one thread and gets each reply from another; waking them takes about as long
as the network. Here the caller itself waits on the call's completion queue, as grpcio's blocking unary calls do. The
means, `segregated_call`, is not part of grpcio's public API, but its unary calls have rested on it for years;
tests/service/wire covers everything that is relied on.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from newt.wire import tracing

Request = TypeVar("Request")
Reply = TypeVar("Reply")

_NO_FLAGS = 0
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class StreamEndedError(grpc.RpcError):
    """The stream is over; `code()` and `details()` say why, as on any failed call."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        """Status code."""
        return self._code

    def details(self) -> str:
        """The server's message."""
        return self._details


class LockstepStream(Generic[Request, Reply]):
    """One call of a stream-stream method. `send` and `receive` alternate; only `close` may come from another thread.

        stream = LockstepStream(channel, "/newt.v1.SimService/StepStream", serialize, deserialize, timeout_s=60)
        stream.send(request)
        reply = stream.receive()
        stream.close()

    Args:
        channel: As `newt.wire.channels.connect` makes it.
        method: Full path of the method.
        serialize: A request to bytes.
        deserialize: A reply from bytes.
        timeout_s: Time from a `send` to its reply; the stream ends with DEADLINE_EXCEEDED beyond.

    Ctrl-C while waiting for a reply ends the stream.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        method: str,
        serialize: Callable[[Request], bytes],
        deserialize: Callable[[bytes], Reply],
        timeout_s: float,
    ) -> None:
        inner = cast(Any, channel)
        while not hasattr(inner, "segregated_call"):  # Within interceptors, which see calls of the public API alone.
            inner = inner._channel
        self._channel = channel
        self._serialize, self._deserialize, self._timeout_s = serialize, deserialize, timeout_s
        self._due: float | None = None
        self._end: StreamEndedError | None = None
        metadata = tracing.metadata()
        start = (
            ((cygrpc.SendInitialMetadataOperation(metadata, _NO_FLAGS),), None),
            ((cygrpc.ReceiveStatusOnClientOperation(_NO_FLAGS),), None),
            ((cygrpc.ReceiveInitialMetadataOperation(_NO_FLAGS),), None),
        )
        host = deadline = credentials = context = registered = None
        flags = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
        self._call = inner.segregated_call(
            flags, method.encode(), host, deadline, metadata, credentials, start, context, registered
        )
        self._closed = threading.Event()
        self._reading = threading.Lock()  # Events of the call are for one thread at a time.
        # Waiting for the queue has no deadline of its own, and a timer per step would cost a thread each.
        watch = (weakref.ref(self), self._closed, min(1.0, timeout_s / 4))
        threading.Thread(target=_watch, args=watch, name="stream-deadline", daemon=True).start()

    def send(self, request: Request) -> None:
        """Sends a request; `receive` must follow, also if the stream has ended meanwhile."""
        self._due = time.monotonic() + self._timeout_s
        exchange = (
            cygrpc.SendMessageOperation(self._serialize(request), _NO_FLAGS),
            cygrpc.ReceiveMessageOperation(_NO_FLAGS),
        )
        if self._end is None:
            self._call.operate(exchange, None)

    def receive(self) -> Reply:
        """Waits for the reply.

        Raises:
            StreamEndedError: There will be none.
        """
        with self._reading:
            while self._end is None:
                message = self._next_message()
                if message is not None:
                    self._due = None
                    return self._deserialize(message)
        self._due = None
        raise self._end

    def close(self) -> None:
        """Ends the stream, and gives up a reply that is due; idempotent."""
        self._closed.set()
        self._cancel(cygrpc.StatusCode.cancelled, "closed by the client")
        with self._reading:
            while self._end is None:  # The call's memory is freed with its last event.
                self._next_message()

    def _cancel(self, code: Any, details: str) -> None:
        if self._end is None:
            self._call.cancel(code, details)

    def _next_message(self) -> bytes | None:
        message: bytes | None = None
        try:
            event = self._call.next_event()
        except BaseException:  # Of a signal's handler, as KeyboardInterrupt.
            # gRPC has let go of the call and its queue: nothing of them may be used again, but to tell the server.
            self._closed.set()
            self._end = StreamEndedError(grpc.StatusCode.CANCELLED, "interrupted by a signal")
            self._call.cancel(cygrpc.StatusCode.cancelled, "interrupted")
            raise
        for operation in event.batch_operations:
            kind = operation.type()
            if kind == cygrpc.OperationType.receive_message:
                message = operation.message()
            elif kind == cygrpc.OperationType.receive_status_on_client:
                code = _CODES.get(operation.code(), grpc.StatusCode.UNKNOWN)
                self._end = StreamEndedError(code, operation.details() or "")
        return message

    def _give_up_in_time(self) -> None:
        due = self._due
        if due is not None and time.monotonic() > due:
            self._cancel(cygrpc.StatusCode.deadline_exceeded, f"no reply within {self._timeout_s:g} s")


def _watch(stream: weakref.ref[LockstepStream[Any, Any]], closed: threading.Event, every_s: float) -> None:
    """Ends a stream whose reply is overdue. Holds it by a weak reference only, so that a dropped one is collected."""
    while not closed.wait(every_s):
        watched = stream()
        if watched is None:
            return
        watched._give_up_in_time()
        del watched
