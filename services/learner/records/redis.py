"""The Redis client of the run records: its connection errors are ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from newt.errors import UnavailableError
from newt.redis_errors import trouble

TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0


def connect(url: str) -> Any:
    """A client that connects lazily and raises UnavailableError when Redis does not answer."""
    return Guarded(
        redis.Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="backslashreplace",  # bytes that are no text make one record unreadable, not the reply
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_keepalive=True,
            # What Redis has not got when we give up is never sent: after a partition the kernel would deliver old
            # progress behind new.
            socket_keepalive_options={socket.TCP_USER_TIMEOUT: int(1000 * TIMEOUT_S)},
        )
    )


class Guarded:
    """Passes every call on to a client or pipeline of redis-py, translating its errors."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def pipeline(self, **options: Any) -> Guarded:
        """A guarded pipeline; nothing is sent before `execute`."""
        return Guarded(self._client.pipeline(**options))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with _translated():
                try:
                    return method(*args, **kwargs)
                except (redis.ConnectionError, redis.TimeoutError):
                    # If one connection is dead, so are those that lie unused: after a partition each of them would
                    # take some call a whole timeout to find out.
                    self._client.connection_pool.disconnect(inuse_connections=False)
                    raise

        return call


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        reason, text = trouble(error, "Redis with the run records", "NEWT_LEARNER_")
        if reason in ("corrupt", "other"):  # Who asked for the record knows what that means.
            raise
        if reason == "full":
            text += ": nothing that it holds is lost; raise its maxmemory, or delete runs, then retry"
        raise UnavailableError(text) from error
