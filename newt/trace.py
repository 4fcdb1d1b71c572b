"""Which request a piece of work belongs to, followed through all services.

The REST API takes or makes a request id; the run's record keeps it, the run's processes take it from there, calls carry
it as metadata from service to service, and every log line shows it. A call says it once, when it opens: the messages of
a stream carry nothing. A W3C traceparent that comes with a request goes the same way, for whoever exports spans
(newt.spans).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID_PATTERN = r"[A-Za-z0-9._:-]{1,64}"
# https://www.w3.org/TR/trace-context/#traceparent-header; a trace id of zeros is none, nor is such a span.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Trace:
    """Where work comes from.

    Attributes:
        request_id: Id of the request that asked for it; see REQUEST_ID_PATTERN.
        run: Id of the run that it is done for; empty outside of runs.
        traceparent: The span that it is a part of, as W3C writes it; empty if it is part of no trace.
    """

    request_id: str
    run: str = ""
    traceparent: str = ""


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)
_of_process: Trace | None = None


def new_id() -> str:
    """A request id for a request that came without one."""
    return uuid.uuid4().hex[:16]


def is_id(text: str) -> bool:
    """Whether the text can be a request id: it will be in logs and headers."""
    return re.fullmatch(REQUEST_ID_PATTERN, text) is not None


def trace_id(traceparent: str) -> str:
    """The trace that a W3C traceparent belongs to, 32 hex digits; empty if it is none, which is then to be ignored."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else ""


def current() -> Trace | None:
    """What is being followed here: the request that this thread answers, or else what the whole process works for."""
    return _current.get() or _of_process


def request_id() -> str | None:
    """Id of the request that is being followed here, if one is."""
    followed = current()
    return followed.request_id if followed else None


def traceparent() -> str | None:
    """The span that what is being followed here is a part of, if it is part of a trace."""
    followed = current()
    return followed.traceparent or None if followed else None


def follow(trace: Trace | None) -> None:
    """Follows a request in this thread (or task) from now on; None ends it."""
    _current.set(trace)


@contextmanager
def following(trace: Trace) -> Iterator[Trace]:
    """Follows a request within a block."""
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def follow_in_process(trace: Trace | None) -> None:
    """Follows one request in all threads of this process, for as long as it lives: a process of a run.

    Args:
        trace: Of the record of what this process works for; None if that is older than request ids.
    """
    global _of_process
    _of_process = trace
