"""Processes as those see them who started them: how often one may be started again, and how one ended."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

LAST_LINES = 12
# Enough for the last lines; a log may have grown for weeks.
_TAIL_BYTES = 64 << 10


class RestartBudget:
    """How often something that dies is started again: `limit` times within any `window_s` seconds.

        budget = RestartBudget(3, 300.0)
        if not budget.spend():
            give_up()

    Args:
        limit: Restarts within the window.
        window_s: Its length.
        clock: Monotonic seconds.
    """

    def __init__(self, limit: int, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.window_s = limit, window_s
        self._clock = clock
        self._spent: deque[float] = deque()

    def spend(self) -> bool:
        """Takes one restart, if one is left."""
        if self.used >= self.limit:
            return False
        self._spent.append(self._clock())
        return True

    @property
    def used(self) -> int:
        """Restarts within the window."""
        while self._spent and self._spent[0] < self._clock() - self.window_s:
            self._spent.popleft()
        return len(self._spent)

    @property
    def wait_s(self) -> float:
        """Seconds until there is another restart; 0 if there is one."""
        if self.used < self.limit:
            return 0.0
        return self._spent[0] + self.window_s - self._clock() if self._spent else self.window_s


def how_it_ended(status: int) -> str:
    """How a process ended, from its return code: negative ones name the signal."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def last_words(log: Path, start: int = 0, lines: int = LAST_LINES) -> list[str]:
    """The last lines that a process wrote; none if its log cannot be read.

    Args:
        log: What it wrote to, perhaps after others.
        start: Position at which its own words begin.
        lines: How many, at most.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(min(end, max(start, end - _TAIL_BYTES)))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
