"""What reaches the API of a learner: requests to one of its own names, not from foreign web pages, of bounded size.

Without a token whoever reaches the port may do everything. A browser reaches it on behalf of any web page: by a form or
a script that sends requests here (the `Origin` is foreign), or by a name of the page's own that it lets point here (the
`Host` is foreign; DNS rebinding). Neither is answered. An address in the `Host` is no such name. With a token both are
harmless: a page does not know it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newt.runs.record import ApiError

MAX_JSON_BYTES = 1 << 20
# How long a client may stay silent in the middle of a body.
BODY_TIMEOUT_S = 30.0
# Asked by whoever starts containers, under any name; they neither change nor tell anything.
ANY_HOST_PATHS = frozenset({"/healthz", "/readyz"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]{1,253})(:\d{1,5})?")


class OwnNames:
    """Answers 421 to requests for other hosts, and 403 to changes that foreign web pages ask for.

    Args:
        app: The application behind.
        host: Address that the API binds.
        allowed: More names that it has; one that begins with a dot stands for all names that end so.
        token: Whether requests need one; if so, all names are its own.
    """

    def __init__(self, app: ASGIApp, host: str, allowed: Iterable[str], *, token: bool) -> None:
        self._app, self._token = app, token
        names = {name.lower() for name in ("localhost", socket.gethostname(), host, *allowed)}
        self._suffixes = (".localhost", *(name for name in names if name.startswith(".")))
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host")
        if host is None:  # HTTP/1.0: no browser
            return None
        match = _HOST.fullmatch(host)
        if match is None:
            return _refused(400, "BadHost", f"Host: got {host[:80]!r}, expected NAME or NAME:PORT")
        if self._token or scope["path"] in ANY_HOST_PATHS:
            return None
        if not self._own(match["name"]):
            return _refused(
                421,
                "ForeignHost",
                f"this learner is not known as {match['name'][:80]!r}; name it by its address, or add the name to "
                "NEWT_LEARNER_ALLOWED_HOSTS",
            )
        origin = headers.get("origin")
        if scope["method"] in SAFE_METHODS or origin is None or _place(origin) == host.lower():
            return None
        return _refused(
            403,
            "ForeignOrigin",
            f"a page of {origin[:80]!r} asked for this; without NEWT_API_TOKEN only pages of {host} may",
        )

    def _own(self, name: str) -> bool:
        name = name.lower().rstrip(".")
        if name in self._names or name.endswith(self._suffixes):
            return True
        try:
            ipaddress.ip_address(name.strip("[]").partition("%")[0])
        except ValueError:
            return False
        return True


class BodyLimit:
    """Answers 413 to bodies above a limit, without reading on, and 408 to clients that fall silent in one.

    Args:
        app: The application behind.
        max_upload_bytes: Most bytes of an upload; everything else is JSON of at most MAX_JSON_BYTES.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int) -> None:
        self._app, self._max_upload_bytes = app, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = scope["method"] == "PUT" and scope["path"].startswith("/checkpoints/")
        limit, setting = (
            (self._max_upload_bytes, "; NEWT_LEARNER_MAX_CHECKPOINT_BYTES allows more")
            if upload
            else (MAX_JSON_BYTES, "")
        )
        message = f"the body may have {limit:,} bytes{setting}"
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > limit:
            await _refused(413, "TooLarge", message)(scope, receive, send)
            return
        received, complete = 0, False

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:  # what follows is the end of the connection, which may take as long as it likes
                return await receive()
            with anyio.move_on_after(BODY_TIMEOUT_S) as waiting:
                event = await receive()
            if waiting.cancelled_caught:
                raise HTTPException(408, f"nothing of the body came for {BODY_TIMEOUT_S:g} s")
            received += len(event.get("body", b""))
            complete = not event.get("more_body", False)
            if received > limit:
                raise HTTPException(413, message)
            return event

        await self._app(scope, bounded, send)


def _place(origin: str) -> str:
    """Host and port of an origin, as a Host header would have them."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _refused(status: int, kind: str, message: str) -> JSONResponse:
    return JSONResponse(ApiError(error=kind, message=message).model_dump(mode="json"), status)
