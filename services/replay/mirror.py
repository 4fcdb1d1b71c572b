"""Memory mirror of one buffer or demo set: a ring per task, and the order in which episodes came."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from newt.errors import InvalidInputError
from newt.wire.episodes import Episode
from services.replay.checks import encoders_differ
from services.replay.ring import Ints, TaskRing
from services.replay.store import EPISODE_OVERHEAD_BYTES


@dataclass
class TaskTotals:
    """Sums over the episodes of one task; the means of a demo set come from them."""

    episodes: int = 0
    rows: int = 0
    returns: float = 0.0
    scores: float = 0.0
    successes: float = 0.0
    with_success: int = 0

    def add(self, episode: Episode) -> None:
        """Counts an episode in."""
        self.episodes += 1
        self.rows += episode.transitions + 1
        self.returns += float(episode.reward.sum(dtype=np.float64))
        self.scores += episode.score
        if not np.isnan(episode.success):
            self.successes += episode.success
            self.with_success += 1


@dataclass(frozen=True)
class _Held:
    number: int
    task: str
    rows: int
    size_bytes: int


class Mirror:
    """What Redis holds of one space, ready for sampling. Not thread-safe: the catalog's lock guards all mirrors.

    Attributes:
        next: Sequence number that the next episode gets.
        rings: Rings by task.
        totals: Totals by task, over all episodes ever mirrored here; for demo sets these are the ones held.
        rows: Rows held.
        size_bytes: Redis bytes of the episodes held, Redis' own overhead included.
    """

    def __init__(self) -> None:
        self.next = 0
        self.rings: dict[str, TaskRing] = {}
        self.totals: dict[str, TaskTotals] = {}
        self.rows = 0
        self.size_bytes = 0
        self._order: deque[_Held] = deque()

    @property
    def episodes(self) -> int:
        """Episodes held."""
        return len(self._order)

    def check(self, episode: Episode) -> None:
        """Refuses an episode whose dims differ from those of the task's earlier ones (InvalidInputError)."""
        ring = self.rings.get(episode.task)
        if ring is None:
            return
        got = (episode.obs.shape[1], episode.action.shape[1], episode.image_dim)
        want = (ring.obs_dim, ring.action_dim, ring.image_dim)
        if got != want:
            raise InvalidInputError(
                "episode.obs", f"got obs, action and image dims {got}, expected {want} as in {episode.task!r} before"
            )
        if encoders_differ(episode.image_encoder, ring.image_encoder):
            raise InvalidInputError(
                "episode.image_encoder",
                f"got {episode.image_encoder!r}, expected {ring.image_encoder!r} as in {episode.task!r} before",
            )

    def append(self, number: int, episode: Episode, payload_bytes: int) -> None:
        """Adds an episode under its sequence number, which must not be below `next`; it must pass `check`."""
        ring = self.rings.get(episode.task)
        if ring is None:
            ring = TaskRing(episode.obs.shape[1], episode.action.shape[1], episode.image_dim)
            self.rings[episode.task] = ring
        ring.append(episode)
        held = _Held(number, episode.task, episode.transitions + 1, payload_bytes + EPISODE_OVERHEAD_BYTES)
        self._order.append(held)
        self.totals.setdefault(episode.task, TaskTotals()).add(episode)
        self.rows += held.rows
        self.size_bytes += held.size_bytes
        self.next = number + 1

    def evict(self, head: int) -> int:
        """Drops the episodes below sequence number `head`; returns how many."""
        count = 0
        while self._order and self._order[0].number < head:
            held = self._order.popleft()
            self.rings[held.task].evict()
            self.rows -= held.rows
            self.size_bytes -= held.size_bytes
            count += 1
        return count

    def order(self) -> tuple[list[str], Ints]:
        """Tasks and rows int64[N] of the episodes held, oldest first."""
        return [held.task for held in self._order], np.array([held.rows for held in self._order], np.int64)
