"""From drawn windows to the groups of a SampleResponse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.wire.tensors import encode
from newt.wire.v1 import replay_pb2
from services.replay.episode import Floats
from services.replay.ring import TaskRing
from services.replay.sampler import Pick


@dataclass(frozen=True)
class Group:
    """Sequences of one task, demos first.

    Attributes:
        task_index: Of the run.
        ring: Any of the task's rings; tells the columns.
        rows: float32[n, H+1, O+A+1].
        image: float32[n, H+1, X]; None in state-only runs.
        ends_task: bool[n], whether the last transition ended the task.
        demo_count: How many are demos.
    """

    task_index: int
    ring: TaskRing
    rows: Floats
    image: Floats | None
    ends_task: npt.NDArray[np.bool_]
    demo_count: int

    def encode(self) -> replay_pb2.SequenceGroup:
        """The message, with valid columns only."""
        obs_dim = self.ring.obs_dim
        group = replay_pb2.SequenceGroup(
            task_index=self.task_index,
            obs=encode(self.rows[:, :, :obs_dim]),
            action=encode(self.rows[:, :-1, obs_dim:-1]),
            reward=encode(self.rows[:, :-1, -1]),
            demo_count=self.demo_count,
        )
        if self.ends_task.any():
            terminated = np.zeros((len(self.rows), self.rows.shape[1] - 1), np.bool_)
            terminated[:, -1] = self.ends_task
            group.terminated.CopyFrom(encode(terminated))
        if self.image is not None:
            group.image.CopyFrom(encode(self.image))
        return group


def gather(picks: Iterable[Pick], horizon: int, with_image: bool) -> list[Group]:
    """Copies the windows out of the mirrors, grouped by task."""
    ordered = sorted(picks, key=lambda pick: (pick.source.task_index, not pick.source.demo))
    by_task = groupby(ordered, lambda pick: pick.source.task_index)
    return [_group(index, list(of_task), horizon, with_image) for index, of_task in by_task]


def _group(task_index: int, picks: Sequence[Pick], horizon: int, with_image: bool) -> Group:
    rings = [pick.source.windows.ring for pick in picks]
    pairs = list(zip(rings, picks, strict=True))
    return Group(
        task_index=task_index,
        ring=rings[0],
        rows=_joined([ring.gather(pick.starts, horizon) for ring, pick in pairs]),
        image=_joined([ring.gather_images(pick.starts, horizon) for ring, pick in pairs]) if with_image else None,
        ends_task=_joined([pick.ends_task for pick in picks]),
        demo_count=sum(len(pick.starts) for pick in picks if pick.source.demo),
    )


def _joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
