"""Watches Redis from a thread: loads the mirror, repairs differences, and says whether the service is ready."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from newt.errors import NewtError
from services.replay import metrics
from services.replay.catalog import Catalog
from services.replay.store import Store

log = structlog.get_logger(__name__)


class Monitor:
    """Checks Redis again and again until stopped.

    Args:
        store: Redis.
        catalog: What to keep in step with it.
        set_ready: Told at every change: True while Redis answers and the mirror is complete.
        interval_s: Between two checks.
        appendfsync: Set when (re)connecting unless "keep".
    """

    def __init__(
        self, store: Store, catalog: Catalog, set_ready: Callable[[bool], None], interval_s: float, appendfsync: str
    ) -> None:
        self._store, self._catalog, self._set_ready = store, catalog, set_ready
        self._interval_s, self._appendfsync = interval_s, appendfsync
        self._redis_run_id = ""
        self._ready = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="redis-monitor", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread; returns when it has ended."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        problem = ""
        while not self._stopped.is_set():
            try:
                self._check()
            except NewtError as error:
                metrics.REDIS_UP.set(0)
                if str(error) != problem:
                    log.error("redis_unavailable", error=str(error))
                problem = str(error)
                self._publish(False)
            except Exception:
                # A defect of ours must not end the watch: without it the service would look healthy for ever.
                log.exception("redis_check_failed")
                self._publish(False)
            else:
                metrics.REDIS_UP.set(1)
                problem = ""
                self._publish(True)
            self._catalog.observe()
            self._stopped.wait(self._interval_s)

    def _check(self) -> None:
        facts = self._store.facts()
        if facts.redis_run_id != self._redis_run_id:
            if facts.maxmemory_policy != "noeviction":
                log.error(
                    "redis_evicts",
                    maxmemory_policy=facts.maxmemory_policy,
                    advice="set maxmemory-policy to noeviction, or Redis will silently drop episodes",
                )
            if self._appendfsync != "keep":
                self._store.set_appendfsync(self._appendfsync)
            if not facts.aof:
                log.warning("redis_without_aof", advice="set appendonly yes, or a restart of Redis loses episodes")
            log.info("redis_connected", redis_run_id=facts.redis_run_id)
            self._redis_run_id = facts.redis_run_id
        self._catalog.refresh()

    def _publish(self, ready: bool) -> None:
        if ready != self._ready:
            self._ready = ready
            self._set_ready(ready)
