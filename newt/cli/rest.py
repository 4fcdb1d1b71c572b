"""HTTP calls of the learner's REST API, with errors that a person can act on."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from pydantic import ValidationError

from newt.errors import InvalidInputError, NewtError, NotFoundError, UnavailableError
from newt.local import control
from newt.runs import record
from newt.runs.stored import read_json
from newt.security import SecuritySettings

UPLOAD_TIMEOUT_S = 600.0
UrlOption = Annotated[
    str | None, typer.Option("--url", help="Learner's base URL. Default: $NEWT_URL or the local stack.")
]


class RefusedError(NewtError):
    """The API refused a request; the message is the API's own."""


class Api:
    """The REST API of one learner; sends the token of NEWT_API_TOKEN or NEWT_API_TOKEN_FILE, if there is one.

    Args:
        url: Base URL. None: $NEWT_URL, or else the local stack of `newt up`.
        timeout_s: How long an answer may let wait for it.

    Raises:
        UnavailableError: No URL was given and no local stack runs; or a proxy of the environment cannot be used.
        InvalidInputError: The URL makes no sense.
        SecurityError: The token cannot be read, or is no good token.
    """

    def __init__(self, url: str | None = None, timeout_s: float = 30.0) -> None:
        self.url = url or os.environ.get("NEWT_URL") or _local_url()
        token = SecuritySettings().token()
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token is not None else {}
        self._http = _client(self.url, headers, timeout_s)

    def get(self, path: str, **params: Any) -> Any:
        """GET; returns the decoded JSON."""
        return self._call("GET", path, params={key: value for key, value in params.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        """POST a JSON body; returns the decoded JSON."""
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH with a JSON body; returns the decoded JSON."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE; returns the decoded JSON, if there is any."""
        return self._call("DELETE", path)

    def upload(self, path: str, source: Path) -> Any:
        """PUT a file; returns the decoded JSON."""
        with source.open("rb") as content:
            return self._call("PUT", path, content=content, timeout=UPLOAD_TIMEOUT_S)

    def download(self, path: str, target: Path) -> None:
        """GET into a file, complete or not at all."""
        partial = target.with_name(target.name + ".part")
        with self._reachable(), self._http.stream("GET", path) as reply:
            if reply.is_error:
                reply.read()
                raise _error_of(reply)
            with partial.open("wb") as out:
                for piece in reply.iter_bytes():
                    out.write(piece)
        partial.replace(target)

    def lines(self, path: str) -> Iterator[str]:
        """GET a stream of text, line by line. Raises UnavailableError if it is cut off."""
        with self._reachable(), self._http.stream("GET", path) as reply:
            if reply.is_error:
                reply.read()
                raise _error_of(reply)
            yield from reply.iter_lines()

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        with self._reachable():
            reply = self._http.request(method, path, **kwargs)
        if reply.is_error:
            raise _error_of(reply)
        return reply.json() if reply.content else None

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise UnavailableError(
                f"no answer from {self.url} ({error}); is the stack up? `newt status` tells"
            ) from error


def _client(url: str, headers: dict[str, str], timeout_s: float) -> httpx.Client:
    try:
        base = httpx.URL(url)
        if base.scheme not in ("http", "https") or not base.host or (base.port or 0) > 65_535:
            raise httpx.InvalidURL("no http://HOST:PORT or https://HOST:PORT")
        # The environment's proxies are for the way out: on this machine there is none to take.
        return httpx.Client(base_url=base, headers=headers, timeout=timeout_s, trust_env=not is_loopback(base.host))
    except httpx.InvalidURL as error:
        raise InvalidInputError("--url", f"got {url!r} ({error}), expected something like http://host:8000") from error
    except (ImportError, ValueError) as error:
        raise UnavailableError(
            f"cannot reach {url} through the proxy that the environment names (ALL_PROXY, HTTPS_PROXY, ...): {error} "
            "Or name the host in NO_PROXY."
        ) from error


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _local_url() -> str:
    state = control.read(control.default_home())
    if state is None or state.state != "running":
        raise UnavailableError(
            "no local stack is running; start one with `newt up`, or name a server with --url or $NEWT_URL"
        )
    return state.rest_url


def _error_of(reply: httpx.Response) -> NewtError:
    try:
        body = read_json(record.ApiError, reply.content)
    except ValidationError:
        # Not our API's words: a proxy, or another server on that port.
        return RefusedError(f"{reply.request.method} {reply.request.url}: HTTP {reply.status_code}")
    if body.fields:
        problems = "; ".join(f"{item.field}: {item.message}" for item in body.fields)
        return RefusedError(f"the request was refused: {problems}")
    kinds: dict[int, type[NewtError]] = {404: NotFoundError, 503: UnavailableError}
    return kinds.get(reply.status_code, RefusedError)(body.message)
