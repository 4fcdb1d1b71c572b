"""Which thread answers a call: a lane for each kind of call, so that no kind can take the threads of another.

gRPC's server runs every call in a thread, and an open stream keeps its thread however long it says nothing. Streams
therefore have threads of their own, as many as there may be streams: surplus ones are refused at once. So do those that
watch the server's health. Other calls wait for a thread in a queue that has a limit. Health checks and refusals have
threads that nothing else can hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health

from newt.errors import ExhaustedError, NewtError, UnavailableError

IDLE_S = 60.0
"""A stream whose client has neither sent nor read anything for so long makes room when all places are taken."""
_HEALTH_THREADS = 8
_MAX_WATCHES = 32
# Calls that may wait, for each thread that answers some.
_QUEUED_PER_THREAD = 3
# Refusals and health checks under way; they take microseconds.
_SPARE_CALLS = 1_000

log = structlog.get_logger(__name__)


class _Pool(futures.ThreadPoolExecutor):
    """Threads, and how many calls they have to answer: those in a thread and those that wait for one."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._count_lock = threading.Lock()
        self.calls = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """As in the base class."""
        future = super().submit(function, *arguments, **options)
        self._add(1)
        future.add_done_callback(lambda _: self._add(-1))
        return future

    def _add(self, calls: int) -> None:
        with self._count_lock:
            self.calls += calls


class OpenStream:
    """One stream that is being answered, and since when it has been waiting for its client."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self._waits_since: float | None = None

    def wait(self) -> None:
        """From now on the client has to send or to read something."""
        self._waits_since = time.monotonic()

    def go_on(self) -> None:
        """It has."""
        self._waits_since = None

    def idle_s(self) -> float:
        """Seconds that the client has kept us waiting; 0 while it waits for us."""
        since = self._waits_since
        return 0.0 if since is None else time.monotonic() - since

    def end(self) -> None:
        """Cancels the call."""
        self._context.cancel()


class Lanes:
    """The threads of one server.

    Args:
        service: Full name, for messages.
        threads: That answer calls of one request and one reply.
        streams: That may be open at once; each has a thread.
        env_prefix: Prefix of the settings max_threads and max_streams, for messages; empty if there are none.
    """

    def __init__(self, service: str, threads: int, streams: int, env_prefix: str = "") -> None:
        self._service, self._streams_limit, self._env_prefix = service, streams, env_prefix
        self._calls_limit = threads * (1 + _QUEUED_PER_THREAD)
        self.calls = _Pool(threads, "rpc")
        self._streams = _Pool(streams, "stream")
        self._health = _Pool(_HEALTH_THREADS, "health")
        self._watches = _Pool(_MAX_WATCHES, "watch")
        self._lock = threading.Lock()
        self._open: set[OpenStream] = set()

    @property
    def limit(self) -> int:
        """Calls of all kinds that can ever be under way."""
        return self._calls_limit + self._streams_limit + _MAX_WATCHES + _SPARE_CALLS

    def choose(self, method: str, is_stream: bool) -> tuple[futures.ThreadPoolExecutor, NewtError | None]:
        """Where to answer a call.

        Args:
            method: Its full path.
            is_stream: Whether requests or replies are streamed.

        Returns:
            Threads, and why to refuse the call if it is to be refused.
        """
        if method == f"/{health.SERVICE_NAME}/Check":
            return self._health, None
        if method == f"/{health.SERVICE_NAME}/Watch":
            if self._watches.calls < _MAX_WATCHES:
                return self._watches, None
            return self._health, ExhaustedError(f"{_MAX_WATCHES} clients watch {self._service}, the limit: use Check")
        if is_stream:
            if self._streams.calls < self._streams_limit:
                return self._streams, None
            return self._health, self._make_room()
        if self.calls.calls < self._calls_limit:
            return self.calls, None
        return self._health, ExhaustedError(
            f"{self._calls_limit} calls of {self._service} wait or are being answered{self._setting('MAX_THREADS')}: "
            "call again later, or less often"
        )

    @contextmanager
    def open(self, context: grpc.ServicerContext) -> Iterator[OpenStream]:
        """While a stream is being answered."""
        stream = OpenStream(context)
        with self._lock:
            self._open.add(stream)
        try:
            yield stream
        finally:
            with self._lock:
                self._open.discard(stream)

    def _make_room(self) -> NewtError:
        limit = f"all {self._streams_limit} streams of {self._service} are in use{self._setting('MAX_STREAMS')}"
        with self._lock:
            idlest = max(self._open, key=OpenStream.idle_s, default=None)
            idle_s = idlest.idle_s() if idlest else 0.0
            if idlest is None or idle_s < IDLE_S:
                return ExhaustedError(f"{limit}: end one that is not needed")
            self._open.discard(idlest)
        log.warning("idle_stream_ended", service=self._service, idle_s=round(idle_s), limit=self._streams_limit)
        idlest.end()
        return UnavailableError(f"{limit}; one that was idle has just been ended, so call again")

    def _setting(self, name: str) -> str:
        return f" (the limit of {self._env_prefix}{name})" if self._env_prefix else ", which is the limit"
