"""One buffer's or demo set's episodes in Redis and in memory, kept in step."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from newt.errors import CorruptDataError, InvalidInputError, NotFoundError, UnavailableError
from newt.wire.episodes import Episode
from services.replay import metrics
from services.replay.episode import pack, unpack
from services.replay.mirror import Mirror
from services.replay.store import Appended, Meta, SpaceKey, Store

# Redis with appendfsync everysec may lose the last second of writes it acknowledged, two in the worst case, when it is
# killed. The service keeps its appends for longer than that and stores again what Redis has forgotten.
JOURNAL_SECONDS = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Entry:
    time: float
    number: int
    episode_id: str
    task: str
    transitions: int
    payload: bytes


class Space:
    """Appends to Redis first, then to the mirror; finds and repairs any difference between the two.

    An append names the sequence number that it expects to get. If Redis expects another one, a reply was lost,
    another instance wrote, or Redis came back with less than it had acknowledged: `sync` then reads what the
    mirror lacks, or stores again what Redis lacks, and the append is repeated.

    Args:
        store: Redis.
        key: Name of the space.
        meta: Its state in Redis.
        lock: Guards the mirrors; taken for short times only.
        changed: Called with the lock held whenever the mirror or the counters have changed.

    Attributes:
        meta: Counters as of the last append or sync.
        mirror: The episodes.
        broken: Sequence numbers of episodes that cannot be read and are left out.
    """

    def __init__(
        self, store: Store, key: SpaceKey, meta: Meta, lock: threading.RLock, changed: Callable[[], None]
    ) -> None:
        self.key, self.meta, self.mirror = key, meta, Mirror()
        self.changed = changed
        self.broken: set[int] = set()
        self._store, self._lock = store, lock
        self._writing = threading.Lock()  # One append or repair at a time; held during round trips to Redis.
        self._journal: deque[_Entry] = deque()
        self._deleted = False

    def load(self) -> None:
        """Fills the mirror of a new object with what Redis holds."""
        with self._writing:
            self._read(self.meta)

    def append(self, episode: Episode, timeout_s: float) -> Appended:
        """Stores an episode in Redis and mirrors it.

        Args:
            episode: Checked already.
            timeout_s: Time for waiting until other appends to this space have ended.

        Raises:
            UnavailableError: Redis cannot be reached, or is too slow. Repeating the append is harmless.
            ExhaustedError: Redis is full.
            InvalidInputError: Its dims differ from those of the task's earlier episodes.
            NotFoundError: The space was deleted meanwhile.
        """
        payload = pack(episode)
        if not self._writing.acquire(timeout=max(0.0, timeout_s)):
            raise UnavailableError(f"{self.key}: earlier appends still wait for Redis; retry")
        try:
            self._require_not_deleted()
            self.mirror.check(episode)
            for _ in range(3):
                appended = self._store.append(
                    self.key,
                    self.meta.incarnation,
                    self.mirror.next,
                    episode.episode_id,
                    payload,
                    episode.transitions,
                    episode.task,
                )
                in_step = appended.next == self.mirror.next + (appended.status == "stored")
                if appended.status in ("stored", "duplicate") and in_step:
                    if appended.status == "stored":
                        self._mirror(episode, payload, appended)
                    return appended
                self._sync()
        finally:
            self._writing.release()
        raise UnavailableError(f"{self.key}: other writers kept coming first; retry")

    def sync(self) -> None:
        """Brings Redis and the mirror into step.

        Raises:
            UnavailableError: Redis cannot be reached.
            NotFoundError: Redis has no such space, and it cannot be restored, or should not be: it was deleted.
        """
        with self._writing:
            self._require_not_deleted()
            self._sync()
            self._prune(time.monotonic())

    def unpack(self, number: int, payload: bytes) -> Episode | None:
        """An episode out of Redis; None for one that cannot be read, which is logged and counted."""
        try:
            episode = unpack(payload)
            self.mirror.check(episode)
        except (CorruptDataError, InvalidInputError, ValueError) as error:
            if number not in self.broken:
                log.error("episode_corrupt", space=str(self.key), number=number, error=str(error))
            self.broken.add(number)
            return None
        return episode

    def configure(self, config: bytes, capacity_rows: int) -> None:
        """Replaces config and capacity; evicts what no longer fits."""
        with self._writing:
            if self._store.configure(self.key, self.meta.incarnation, config, capacity_rows) < 0:
                raise NotFoundError(f"{self.key} was deleted")
            self._sync()

    def delete(self) -> int:
        """Removes the space from Redis; returns the number of its episodes.

        An append that has found this object before must not take the removal for a loss, and repair it.
        """
        with self._writing:
            episodes = self.mirror.episodes
            self._store.delete(self.key)
            self._deleted = True
            return episodes

    def _require_not_deleted(self) -> None:
        if self._deleted:
            raise NotFoundError(f"{self.key} was deleted")

    def _mirror(self, episode: Episode, payload: bytes, appended: Appended) -> None:
        now = time.monotonic()
        self._prune(now)
        number = self.mirror.next
        self._journal.append(_Entry(now, number, episode.episode_id, episode.task, episode.transitions, payload))
        with self._lock:
            self.mirror.append(number, episode, len(payload))
            self._evict(appended.head)
            self.meta.env_steps = appended.env_steps
            self.meta.task_steps[episode.task] = appended.task_steps
            self.meta.task_episodes[episode.task] = appended.task_episodes
            self.changed()

    def _prune(self, now: float) -> None:
        """Forgets old appends; only when Redis has just been seen in step."""
        while self._journal and self._journal[0].time < now - JOURNAL_SECONDS:
            self._journal.popleft()

    def _evict(self, head: int) -> None:
        evicted = self.mirror.evict(head)
        if evicted:
            metrics.EVICTED.inc(evicted)

    def _sync(self) -> None:
        meta = self._store.meta(self.key)
        if meta is None or not meta.incarnation or meta.next < self.mirror.next:
            if meta is not None and meta.incarnation != self.meta.incarnation:
                raise NotFoundError(f"{self.key} was deleted")
            meta = self._restore(meta.next if meta else 0)
        elif meta.incarnation != self.meta.incarnation:
            raise NotFoundError(f"{self.key} was deleted and made again")
        self._read(meta)

    def _restore(self, redis_next: int) -> Meta:
        """Stores again what Redis acknowledged and then forgot, as far as it is still at hand."""
        lost = [entry for entry in self._journal if entry.number >= redis_next]
        if [entry.number for entry in lost] != list(range(redis_next, self.mirror.next)):
            return self._accept_loss(redis_next)
        self._store.restore(self.key, self.meta)
        for entry in lost:
            outcome = self._store.append(
                self.key,
                self.meta.incarnation,
                entry.number,
                entry.episode_id,
                entry.payload,
                entry.transitions,
                entry.task,
            )
            if outcome.status != "stored":
                raise UnavailableError(f"{self.key}: Redis changes while it is being repaired; retry")
        log.warning("redis_restored", space=str(self.key), episodes=len(lost))
        meta = self._store.meta(self.key)
        if meta is None:
            raise UnavailableError(f"{self.key}: Redis changes while it is being repaired; retry")
        return meta

    def _accept_loss(self, redis_next: int) -> Meta:
        log.error(
            "redis_lost_episodes",
            space=str(self.key),
            had=self.mirror.next,
            has=redis_next,
            advice="Redis came back with older data than it had acknowledged; check its append-only file and its disk",
        )
        meta = self._store.meta(self.key)
        if meta is None:
            raise NotFoundError(f"Redis has lost {self.key}; restore its data or create it again")
        with self._lock:
            self.mirror = Mirror()
        self._journal.clear()
        return meta

    def _read(self, meta: Meta) -> None:
        """Mirrors the episodes from mirror.next on, and takes over the counters."""
        for number, payload in self._store.read(self.key, meta, first=self.mirror.next):
            if payload is None:
                continue  # Evicted by another instance since the counters were read.
            episode = self.unpack(number, payload)
            if episode is None:
                continue
            with self._lock:
                self.mirror.append(number, episode, len(payload))
        with self._lock:
            self.mirror.next = meta.next
            self._evict(meta.head)
            self.broken = {number for number in self.broken if number >= meta.head}
            meta.updates = max(meta.updates, self.meta.updates)
            self.meta = meta
            self.changed()
