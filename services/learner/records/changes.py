"""Who waits for a record to change is told, instead of looking again and again.

Whatever writes a record adds its name to one short stream in Redis. One task reads that stream for the whole process.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis.asyncio
import structlog

from services.learner.records import keys
from services.learner.records.redis import CONNECT_TIMEOUT_S

BLOCK_S = 5.0
RETRY_S = 1.0

log = structlog.get_logger(__name__)


class Watch:
    """Notes that one record has changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """It has changed."""
        self._event.set()

    async def changed(self, timeout_s: float) -> bool:
        """Waits for the next change, or one since the last call; whether there was one in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        there = self._event.is_set()
        self._event.clear()
        return there


class Changes:
    """Reads the stream of changes; all calls belong to one event loop.

        with changes.watch(keys.record("run", run_id)) as watch:
            while await watch.changed(15.0):
                ...  # read the record

    Args:
        url: URL of Redis, with its password.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._watches: defaultdict[str, set[Watch]] = defaultdict(set)

    @contextmanager
    def watch(self, record: str) -> Iterator[Watch]:
        """Watches a record; what has happened before may be told once more."""
        watch = Watch()
        self._watches[record].add(watch)
        try:
            yield watch
        finally:
            self._watches[record].discard(watch)
            if not self._watches[record]:
                del self._watches[record]

    async def run(self) -> None:
        """Reads until it is cancelled. While Redis is away nobody is told; when it is back, everybody is."""
        told = False
        while True:
            try:
                async with redis.asyncio.Redis.from_url(
                    self._url,
                    decode_responses=True,
                    socket_connect_timeout=CONNECT_TIMEOUT_S,
                    socket_timeout=2 * BLOCK_S,
                ) as client:
                    await self._read(client)
            except (redis.RedisError, OSError) as error:
                if not told:
                    log.warning("changes_unknown", error=str(error))
                told = True
            await asyncio.sleep(RETRY_S)

    async def _read(self, client: Any) -> None:
        newest = await client.xrevrange(keys.CHANGES, count=1)
        position = newest[0][0] if newest else "0"
        for watches in list(self._watches.values()):
            self._tell(watches)
        while True:
            found = await client.xread({keys.CHANGES: position}, block=int(1000 * BLOCK_S))
            for entry, fields in found[0][1] if found else ():
                position = entry
                self._tell(self._watches.get(fields.get("record", ""), set()))

    def _tell(self, watches: set[Watch]) -> None:
        for watch in watches:
            watch.tell()
