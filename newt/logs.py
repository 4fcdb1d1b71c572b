"""Structured logs: one JSON object per line on stderr, one stable event name and the request behind it."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from newt import trace


class _Stderr:
    """Standard error, but for what it cannot take: a log file on a full disk ends no process."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def configure(service: str, level: str = "INFO") -> None:
    """Sets up logging for this process; call once at start.

    Args:
        service: Put into every line.
        level: DEBUG, INFO, WARNING or ERROR.
    """

    def add_origin(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # Not a context variable: those do not reach threads that were started elsewhere.
        event["service"] = service
        followed = trace.current()
        if followed is not None:
            event.setdefault("request_id", followed.request_id)
            if followed.run:
                event.setdefault("run", followed.run)
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_origin,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
