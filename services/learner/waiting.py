"""Waiting for services that are away, and telling whom one waits for."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TextIO, TypeVar

import structlog

from newt.errors import ExhaustedError, LostError, NewtError, UnavailableError
from newt.wire.peer import Peer
from newt.wire.retry import Backoff, until_available

T = TypeVar("T")

_BACKOFF = Backoff(0.1, 2.0)
_AWAY = (UnavailableError, LostError, ExhaustedError)

log = structlog.get_logger(__name__)

EXIT_DONE = 0
EXIT_FAILED = 1  # The run has been marked as failed; starting the process again would not help.
EXIT_STOPPED = 3  # Asked to stop.
EXIT_PEER_LOST = 4  # Another process of the same training died or hangs; this one would go on.


class RunFailedError(Exception):
    """The run cannot go on; the message is the cause that users see."""


class PeerGoneError(Exception):
    """Another process of the same training died or hangs; this one would go on."""


class Stopped(Exception):  # noqa: N818 - not an error
    """The process was asked to stop."""


class StopFlag:
    """Set when the process must stop: SIGTERM, SIGINT, or the death of the API, whose end of our stdin closes."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._waiting: list[threading.Condition] = []

    def set(self) -> None:
        """Asks the process to stop."""
        self._event.set()
        if self._waiting:  # In a thread, because a signal's handler must not wait for a lock.
            threading.Thread(target=self._wake, name="stop", daemon=True).start()

    def wakes(self, condition: threading.Condition) -> None:
        """Notifies whoever waits for a condition when the process must stop; they must `check` before they wait."""
        self._waiting.append(condition)

    def _wake(self) -> None:
        for condition in self._waiting:
            with condition:
                condition.notify_all()

    def is_set(self) -> bool:
        """Whether the process must stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raises Stopped if the process must stop."""
        if self._event.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Waits; raises Stopped at once if the process must stop."""
        if self._event.wait(seconds):
            raise Stopped

    def watch(self) -> None:
        """Installs the signal handlers and the watch on stdin; call from the main thread."""
        self.watch_signals()
        threading.Thread(target=self._until_eof, name="stdin", daemon=True).start()

    def watch_signals(self) -> None:
        """Installs the signal handlers alone, in a process that has no parent of ours; call from the main thread."""

        def handle(signum: int, frame: FrameType | None) -> None:
            self.set()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)

    def _until_eof(self) -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        self.set()


class Patience:
    """Waits for services that are away, and tells for whom; what clients take as their `patience`.

        patience = Patience(stop)
        planner = PlannerClient("127.0.0.1:50071", patience=patience)
        patience.waiting_on  # "planner at 127.0.0.1:50071 cannot be reached (...)", from another thread

    Args:
        stop: Ends every wait with Stopped.
        limit_s: How long a service may be away; None: for as long as it takes.
    """

    def __init__(self, stop: StopFlag, limit_s: float | None = None) -> None:
        self._stop = stop
        self._limit_s = self._first_limit_s = limit_s
        self._answered: set[str] = set()
        self._lock = threading.Lock()
        self._waits: dict[str, str] = {}

    def at_first(self, limit_s: float) -> Patience:
        """The same for services that must answer their first call within `limit_s` seconds; waits are told together."""
        other = Patience(self._stop, self._limit_s)
        other._first_limit_s = limit_s
        other._lock, other._waits = self._lock, self._waits
        return other

    def pause(self, seconds: float) -> None:
        """Waits before the same is asked again; raises Stopped."""
        self._stop.sleep(seconds)

    @property
    def waiting_on(self) -> str | None:
        """Who is being waited for, and the last answer; None if nobody."""
        with self._lock:
            return "; ".join(self._waits.values()) or None

    def note(self, who: str, what: str | None) -> None:
        """Something is waited for that no call can tell; None: not any more."""
        with self._lock:
            if what is None:
                self._waits.pop(who, None)
            else:
                self._waits[who] = what

    def call(self, peer: Peer, call: Callable[[], T]) -> T:
        """The result of a call that is repeated while its service is unavailable, full, or has lost work.

        Raises:
            RunFailedError: The service stayed away.
            Stopped: The process must stop.
        """
        who = str(peer)
        limit_s = self._limit_s if who in self._answered else self._first_limit_s
        deadline = None if limit_s is None else time.monotonic() + limit_s

        def heard(error: NewtError) -> None:
            reason = str(error)
            reason = reason if who in reason else f"{who}: {reason}"
            with self._lock:
                if who not in self._waits:
                    log.warning("waiting", on=who, reason=reason)
                self._waits[who] = reason

        self._stop.check()
        try:
            result = until_available(call, deadline, _BACKOFF, self._stop.sleep, on=_AWAY, heard=heard)
        except _AWAY as error:
            raise RunFailedError(
                f"{who} did not answer for {limit_s:g} s ({error}); {peer.remedy}, and resume the run, or ask for the "
                "evaluation again"
            ) from error
        except NewtError:
            self._answered.add(who)
            raise
        finally:
            with self._lock:
                self._waits.pop(who, None)
        self._answered.add(who)
        return result


def patiently(call: Callable[[], T], stop: StopFlag) -> T:
    """Repeats a call while its service is unavailable, for as long as it takes. Raises Stopped when asked to stop."""
    told = False

    def heard(error: NewtError) -> None:
        nonlocal told
        if not told:
            log.warning("retrying", reason=str(error))
        told = True

    return until_available(call, None, _BACKOFF, stop.sleep, heard=heard)


def loosely(call: Callable[[], object]) -> None:
    """Makes a call whose failure must not stop the run: a progress report."""
    try:
        call()
    except NewtError as error:
        log.warning("report_failed", error=str(error))


def is_locked(path: Path) -> bool:
    """Whether a process has the lock."""
    if not path.exists():
        return False
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def lock_file(path: Path, stop: StopFlag) -> TextIO:
    """Waits until no other process has the lock, which ends with the process, or when the file is closed.

    After a restart of the API a predecessor may still be writing its last checkpoint or episode.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("w")
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            stop.sleep(0.1)
