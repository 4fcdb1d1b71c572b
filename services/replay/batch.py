"""From draws to the sequences of a SampleResponse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.wire.limits import PADDED_OBS_DIM
from newt.wire.tensors import encode, fill, fill_raw
from newt.wire.v1 import replay_pb2
from services.replay.ring import Ints
from services.replay.sampler import Bools, Draws, Pool

_FLOAT_BYTES = 4
_TAIL = bytes(PADDED_OBS_DIM * _FLOAT_BYTES)


@dataclass(frozen=True)
class Sequences:
    """B drawn sequences of H+1 rows, by task, demos of a task first.

    Attributes:
        horizon: H.
        tasks: int32[K, 5], a row per task present: index, sequences, demos among them, O, A.
        rows: float32 rows [obs | action | reward] of one sequence after the other, see TaskRing; then 128 zeros.
        ends_task: bool[B], whether the last transition ended the task.
        image: float32[B, H+1, X] as bytes; None in state-only runs.
        image_dim: X.
    """

    horizon: int
    tasks: npt.NDArray[np.int32]
    rows: bytes
    ends_task: Bools
    image: bytes | None
    image_dim: int

    @property
    def demo_count(self) -> int:
        """How many are demos."""
        return int(self.tasks[:, 2].sum())

    def pack(self, message: replay_pb2.PackedSequences) -> None:
        """Writes them into an empty message."""
        fill(message.tasks, self.tasks)
        fill_raw(message.rows, np.float32, [len(self.rows) // _FLOAT_BYTES], self.rows)
        if self.ends_task.any():
            fill(message.ends_task, self.ends_task)
        if self.image is not None:
            shape = [len(self.ends_task), self.horizon + 1, self.image_dim]
            fill_raw(message.image, np.float32, shape, self.image)

    def groups(self) -> Iterator[replay_pb2.SequenceGroup]:
        """A message per task, for clients that do not know packed ones."""
        H, first, low = self.horizon, 0, 0
        values = np.frombuffer(self.rows, np.float32)
        for task_index, n, demos, obs_dim, action_dim in self.tasks.tolist():
            high = low + n * (H + 1) * (obs_dim + action_dim + 1)
            rows = values[low:high].reshape(n, H + 1, -1)
            group = replay_pb2.SequenceGroup(
                task_index=task_index,
                obs=encode(rows[:, :, :obs_dim]),
                action=encode(rows[:, :-1, obs_dim:-1]),
                reward=encode(rows[:, :-1, -1]),
                demo_count=demos,
            )
            ends_task = self.ends_task[first : first + n]
            if ends_task.any():
                terminated = np.zeros((n, H), np.bool_)
                terminated[:, -1] = ends_task
                fill(group.terminated, terminated)
            if self.image is not None:
                size = (H + 1) * self.image_dim * _FLOAT_BYTES
                shape = [n, H + 1, self.image_dim]
                fill_raw(group.image, np.float32, shape, self.image[first * size : (first + n) * size])
            yield group
            first, low = first + n, high


def gather(parts: Sequence[tuple[Pool, Draws]], horizon: int, image_dim: int = 0) -> Sequences:
    """Copies the drawn sequences out of the mirrors, ordered by task.

    Args:
        parts: The demo part and the online part of a batch.
        horizon: H.
        image_dim: X; 0 in state-only runs.
    """
    rings = [ring for pool, _ in parts for ring in pool.rings]
    first_ring = np.cumsum([0, *(len(pool.rings) for pool, _ in parts)])
    ring = np.concatenate([draws.source + first for (_, draws), first in zip(parts, first_ring[:-1], strict=True)])
    tasks = np.concatenate([pool.tasks for pool, _ in parts])[ring]
    demo = np.concatenate([pool.demo for pool, _ in parts])[ring]
    # Each part is ordered by ring already, and stays so.
    order = np.lexsort((~demo, tasks))
    ring, tasks, demo = ring[order], tasks[order], demo[order]
    obs_dims = np.concatenate([pool.obs_dims for pool, _ in parts])[ring]
    action_dims = np.concatenate([pool.action_dims for pool, _ in parts])[ring]
    starts = np.concatenate([draws.starts for _, draws in parts])[order]
    cuts = np.append(np.flatnonzero(np.diff(tasks, prepend=-1)), len(tasks))
    first = cuts[:-1]
    counts = np.diff(cuts)
    demos = np.diff(np.append(0, np.cumsum(demo))[cuts])
    of_ring = [rings[i] for i in ring.tolist()]
    return Sequences(
        horizon=horizon,
        tasks=np.stack([tasks[first], counts, demos, obs_dims[first], action_dims[first]], axis=1).astype(np.int32),
        rows=_joined(
            [ring.data for ring in of_ring], starts, (obs_dims + action_dims + 1) * _FLOAT_BYTES, horizon + 1, _TAIL
        ),
        ends_task=np.concatenate([draws.ends_task for _, draws in parts])[order],
        image=_joined([ring.image_data for ring in of_ring], starts, image_dim * _FLOAT_BYTES, horizon + 1, b"")
        if image_dim
        else None,
        image_dim=image_dim,
    )


def _joined(data: Iterable[memoryview], starts: Ints, row_bytes: Ints | int, rows: int, tail: bytes) -> bytes:
    """Stretches of so many rows, one after the other: consecutive rows are one piece of memory, and copied as such."""
    begin = starts * row_bytes
    stop = begin + rows * row_bytes
    pieces: list[memoryview | bytes] = [one[a:b] for one, a, b in zip(data, begin.tolist(), stop.tolist(), strict=True)]
    pieces.append(tail)
    return b"".join(pieces)
