"""Memory mirror of one buffer or demo set: its episodes by task, and the order in which they came."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from newt.errors import InvalidInputError
from newt.wire.episodes import Episode
from services.replay.blocks import Blocks
from services.replay.checks import encoders_differ
from services.replay.store import EPISODE_OVERHEAD_BYTES
from services.replay.task_episodes import Ints, TaskEpisodes


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


class _Held(NamedTuple):
    number: int
    task: str
    rows: int
    size_bytes: int


class Mirror:
    """What Redis holds of one space, ready for sampling. Not thread-safe: the catalog's lock guards all mirrors.

    Attributes:
        next: Sequence number that the next episode gets.
        tasks: Episodes held by task; a task that had some stays.
        totals: Totals by task, over all episodes ever mirrored here; for demo sets these are the ones held.
        rows: Rows held.
        size_bytes: Redis bytes of the episodes held, Redis' own overhead included.
    """

    def __init__(self) -> None:
        self.next = 0
        self.tasks: dict[str, TaskEpisodes] = {}
        self.totals: dict[str, TaskTotals] = {}
        self.rows = 0
        self.size_bytes = 0
        self._order: deque[_Held] = deque()
        self._blocks = Blocks()

    @property
    def episodes(self) -> int:
        """Episodes held."""
        return len(self._order)

    def check(self, episode: Episode) -> None:
        """Refuses an episode whose dims differ from those of the task's earlier ones (InvalidInputError)."""
        held = self.tasks.get(episode.task)
        if held is None:
            return
        got = (episode.obs.shape[1], episode.action.shape[1], episode.image_dim)
        want = (held.obs_dim, held.action_dim, held.image_dim)
        if got != want:
            raise InvalidInputError(
                "episode.obs", f"got obs, action and image dims {got}, expected {want} as in {episode.task!r} before"
            )
        if encoders_differ(episode.image_encoder, held.image_encoder):
            raise InvalidInputError(
                "episode.image_encoder",
                f"got {episode.image_encoder!r}, expected {held.image_encoder!r} as in {episode.task!r} before",
            )

    def append(self, number: int, episode: Episode, payload_bytes: int) -> None:
        """Adds an episode under its sequence number, which must not be below `next`; it must pass `check`."""
        task = self.tasks.get(episode.task)
        if task is None:
            task = TaskEpisodes(self._blocks, episode.obs.shape[1], episode.action.shape[1], episode.image_dim)
            self.tasks[episode.task] = task
        task.append(episode)
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
            self.tasks[held.task].evict()
            self.rows -= held.rows
            self.size_bytes -= held.size_bytes
            count += 1
        if count:
            oldest = self.tasks[self._order[0].task].oldest_block if self._order else self._blocks.newest
            self._blocks.give_back(before=oldest)
        return count

    def order(self) -> tuple[list[str], Ints]:
        """Tasks and rows int64[N] of the episodes held, oldest first."""
        return [held.task for held in self._order], np.array([held.rows for held in self._order], np.int64)
