"""A child process, as its parent sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from newt.processes import how_it_ended, last_words
from services.learner.settings import LearnerSettings


class Child:
    """One process of a job. It stops by itself when this process dies, because its stdin closes.

    Args:
        module: Python module to run.
        arguments: Its command line.
        settings: Passed on through the environment.
        log_path: File that its stderr is appended to.
        on_exit: Called, from another thread, when it has ended.
        talks: Whether to speak with it: `send` lines and read those of `lines`.

    Raises:
        OSError: The log cannot be written, or no process be made.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        settings: LearnerSettings,
        log_path: Path,
        on_exit: Callable[[], None] = lambda: None,
        *,
        talks: bool = False,
    ) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path = log_path
        # The token of the API is the API's alone.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEWT_API_")}
        with log_path.open("ab") as stderr:
            self._log_start = stderr.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else subprocess.DEVNULL,
                stderr=stderr,
                env={**inherited, **settings.environment()},
                start_new_session=True,  # Ctrl-C reaches the API alone, which then stops its children in order.
            )
        self._on_exit = on_exit
        self._ended = threading.Event()
        threading.Thread(target=self._await_exit, name=f"child-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while the process lives; negative: the signal that ended it."""
        return self._process.returncode if self._ended.is_set() else None

    def send(self, line: str) -> None:
        """Writes a line to its stdin; one that has ended hears nothing. One thread at a time."""
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # ValueError: it was closed
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def lines(self) -> Iterator[bytes]:
        """The lines of its stdout, until it ends; of a child that talks."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            yield from lines

    def terminate(self) -> None:
        """Asks the process to stop."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for the end of the process; False if it still lives."""
        return self._ended.wait(timeout_s)

    def how_it_ended(self) -> str:
        """How the process ended, with its own last lines on stderr."""
        words = "\n".join(last_words(self.log_path, self._log_start))
        how = how_it_ended(self._process.returncode)
        return f"{how}; its last lines: {words}" if words else f"{how} and said nothing"

    def _await_exit(self) -> None:
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):  # what it did not read is lost
                self._process.stdin.close()
        self._ended.set()
        self._on_exit()


def end(children: Collection[Child], grace_s: float) -> None:
    """Asks all to stop, together, and kills those that still live after `grace_s` seconds."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        if not child.wait(max(0.0, deadline - time.monotonic())):
            child.kill()
            child.wait(5.0)
