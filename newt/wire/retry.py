"""The one way to wait for a service that is away: try again, a little later each time, until it answers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from newt.errors import NewtError, UnavailableError

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """Pauses between tries: each twice as long as the one before, shortened at random so that callers spread out.

    Attributes:
        first_s: Longest first pause.
        longest_s: Longest pause of all.
    """

    first_s: float = 0.1
    longest_s: float = 1.0

    def pauses(self) -> Iterator[float]:
        """The pauses, without end."""
        pause_s = self.first_s
        while True:
            yield pause_s * random.uniform(0.5, 1.0)
            pause_s = min(2 * pause_s, self.longest_s)


def until_available(
    call: Callable[[], T],
    deadline: float | None,
    backoff: Backoff = Backoff(),
    sleep: Callable[[float], object] = time.sleep,
    *,
    on: tuple[type[NewtError], ...] = (UnavailableError,),
    heard: Callable[[NewtError], None] | None = None,
) -> T:
    """The result of a call that is repeated while its service is away.

    Args:
        call: One try. It must have a deadline of its own, and be harmless to repeat.
        deadline: `time.monotonic()` beyond which no try begins; None: for as long as it takes.
        backoff: Pauses between the tries.
        sleep: Waits so many seconds, or raises when there is a reason to give up, such as the end of the process.
        on: Errors after which to try again.
        heard: Is told each error that another try follows.

    Raises:
        NewtError: What the last try said, once the deadline has passed; any other error of a try at once.
    """
    for pause_s in backoff.pauses():
        try:
            return call()
        except on as error:
            if deadline is not None and time.monotonic() + pause_s >= deadline:
                raise
            if heard is not None:
                heard(error)
        sleep(pause_s)
    raise AssertionError  # pauses() has no end
