"""From draws to the groups of a SampleResponse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from newt.wire.episodes import Floats
from newt.wire.tensors import encode
from newt.wire.v1 import replay_pb2
from services.replay.ring import Ints, TaskRing
from services.replay.sampler import Bools, Draws, Pool


@dataclass(frozen=True)
class Group:
    """n sequences of one task, demos first.

    Attributes:
        task_index: Index of the task in its run.
        obs_dim: Columns of the observation.
        rows: float32[n, H+1, O+A+1], see TaskRing.
        image: float32[n, H+1, X]; None in state-only runs.
        ends_task: bool[n], whether the last transition ended the task; None if none did.
        demo_count: How many are demos.
    """

    task_index: int
    obs_dim: int
    rows: Floats
    image: Floats | None
    ends_task: Bools | None
    demo_count: int

    def encode(self) -> replay_pb2.SequenceGroup:
        """The message, with valid columns only."""
        group = replay_pb2.SequenceGroup(
            task_index=self.task_index,
            obs=encode(self.rows[:, :, : self.obs_dim]),
            action=encode(self.rows[:, :-1, self.obs_dim : -1]),
            reward=encode(self.rows[:, :-1, -1]),
            demo_count=self.demo_count,
        )
        if self.ends_task is not None:
            terminated = np.zeros((len(self.rows), self.rows.shape[1] - 1), np.bool_)
            terminated[:, -1] = self.ends_task
            group.terminated.CopyFrom(encode(terminated))
        if self.image is not None:
            group.image.CopyFrom(encode(self.image))
        return group


def gather(parts: Sequence[tuple[Pool, Draws]], horizon: int, with_image: bool) -> list[Group]:
    """Copies the drawn sequences out of the mirrors, grouped by task.

    Args:
        parts: The demo part and the online part of a batch.
        horizon: H.
        with_image: Whether the run has image features.
    """
    if not any(len(draws.starts) for _, draws in parts):
        return []
    rings = [ring for pool, _ in parts for ring in pool.rings]
    first_ring = np.cumsum([0, *(len(pool.rings) for pool, _ in parts)])
    ring = np.concatenate([draws.source + first for (_, draws), first in zip(parts, first_ring[:-1], strict=True)])
    tasks = np.concatenate([pool.tasks for pool, _ in parts])[ring]
    demo = np.concatenate([pool.demo for pool, _ in parts])[ring]
    order = np.lexsort((ring, ~demo, tasks))
    ring, tasks, demo = ring[order], tasks[order], demo[order]
    starts = np.concatenate([draws.starts for _, draws in parts])[order]
    ends_task = np.concatenate([draws.ends_task for _, draws in parts])[order]
    rows = (starts[:, None] + np.arange(horizon + 1)).ravel()

    some_end = bool(ends_task.any())
    task_cuts = _cuts(tasks)
    ring_cuts = _cuts(ring)
    demo_counts = np.add.reduceat(demo, task_cuts[:-1], dtype=np.int64).tolist()
    groups = []
    k = 0
    for begin, stop, demo_count in zip(task_cuts[:-1], task_cuts[1:], demo_counts, strict=True):
        pieces = []
        while ring_cuts[k] < stop:
            low, high = ring_cuts[k], ring_cuts[k + 1]
            pieces.append((rings[ring[low]], rows[low * (horizon + 1) : high * (horizon + 1)]))
            k += 1
        shape = (stop - begin, horizon + 1, -1)
        ends = ends_task[begin:stop]
        groups.append(
            Group(
                task_index=int(tasks[begin]),
                obs_dim=pieces[0][0].obs_dim,
                rows=_joined(pieces, TaskRing.take).reshape(shape),
                image=_joined(pieces, TaskRing.take_images).reshape(shape) if with_image else None,
                ends_task=ends if some_end and ends.any() else None,
                demo_count=demo_count,
            )
        )
    return groups


def _cuts(values: Ints) -> list[int]:
    """Where runs of equal values begin, and the end of the last one."""
    return [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]


def _joined(pieces: Sequence[tuple[TaskRing, Ints]], take: Callable[[TaskRing, Ints], Floats]) -> Floats:
    taken = [take(ring, rows) for ring, rows in pieces]
    return taken[0] if len(taken) == 1 else np.concatenate(taken)
