"""From draws to the sequences of a SampleResponse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.wire.limits import PADDED_OBS_DIM
from newt.wire.tensors import encode, fill, fill_raw
from newt.wire.v1 import replay_pb2
from services.replay.sampler import Bools, Draws, Pool
from services.replay.task_episodes import Ints

_FLOAT_BYTES = 4
_TAIL = bytes(PADDED_OBS_DIM * _FLOAT_BYTES)


@dataclass(frozen=True)
class Sequences:
    """B drawn sequences of H+1 rows, by task, demos of a task first.

    Attributes:
        horizon: H.
        tasks: int32[K, 5], a row per task present: index, sequences, demos among them, O, A.
        rows: float32 rows [obs | action | reward] of one sequence after the other, see TaskEpisodes; then 128 zeros.
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
    parts = [(pool, draws) for pool, draws in parts if len(draws.source)] or parts[:1]
    first_source = np.cumsum([0, *(len(pool.tasks) for pool, _ in parts)])
    source = np.concatenate([draws.source + first for (_, draws), first in zip(parts, first_source[:-1], strict=True)])
    facts = np.concatenate([pool.facts for pool, _ in parts], axis=1)
    # Each part is ordered already, by episode within a source, and stays so.
    order = np.argsort(facts[0].take(source), kind="stable")
    rank, obs_dims, action_dims, row_bytes = facts.take(source.take(order), axis=1)
    tasks, demo = rank >> 1, rank & 1 == 0
    where = np.concatenate([pool.places.take(draws.episode, axis=0) for pool, draws in parts]).take(order, axis=0)
    blocks, places, image_places = where.T
    offset = np.concatenate([draws.offset for _, draws in parts]).take(order)
    cuts = np.append(np.flatnonzero(np.diff(tasks, prepend=-1)), len(tasks))
    first = cuts[:-1]
    demos = np.diff(np.append(0, np.cumsum(demo))[cuts])
    views: dict[int, memoryview] = {}
    for pool, _ in parts:
        for memory in pool.memory:
            views.update(memory.views)
    image_bytes = image_dim * _FLOAT_BYTES
    drawn = [views[block] for block in blocks.tolist()]
    return Sequences(
        horizon=horizon,
        tasks=np.stack([tasks[first], np.diff(cuts), demos, obs_dims[first], action_dims[first]], axis=1).astype(
            np.int32
        ),
        rows=_joined(drawn, places + offset * row_bytes, row_bytes, horizon + 1, _TAIL),
        ends_task=np.concatenate([draws.ends_task for _, draws in parts]).take(order),
        image=_joined(drawn, image_places + offset * image_bytes, image_bytes, horizon + 1, b"") if image_dim else None,
        image_dim=image_dim,
    )


def _joined(views: Iterable[memoryview], begin: Ints, row_bytes: Ints | int, rows: int, tail: bytes) -> bytes:
    """Stretches of so many rows, one after the other: consecutive rows are one piece of memory, and copied as such."""
    stop = begin + rows * row_bytes
    pieces: list[memoryview | bytes] = [
        view[a:b] for view, a, b in zip(views, begin.tolist(), stop.tolist(), strict=True)
    ]
    pieces.append(tail)
    return b"".join(pieces)
