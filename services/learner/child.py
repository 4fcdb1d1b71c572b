"""What the processes of a run share: how they start, and how they notice that they must stop."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO, TypeVar

import structlog

from newt import logs, trace
from newt.agent.distributed import PeerLostError
from newt.errors import NewtError, UnavailableError
from newt.runs.record import Run
from newt.security import redis_address
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore, SupersededError
from services.learner.writer import RunWriter

EXIT_DONE = 0
EXIT_FAILED = 1  # The run has been marked as failed; starting the process again would not help.
EXIT_STOPPED = 3  # Asked to stop.
EXIT_PEER_LOST = 4  # Another process of the same training died or hangs; this one would go on.

log = structlog.get_logger(__name__)


class RunFailedError(Exception):
    """The run cannot go on; the message is the cause that users see."""


class Stopped(Exception):  # noqa: N818 - not an error
    """The process was asked to stop."""


class StopFlag:
    """Set when the process must stop: SIGTERM, SIGINT, or the death of the API, whose end of our stdin closes."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Asks the process to stop."""
        self._event.set()

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
            self._event.set()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)

    def _until_eof(self) -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        self._event.set()


@dataclass(frozen=True)
class Context:
    """What a run's process works with."""

    settings: LearnerSettings
    run: Run
    writer: RunWriter
    stop: StopFlag

    @property
    def directory(self) -> Path:
        """The run's folder."""
        return Path(self.run.directory)


def run_child(name: str, work: Callable[[Context], None], *, alone: bool = True) -> int:
    """Runs the body of a process of a run: `python -m services.learner.<name> --run ID --attempt N`.

    Args:
        name: Of the process.
        work: Its body.
        alone: It must be the only process of its kind that works on the run.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--run", required=True)
    parser.add_argument("--attempt", required=True, type=int)
    arguments = parser.parse_args()
    settings = LearnerSettings()
    logs.configure(name, settings.log_level)
    structlog.contextvars.bind_contextvars(run=arguments.run, attempt=arguments.attempt)
    stop = StopFlag()
    stop.watch()
    store = RunStore.connect(redis_address(settings.redis_url))
    writer = RunWriter(store, arguments.run, arguments.attempt)
    lock = None
    try:
        run = patiently(lambda: store.get(arguments.run), stop)
        trace.follow_in_process(run.request_id, run.id)
        log.info("process_started")
        lock = lock_file(Path(run.directory) / f"{name}.lock", stop) if alone else None
        work(Context(settings, run, writer, stop))
    except (Stopped, SupersededError) as reason:
        log.info("process_stopped", reason=str(reason) or "asked to stop")
        return EXIT_STOPPED
    except RunFailedError as error:
        cause = str(error)
        log.error("run_failed", error=cause)
        patiently(lambda: writer.fail(cause), stop)
        return EXIT_FAILED
    except PeerLostError as error:
        if stop.is_set():  # so were the others, who ended first
            return EXIT_STOPPED
        log.error("peer_lost", error=str(error))
        return EXIT_PEER_LOST
    finally:
        if lock is not None:
            lock.close()
    return EXIT_DONE


T = TypeVar("T")


def patiently(call: Callable[[], T], stop: StopFlag) -> T:
    """Repeats a call while its service is unavailable, for as long as it takes. Raises Stopped when asked to stop."""
    waiting = False
    while True:
        try:
            return call()
        except UnavailableError as error:
            if not waiting:
                log.warning("retrying", reason=str(error))
            waiting = True
        stop.sleep(0.5)


def loosely(call: Callable[[], object]) -> None:
    """Makes a call whose failure must not stop the run: a progress report."""
    try:
        call()
    except NewtError as error:
        log.warning("report_failed", error=str(error))


def lock_file(path: Path, stop: StopFlag) -> TextIO:
    """Waits until no other process has the lock: after a restart of the API a predecessor may still be writing its last
    checkpoint or episode. The lock ends with the process, or when the file is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("w")
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            stop.sleep(0.1)
