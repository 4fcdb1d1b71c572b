"""Follows every request by its id, and measures it."""

from __future__ import annotations

import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newt import spans, trace
from newt.errors import InvalidInputError
from newt.trace import Trace
from services.learner import metrics
from services.learner.rest.errors import REQUEST_ID_HEADER, reply_to
from services.learner.rest.guard import SAFE_METHODS

TRACEPARENT = "traceparent"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Followed:
    """Gives each request its id, or a new one, under which all logs of its work are; the reply has it too.

    The id is X-Request-Id, or else that of the trace which the request says that it is a part of (traceparent). Where
    spans are exported, requests that change something have one, and those that bring a trace; of others, which programs
    repeat for as long as they watch, there are too many.

    Args:
        app: The application behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, answered = time.perf_counter(), False
        headers = Headers(scope=scope)
        given = headers.get(TRACEPARENT, "")
        trace_id = trace.trace_id(given)
        request_id = headers.get(REQUEST_ID_HEADER, trace_id or trace.new_id())
        followed, method = Trace(request_id, traceparent=given if trace_id else ""), _method(scope)
        changes = method not in SAFE_METHODS and not scope["path"].startswith("/plays/")  # which would be every frame
        span = spans.begin(method, "server", followed) if trace.is_id(request_id) and (changes or trace_id) else None

        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                measure(message["status"])
                if trace.is_id(request_id):
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        def measure(status: int) -> None:
            nonlocal answered
            answered = True
            route = getattr(scope.get("route"), "path", "none")  # the pattern: ids would be unbounded
            metrics.REQUESTS.labels(method, route, status).observe(time.perf_counter() - start)
            if span is not None:
                told = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
                span.end(str(status) if status >= 500 else "", name=f"{method} {route}", attributes=told)

        try:
            with trace.following(span.trace if span is not None else followed):
                if trace.is_id(request_id):
                    scope.setdefault("state", {})["request_id"] = request_id
                    await self._app(scope, receive, mark)
                else:
                    what = f"got {request_id[:80]!r}, expected 1 to 64 of A-Z a-z 0-9 . _ : -, or leave the header out"
                    refusal = reply_to(Request(scope), InvalidInputError(REQUEST_ID_HEADER, what))
                    await refusal(scope, receive, mark)
        finally:
            if not answered:
                measure(500)


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"
