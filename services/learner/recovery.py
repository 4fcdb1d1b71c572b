"""Takes over what an earlier learner has left, as soon as Redis answers."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from newt.errors import NewtError

RETRY_S = 1.0
STOP_TIMEOUT_S = 10.0

log = structlog.get_logger(__name__)


class Recovery:
    """Makes calls in the background, each again and again until it has succeeded once.

        recovery = Recovery({"evaluations": jobs.recover, "demos": demo_jobs.recover})
        recovery.start()

    The API serves meanwhile, so a call must not touch what has been started since. It may be repeated after a part of
    its work is done.

    Args:
        calls: By name, for the logs. None of them waits for another to succeed.
    """

    def __init__(self, calls: dict[str, Callable[[], None]]) -> None:
        self._calls = calls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="recovery", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Gives up what has not succeeded; the next learner will do it."""
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_S)

    def _loop(self) -> None:
        left, told = dict(self._calls), set[str]()
        while left:
            for name, call in list(left.items()):
                try:
                    call()
                except Exception as error:  # no surprise in one may keep the others from being made
                    if name not in told:
                        surprise = not isinstance(error, NewtError)
                        log.warning("not_recovered_yet", what=name, error=str(error), exc_info=surprise)
                    told.add(name)
                else:
                    log.info("recovered", what=name)
                    del left[name]
            if left and self._stop.wait(RETRY_S):
                return
