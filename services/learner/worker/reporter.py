"""Telling how far the work is, again and again, from a thread that nothing ends before the work does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from newt.errors import NewtError, NotFoundError
from services.learner.records.jobs import SupersededError
from services.learner.waiting import StopFlag

REPORT_EVERY_S = 1.0

log = structlog.get_logger(__name__)


@contextmanager
def every(seconds: float, report: Callable[[], None], stop: StopFlag) -> Iterator[None]:
    """Calls `report` at intervals while a block runs, and once more at its end, however it ends.

    A report that fails, in whatever way, is the loss of one report. One that says that the work is not this process's
    any more (SupersededError, or NotFoundError of a deleted record) stops the process.

    Args:
        seconds: Between two reports.
        report: Tells; is never called twice at once.
        stop: Stop flag of the process.
    """
    over = threading.Event()

    def tell() -> None:
        try:
            report()
        except (SupersededError, NotFoundError) as error:
            log.info("work_taken_away", reason=str(error))
            stop.set()
        except NewtError as error:
            log.warning("report_failed", error=str(error))
        except Exception:
            log.exception("report_failed")

    def loop() -> None:
        while not over.wait(seconds):
            tell()

    thread = threading.Thread(target=loop, name="report", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell()
