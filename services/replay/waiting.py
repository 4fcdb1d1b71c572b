"""Calls that wait for a buffer to change: woken by the change itself, and saying on whom they wait."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from newt.wire.v1 import replay_pb2
from services.replay import metrics

LOG_AFTER_SECONDS = 60.0
# The blocked-seconds metric moves at least this often during a wait.
_ACCOUNT_SECONDS = 10.0

Side: TypeAlias = "replay_pb2.LimiterSide.ValueType"
_LABELS = {replay_pb2.LIMITER_SIDE_SAMPLE: "sample", replay_pb2.LIMITER_SIDE_INSERT: "insert"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Obstacle:
    """Why a call has to wait.

    Attributes:
        why: Reason, for the log.
        starved: It waits for episodes as such, not for the limiter.
    """

    why: str
    starved: bool = False


@dataclass(frozen=True)
class Caller:
    """Who waits.

    Attributes:
        alive: False once the client has gone.
        deadline: Deadline in time.monotonic() seconds; the wait ends then.
    """

    alive: Callable[[], bool]
    deadline: float


class WaitingRoom:
    """The calls that one buffer holds back.

    Args:
        buffer_id: Id of the buffer, for the log.
        lock: Guards what the obstacles look at; `wake` and `wait` are called with it held.
    """

    def __init__(self, buffer_id: str, lock: threading.RLock) -> None:
        self._buffer_id = buffer_id
        self._changed = threading.Condition(lock)
        self._waiting: Counter[Side] = Counter()
        self._starving = 0

    @property
    def side(self) -> Side:
        """The side held back now."""
        for side in _LABELS:
            if self._waiting[side]:
                return side
        return replay_pb2.LIMITER_SIDE_UNSPECIFIED

    @property
    def starving(self) -> bool:
        """Whether a call waits for episodes as such."""
        return self._starving > 0

    def wake(self) -> None:
        """Lets every waiting call look again."""
        self._changed.notify_all()

    def wait(self, side: Side, obstacle: Callable[[], Obstacle | None], caller: Caller) -> float:
        """Returns when there is no obstacle, the caller has gone, or its deadline has passed.

        Args:
            side: Which side this call belongs to.
            obstacle: Asked at every change; may raise to end the wait.
            caller: Call that waits.

        Returns:
            Seconds waited; 0 if there was no obstacle.
        """
        reason = obstacle()
        if reason is None:
            return 0.0
        start = accounted = time.monotonic()
        next_log = start + LOG_AFTER_SECONDS
        self._waiting[side] += 1
        starving = False
        try:
            while reason is not None and caller.alive():
                now = time.monotonic()
                if now >= caller.deadline:
                    break
                if now >= next_log:
                    log.warning(
                        "replay_blocked",
                        buffer_id=self._buffer_id,
                        side=_LABELS[side],
                        waited_s=round(now - start),
                        why=reason.why,
                    )
                    next_log = now + LOG_AFTER_SECONDS
                if reason.starved != starving:
                    starving = reason.starved
                    self._starving += 1 if starving else -1
                    self.wake()
                self._changed.wait(min(caller.deadline, next_log, now + _ACCOUNT_SECONDS) - now)
                now = time.monotonic()
                metrics.BLOCKED.labels(_LABELS[side]).inc(now - accounted)
                accounted = now
                reason = obstacle()
        finally:
            self._waiting[side] -= 1
            self._starving -= starving
        return time.monotonic() - start
