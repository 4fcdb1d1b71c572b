"""Follows every request by its id, and measures it."""

from __future__ import annotations

import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newt import trace
from newt.errors import InvalidInputError
from newt.trace import Trace
from services.learner import metrics
from services.learner.rest.errors import REQUEST_ID_HEADER, reply_to

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Followed:
    """Gives each request its id, or a new one, under which all logs of its work are; the reply has it too.

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
        request_id = Headers(scope=scope).get(REQUEST_ID_HEADER, trace.new_id())

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
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.REQUESTS.labels(method, route, status).observe(time.perf_counter() - start)

        try:
            with trace.following(Trace(request_id)):
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
