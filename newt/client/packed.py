"""Training sequences without padding, as they travel: out of replies of the replay service, and into padded arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.errors import InvalidInputError
from newt.wire.episodes import Floats
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.tensors import decode
from newt.wire.v1 import replay_pb2

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_TASK, _COUNT, _DEMOS, _OBS_DIM, _ACTION_DIM = range(5)
# Of any two numbers of columns, whether a column is behind them.
_BEHIND = np.arange(PADDED_OBS_DIM) >= np.arange(PADDED_OBS_DIM + 1)[:, None]


@dataclass(frozen=True, eq=False)
class PackedRows:
    """B sequences of H+1 rows [obs | action | reward], each as wide as its task's valid columns.

    Attributes:
        horizon: H.
        values: float32[N], read-only: the sequences' rows one after the other, and behind them at least 128 zeros: a
            padded observation can be read from where any row begins. Action and reward of a sequence's last row mean
            nothing.
        starts: int64[B], where each sequence begins in `values`.
        obs_dims: int64[B], valid columns O of each.
        action_dims: int64[B], valid columns A of each.
    """

    horizon: int
    values: Floats
    starts: Ints
    obs_dims: Ints
    action_dims: Ints

    def obs(self) -> Floats:
        """Observations, zero-padded: float32[H+1, B, 128]."""
        return self._padded(self._rows(), self.obs_dims, PADDED_OBS_DIM)

    def action(self) -> Floats:
        """Actions, zero-padded: float32[H, B, 16]."""
        return self._padded(self._rows()[:-1] + self.obs_dims, self.action_dims, PADDED_ACTION_DIM)

    def reward(self) -> Floats:
        """Rewards: float32[H, B]."""
        rewards: Floats = self.values[self._rows()[:-1] + self.obs_dims + self.action_dims]
        return rewards

    def _rows(self) -> Ints:
        """Where each row begins, int64[H+1, B]."""
        widths = self.obs_dims + self.action_dims + 1
        rows: Ints = self.starts + np.arange(self.horizon + 1)[:, None] * widths
        return rows

    def _padded(self, first: Ints, valid: Ints, columns: int) -> Floats:
        """The numbers from `first` on, and zeros in the columns that are not valid."""
        stretches = np.lib.stride_tricks.sliding_window_view(self.values, columns)
        padded: Floats = stretches[first]
        np.copyto(padded, 0.0, where=_BEHIND[valid, :columns])
        return padded


@dataclass(frozen=True, eq=False)
class Sequences:
    """What replies hold, put together: sequences of one task are next to each other.

    Attributes:
        rows: Their rows.
        terminated: bool[H, B].
        task: int32[B].
        demo: bool[B].
        image: float32[H+1, B, X], or None in state-only runs.
    """

    rows: PackedRows
    terminated: Bools
    task: npt.NDArray[np.int32]
    demo: Bools
    image: Floats | None


def read(responses: Sequence[replay_pb2.SampleResponse], horizon: int) -> Sequences:
    """Puts replies together, packed ones or, of services that do not know those, ones in groups.

    Args:
        responses: Parts of one batch.
        horizon: H.

    Raises:
        InvalidInputError: A reply contradicts itself; names the field.
    """
    replies = [
        _packed(response.packed, horizon) if response.HasField("packed") else _grouped(response, horizon)
        for response in responses
    ]
    values = replies[0].values if len(replies) == 1 else np.concatenate([reply.values for reply in replies])
    tasks = np.concatenate([reply.tasks for reply in replies]).astype(np.int64)
    of_sequence = np.repeat(tasks, tasks[:, _COUNT], axis=0)
    sizes = (horizon + 1) * (of_sequence[:, _OBS_DIM] + of_sequence[:, _ACTION_DIM] + 1)
    # Behind each reply's rows are zeros.
    zeros = np.repeat(PADDED_OBS_DIM * np.arange(len(replies)), [len(reply.terminated) for reply in replies])
    starts = np.cumsum(sizes) - sizes + zeros
    rank = np.arange(len(of_sequence)) - np.repeat(np.cumsum(tasks[:, _COUNT]) - tasks[:, _COUNT], tasks[:, _COUNT])
    order: Ints | slice = slice(None)
    if len(replies) > 1:
        order = np.argsort(of_sequence[:, _TASK], kind="stable")  # Several shards' tasks take turns.
    task, _, demos, obs_dims, action_dims = of_sequence[order].T.copy()
    images = [reply.image for reply in replies if reply.image is not None]
    return Sequences(
        rows=PackedRows(horizon, values, starts[order], obs_dims, action_dims),
        terminated=np.concatenate([reply.terminated for reply in replies])[order].T.copy(),
        task=task.astype(np.int32),
        demo=rank[order] < demos,
        image=np.ascontiguousarray(np.concatenate(images).swapaxes(0, 1)[:, order]) if images else None,
    )


@dataclass(frozen=True, eq=False)
class _Reply:
    """One reply's sequences.

    Attributes:
        tasks: int[K, 5] as in PackedSequences.
        values: float32[N + 128] as in PackedSequences.
        terminated: bool[B, H].
        image: float32[B, H+1, X] or None.
    """

    tasks: npt.NDArray[Any]
    values: Floats
    terminated: Bools
    image: Floats | None


def _packed(message: replay_pb2.PackedSequences, H: int) -> _Reply:
    tasks = decode(message.tasks, "packed.tasks", dtype="i4", shape=[None, 5])
    _, counts, _, obs_dims, action_dims = tasks.T.astype(np.int64)
    if (tasks < 0).any() or (obs_dims > PADDED_OBS_DIM).any() or (action_dims > PADDED_ACTION_DIM).any():
        raise InvalidInputError(
            "packed.tasks",
            f"got entries from {tasks.min()} to {tasks.max()}, expected none below 0, and at most {PADDED_OBS_DIM} "
            f"observation and {PADDED_ACTION_DIM} action columns",
        )
    B, size = int(counts.sum()), int((counts * (H + 1) * (obs_dims + action_dims + 1)).sum())
    values = decode(message.rows, "packed.rows", dtype="f4", shape=[size + PADDED_OBS_DIM])
    terminated = np.zeros((B, H), np.bool_)
    if message.HasField("ends_task"):
        terminated[:, -1] = decode(message.ends_task, "packed.ends_task", dtype="?", shape=[B])
    image = None
    if message.HasField("image"):
        image = decode(message.image, "packed.image", dtype="f4", shape=[B, H + 1, None])
    return _Reply(tasks, values, terminated, image)


def _grouped(response: replay_pb2.SampleResponse, H: int) -> _Reply:
    tasks: list[tuple[int, ...]] = []
    pieces: list[Floats] = []
    terminated: list[Bools] = [np.zeros((0, H), np.bool_)]
    images: list[Floats] = []
    for group in response.groups:
        reward = decode(group.reward, "reward", dtype="f4", shape=[None, H])
        n = len(reward)
        obs = decode(group.obs, "obs", dtype="f4", shape=[n, H + 1, None])
        action = decode(group.action, "action", dtype="f4", shape=[n, H, None])
        obs_dim, action_dim = obs.shape[2], action.shape[2]
        rows = np.zeros((n, H + 1, obs_dim + action_dim + 1), np.float32)
        rows[:, :, :obs_dim], rows[:, :-1, obs_dim:-1], rows[:, :-1, -1] = obs, action, reward
        tasks.append((group.task_index, n, group.demo_count, obs_dim, action_dim))
        pieces.append(rows.ravel())
        terminated.append(
            decode(group.terminated, "terminated", dtype="?", shape=[n, H])
            if group.HasField("terminated")
            else np.zeros((n, H), np.bool_)
        )
        if group.HasField("image"):
            images.append(decode(group.image, "image", dtype="f4", shape=[n, H + 1, None]))
    return _Reply(
        tasks=np.array(tasks, np.int64).reshape(-1, 5),
        values=np.concatenate([*pieces, np.zeros(PADDED_OBS_DIM, np.float32)]),
        terminated=np.concatenate(terminated),
        image=np.concatenate(images) if images else None,
    )
