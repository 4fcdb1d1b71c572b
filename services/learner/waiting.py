"""Waiting for services that are away, and telling whom one waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import grpc
import structlog

from newt.errors import ExhaustedError, LostError, UnavailableError
from newt.wire.status import rpc_code
from services.learner.child import RunFailedError, StopFlag

T = TypeVar("T")

_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_REMEDY = "start it, or correct its address in the learner's settings"
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)

log = structlog.get_logger(__name__)


class Patience:
    """Repeats calls while their service is away.

        patience = Patience(stop)
        plan = patience.call("planner at 127.0.0.1:50071", lambda: planner.plan(...))
        patience.waiting_on  # "planner at 127.0.0.1:50071: connection refused", from another thread

    Args:
        stop: Ends every wait with Stopped.
        limit_s: How long a service may be away where a call says nothing; None: for as long as it takes.
        remedies: What to do about services that stay away, by their names in calls.
    """

    def __init__(self, stop: StopFlag, limit_s: float | None = None, remedies: Mapping[str, str] | None = None) -> None:
        self.stop = stop
        self._limit_s = limit_s
        self._remedies = dict(remedies or {})
        self._lock = threading.Lock()
        self._waits: dict[str, str] = {}

    @property
    def waiting_on(self) -> str | None:
        """Who is being waited for, and the last answer; None if nobody."""
        with self._lock:
            return "; ".join(f"{name}: {reason}" for name, reason in self._waits.items()) or None

    def call(self, name: str, function: Callable[[], T], timeout_s: float | None = None) -> T:
        """The result of a call that may be repeated.

        Args:
            name: Whom it needs, for people.
            function: The call; is repeated when its service is unavailable, full, or has lost work.
            timeout_s: How long the service may be away; None: `limit_s`.

        Raises:
            RunFailedError: The service stayed away.
            Stopped: The process must stop.
        """
        start, pause = time.monotonic(), _PAUSE_S
        timeout_s = self._limit_s if timeout_s is None else timeout_s
        try:
            while True:
                self.stop.check()
                try:
                    return function()
                except (UnavailableError, LostError, ExhaustedError, grpc.RpcError) as error:
                    if not _is_away(error):
                        raise
                    reason = _text(error)
                    if timeout_s is not None and time.monotonic() - start > timeout_s:
                        raise RunFailedError(
                            f"{name} did not answer for {timeout_s:g} s ({reason}); "
                            f"{self._remedies.get(name, _REMEDY)}, and resume the run, or ask for the evaluation again"
                        ) from error
                    with self._lock:
                        if name not in self._waits:
                            log.warning("waiting", on=name, reason=reason)
                        self._waits[name] = reason
                self.stop.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        finally:
            with self._lock:
                self._waits.pop(name, None)


def _is_away(error: Exception) -> bool:
    return not isinstance(error, grpc.RpcError) or rpc_code(error) in _AWAY


def _text(error: Exception) -> str:
    if not isinstance(error, grpc.RpcError):
        return str(error)
    code = rpc_code(error)
    return code.name if code else repr(error)
