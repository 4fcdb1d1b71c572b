"""Code of torch.compile, made in a thread while the process computes eagerly."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Hashable
from typing import NoReturn

import structlog

_THREAD = "compile"
NICENESS = 10  # of the thread that makes code: what needs it goes first

log = structlog.get_logger(__name__)


def leave(status: int) -> NoReturn:
    """Ends the process; at once if code is being made, since Python would abort when it ends above a compiler."""
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.name == _THREAD for thread in threading.enumerate()):
        os._exit(status)
    sys.exit(status)


class CodeMaker:
    """Makes code for each kind of model once, one kind after the other, in a thread that ends when all is made.

        maker = CodeMaker()
        model.generated = maker.event(kind)  # set when models of its kind have code to run
        maker.make(kind, lambda: ...)

    A kind whose code cannot be made goes on eagerly.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[Hashable, threading.Event] = {}
        self._begun: set[Hashable] = set()
        self._waiting: list[tuple[Hashable, Callable[[], object]]] = []
        self._thread: threading.Thread | None = None

    def event(self, kind: Hashable) -> threading.Event:
        """What is set when there is code for a kind."""
        with self._lock:
            return self._events.setdefault(kind, threading.Event())

    def make(self, kind: Hashable, generate: Callable[[], object]) -> None:
        """Has code made, unless it is made or being made already.

        Args:
            kind: Models of one kind share their code.
            generate: Uses a model so that all its code comes into being; called in another thread.
        """
        with self._lock:
            if kind in self._begun:
                return
            self._begun.add(kind)
            self._waiting.append((kind, generate))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=_THREAD, daemon=True)
                self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether nothing is being made any more, at the latest after `timeout_s` seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                kind, generate = self._waiting.pop(0)
            start = time.monotonic()
            try:
                generate()
            except Exception as error:
                log.error("code_not_made", remedy="it is done without", exc_info=error)
                continue
            self.event(kind).set()
            log.info("code_made", seconds=round(time.monotonic() - start, 1))
