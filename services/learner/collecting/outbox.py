"""Where groups hand in their episodes: stored at once, or, if shards of replay may be left out, behind their backs."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Self

import structlog

from newt.client.shards import Replay, ReplayShards
from newt.wire.episodes import Episode
from services.learner.collecting.pace import Pace
from services.learner.waiting import Stopped

# Episodes that may wait for one shard, by the size of their arrays.
ROOM_BYTES = 256 << 20

log = structlog.get_logger(__name__)


class Outbox:
    """Stores the episodes of all groups, and tells their pace.

    Groups wait until an episode is stored. Where shards that are away are left out, one of them must not hold up the
    tasks of the others: a thread for each shard stores its episodes, which wait in memory meanwhile. When there is no
    room for more, its tasks' episodes are given up, as if their simulators had crashed, until it is back.

    Args:
        replay: Client of replay.
        buffer_id: The run's id.
        pace: Is told what is stored and what is given up.
        room_bytes: Size of the episodes that may wait for one shard.
    """

    def __init__(self, replay: Replay, buffer_id: str, pace: Pace, room_bytes: int = ROOM_BYTES) -> None:
        self._replay, self._buffer_id, self._pace = replay, buffer_id, pace
        self._room_bytes = room_bytes
        self._lock = threading.Lock()  # Guards the tables below.
        self._queues: dict[int, queue.SimpleQueue[tuple[int, Episode] | None]] = {}
        self._waiting_bytes: dict[int, int] = {}
        self._full: set[int] = set()
        self._threads: list[threading.Thread] = []

    def put(self, group: int, episode: Episode) -> None:
        """Takes an episode of a group; returns when it is stored, or waits for a shard that may be left out."""
        if not isinstance(self._replay, ReplayShards) or not self._replay.leaves_out:
            self._store(group, episode)
            return
        shard = self._replay.shard_of(self._buffer_id, episode.task)
        with self._lock:
            fits = self._waiting_bytes.get(shard, 0) + _size(episode) <= self._room_bytes
            if fits:
                self._waiting_bytes[shard] = self._waiting_bytes.get(shard, 0) + _size(episode)
                self._queue(shard).put((group, episode))
            told, full = shard in self._full, not fits
            (self._full.add if full else self._full.discard)(shard)
        if full:
            self._pace.gave_up(group, episode.transitions)
            if not told:
                log.warning(
                    "episodes_given_up", shard=shard, why="replay's shard is away, and there is no room for more"
                )

    def _queue(self, shard: int) -> queue.SimpleQueue[tuple[int, Episode] | None]:
        if shard not in self._queues:
            self._queues[shard] = queue.SimpleQueue()
            thread = threading.Thread(target=self._send, args=(shard,), name=f"outbox-{shard}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return self._queues[shard]

    def _send(self, shard: int) -> None:
        try:
            while (entry := self._queues[shard].get()) is not None:
                if not self._pace.is_over():  # What is too late would be one more than was asked for.
                    self._store(*entry)
                with self._lock:
                    self._waiting_bytes[shard] -= _size(entry[1])
        except Stopped:
            pass
        except BaseException as error:
            self._pace.fail(error)

    def _store(self, group: int, episode: Episode) -> None:
        reply = self._replay.append(episode, buffer_id=self._buffer_id)
        # One line per episode would be many; whoever checks that none is lost asks for them.
        log.debug("episode_acknowledged", episode=episode.episode_id, duplicate=reply.duplicate)
        self._pace.stored(group, episode, reply)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for waiting in self._queues.values():
                waiting.put(None)
        for thread in self._threads:
            thread.join(1.0)  # One that still waits for its shard ends with the process.


def _size(episode: Episode) -> int:
    image = 0 if episode.image is None else episode.image.nbytes
    return episode.obs.nbytes + episode.action.nbytes + episode.reward.nbytes + image
