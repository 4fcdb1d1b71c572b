"""Which of several replay services a task is kept on, and how much of a batch each of them draws."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from newt.tasks.registry import UnknownTaskError, get_task
from newt.wire.v1 import replay_pb2


def home(task: str, shards: int) -> int:
    """The shard of a task of which nothing is stored yet.

    Tasks of the published table go round the shards in turn, so that each has as many, of every domain; others by their
    names' checksums.

    Args:
        task: Its name.
        shards: How many there are.
    """
    try:
        index = get_task(task).index
    except UnknownTaskError:
        index = None
    return (zlib.crc32(task.encode()) if index is None else index) % shards


def capacities(capacity_rows: int, task_shards: Sequence[int], shards: int) -> list[int]:
    """Rows that each shard may keep, by its number of tasks; together as many as the whole.

    Args:
        capacity_rows: Of the whole buffer.
        task_shards: Shard of each task.
        shards: How many there are.
    """
    ends = np.cumsum(np.bincount(np.asarray(task_shards, np.int64), minlength=shards)).tolist()
    ranks = [capacity_rows * end // len(task_shards) for end in ends]
    # A buffer has two rows, also one of no tasks.
    return [max(2, last - first) for first, last in zip([0, *ranks[:-1]], ranks, strict=True)]


def parts(
    rng: np.random.Generator, supplies: Sequence[replay_pb2.Supply], batch_size: int, demo_fraction: float
) -> list[replay_pb2.Part] | None:
    """What each shard draws of a batch, so that it is distributed as if one service had drawn it.

    Each sequence picks a shard in proportion to the episodes, starts or tasks that it can draw from; the shard then
    picks one of its own. In a mixed batch, a part (demos, online) that has nothing leaves its share to the other.

    Args:
        rng: Source of randomness.
        supplies: What each shard has.
        batch_size: B.
        demo_fraction: Share of sequences from demos.

    Returns:
        One part for each shard; None if there is nothing to draw from.
    """
    demos, online = [supply.demos for supply in supplies], [supply.online for supply in supplies]
    demo_count = round(batch_size * demo_fraction)
    if 0 < demo_fraction < 1:
        if not sum(demos):
            demo_count = 0
        elif not sum(online):
            demo_count = batch_size
    online_count = batch_size - demo_count
    if (demo_count and not sum(demos)) or (online_count and not sum(online)):
        return None
    pairs = zip(_spread(rng, demo_count, demos), _spread(rng, online_count, online), strict=True)
    return [replay_pb2.Part(demos=demo, online=live) for demo, live in pairs]


def _spread(rng: np.random.Generator, count: int, weights: Sequence[int]) -> list[int]:
    """How many of `count` draws fall to each; integers, so that no rounding favours anybody."""
    if not count:
        return [0] * len(weights)
    ends = np.cumsum(weights)
    drawn = np.searchsorted(ends, rng.integers(int(ends[-1]), size=count), side="right")
    counts: list[int] = np.bincount(drawn, minlength=len(weights)).tolist()
    return counts
