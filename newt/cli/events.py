"""Following what the learner tells: server-sent events, over restarts of the learner."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from newt.cli.rest import Api
from newt.errors import UnavailableError

RETRY_S = 1.0
# The learner may be restarting; its work goes on.
PATIENCE_S = 60.0

T = TypeVar("T")


def follow(
    api: Api, path: str, parse: Callable[[Any], T], update: Callable[[T, Any], T], ended: Callable[[T], bool]
) -> Iterator[T]:
    """A record now, and whenever it changes, until it has ended.

    Args:
        api: Api of the learner.
        path: Path of the record; its events are below.
        parse: Makes a record of its JSON.
        update: Makes the next record of one and the data of a `progress` event.
        ended: Whether nothing will change any more.

    Raises:
        UnavailableError: The learner has been away for a minute.
        NotFoundError: There is no such record, or not any more.
    """
    while True:
        record = _patiently(lambda: parse(api.get(path)))
        yield record
        if ended(record):
            return
        with suppress(UnavailableError):  # cut off: what has changed meanwhile is in the record
            for data in progress(api, f"{path}/events"):
                record = update(record, data)
                if ended(record):
                    break
                yield record
            else:
                time.sleep(RETRY_S)


def _patiently(read: Callable[[], T]) -> T:
    since = time.monotonic()
    while True:
        try:
            return read()
        except UnavailableError:
            if time.monotonic() - since > PATIENCE_S:
                raise
            time.sleep(RETRY_S)


def progress(api: Api, path: str) -> Iterator[Any]:
    """The data of all `progress` events until the stream ends. Raises UnavailableError if it is cut off."""
    event, data = "", ""
    for line in api.lines(path):
        name, _, value = line.partition(": ")
        if name == "event":
            event = value
        elif name == "data":
            data = value
        elif not line:
            if event == "progress":
                yield json.loads(data)
            event = data = ""
