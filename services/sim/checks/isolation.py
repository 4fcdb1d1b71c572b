"""Work on many tasks, each domain in processes of its own.

Domains may not share a process (their libraries fight), a simulator may take its process along when it fails, and
drawing contexts are only freed with their process: hence a few tasks of one domain per process, and no more.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import IO, Generic, TypeVar

from newt.tasks.registry import Task

R = TypeVar("R")

_TASKS_PER_PROCESS = 8


@dataclass(frozen=True)
class Failed:
    """A task brought no result.

    Attributes:
        cause: The exception, the signal or the limit that ended the work.
    """

    cause: str


@dataclass
class _Child(Generic[R]):
    process: SpawnProcess
    pending: deque[Task]
    stderr: IO[bytes]
    started: float
    stuck: bool = False


def for_each_task(
    work: Callable[[Task], R], tasks: Sequence[Task], jobs: int, timeout_s: float
) -> Iterator[tuple[Task, R | Failed]]:
    """Yields each task with its result, in the order in which they are done.

    Args:
        work: Takes a task; it and its results are pickled.
        tasks: Tasks of any domains.
        jobs: Processes at a time.
        timeout_s: Time for one task.
    """
    waiting = deque(_portions(tasks))
    children: dict[Connection, _Child[R]] = {}
    try:
        while waiting or children:
            while waiting and len(children) < jobs:
                connection, child = _start(work, waiting.popleft())
                children[connection] = child
            for ready in wait(list(children), timeout=1.0):
                assert isinstance(ready, Connection)
                child = children[ready]
                try:
                    result: R | Failed = ready.recv()
                except (EOFError, OSError):  # It has ended, of itself or otherwise.
                    del children[ready]
                    ready.close()
                    child.process.join()
                    if child.pending:
                        yield child.pending.popleft(), Failed(_cause(child, timeout_s))
                    child.stderr.close()
                    if child.pending:
                        waiting.appendleft(list(child.pending))
                else:
                    child.started = time.monotonic()
                    yield child.pending.popleft(), result
            for child in children.values():
                if time.monotonic() > child.started + timeout_s:
                    child.stuck = True
                    child.process.kill()
    finally:
        for child in children.values():
            child.process.kill()
            child.process.join()
            child.stderr.close()


def _portions(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    by_domain: dict[str, list[Task]] = {}
    for task in tasks:
        by_domain.setdefault(task.domain, []).append(task)
    for members in by_domain.values():
        for low in range(0, len(members), _TASKS_PER_PROCESS):
            yield members[low : low + _TASKS_PER_PROCESS]


def _start(work: Callable[[Task], R], tasks: list[Task]) -> tuple[Connection, _Child[R]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    # Drivers talk much that matters only if they crash. Closed with the child.
    stderr = tempfile.NamedTemporaryFile(prefix="newt-tasks-")  # noqa: SIM115
    process = context.Process(target=_serve, args=(work, tasks, theirs, stderr.name), daemon=True)
    process.start()
    theirs.close()
    return ours, _Child(process, deque(tasks), stderr, time.monotonic())


def _serve(work: Callable[[Task], R], tasks: list[Task], connection: Connection, stderr: str) -> None:
    words = os.open(stderr, os.O_WRONLY | os.O_APPEND)
    os.dup2(words, sys.stdout.fileno())
    os.dup2(words, sys.stderr.fileno())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Without a traceback: the parent has one already.
    for task in tasks:
        try:
            connection.send(work(task))
        except Exception as error:
            connection.send(Failed(f"{type(error).__name__}: {error}"))
    # Not through the interpreter's shutdown: graphics drivers are known to crash in it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _cause(child: _Child[R], timeout_s: float) -> str:
    if child.stuck:
        return f"not done after {timeout_s:.0f} s"
    code = child.process.exitcode or 0
    end = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    child.stderr.seek(0)
    last = child.stderr.read()[-2000:].decode(errors="replace").strip()
    return f"its process {end}" + (f"; its last words:\n{last}" if last else "")
