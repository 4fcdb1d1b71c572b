"""The request id and the traceparent in the metadata of calls: put there by every channel, read by every server."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
import structlog

from newt import spans, trace
from newt.spans import Span
from newt.trace import Trace

REQUEST_ID = "x-request-id"
RUN = "x-newt-run"
TRACEPARENT = "traceparent"
# Longest run id that is believed; longer ones are not ours.
_MAX_RUN_CHARS = 128
# Pairs of request and method that a server remembers to have logged.
_MAX_SEEN = 4096

log = structlog.get_logger(__name__)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class TraceInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Names, when a call opens, the request and the run that it is made for; refuses one without a deadline."""

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Opens the call."""
        return continuation(_traced(details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Opens the call."""
        return continuation(_traced(details), request)

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        """Opens the call; its messages pass untouched."""
        return continuation(_traced(details), requests)

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        """Opens the call; its messages pass untouched."""
        return continuation(_traced(details), requests)


def metadata() -> list[tuple[str, str]]:
    """What a call that opens now says of its origin."""
    followed = trace.current()
    if followed is None:
        return []
    told = [(REQUEST_ID, followed.request_id)]
    if followed.run:
        told.append((RUN, followed.run))
    if followed.traceparent:
        told.append((TRACEPARENT, followed.traceparent))
    return told


def _traced(details: Any) -> Any:
    if details.timeout is None:
        raise ValueError(f"{details.method}: got no timeout; a call without a deadline may never end")
    own = metadata()
    if not own:
        return details
    return _Details(
        details.method,
        details.timeout,
        [*(details.metadata or ()), *own],
        details.credentials,
        details.wait_for_ready,
        details.compression,
    )


class FirstCalls:
    """Logs the first call of each method that each request leads to: its way through the services, at no cost per call.

    Where spans are exported (newt.spans), it is these calls that have one. Calls that bring a traceparent alone go by
    the id of its trace; calls that bring nothing (probes, scripts) are followed in errors only, under an id of their
    own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def follow(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span | None:
        """Follows a call's request in this thread.

        Args:
            method: Full name of the method.
            metadata: Metadata of the call.

        Returns:
            The call's span, to be ended with the call, if it has one.
        """
        found = {key: str(value) for key, value in metadata if key in (REQUEST_ID, RUN, TRACEPARENT)}
        request_id, run, traceparent = (found.get(key, "") for key in (REQUEST_ID, RUN, TRACEPARENT))
        trace_id = trace.trace_id(traceparent)
        named = trace.is_id(request_id)
        if not named and not trace_id:
            trace.follow(Trace(trace.new_id()))
            return None
        followed = Trace(
            request_id if named else trace_id,
            run if len(run) <= _MAX_RUN_CHARS else "",
            traceparent if trace_id else "",
        )
        trace.follow(followed)
        key = (followed.request_id, method)
        if key in self._seen:
            return None
        with self._lock:
            self._seen[key] = None
            if len(self._seen) > _MAX_SEEN:
                self._seen.popitem(last=False)
        if named:  # programs that trace themselves may give every call a trace of its own
            log.info("first_call", method=method.lstrip("/"))
        name = method.lstrip("/")
        span = spans.begin(name, "server", followed, {"rpc.system.name": "grpc", "rpc.method": name})
        if span is not None:
            trace.follow(span.trace)
        return span
