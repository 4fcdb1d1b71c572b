"""Memory mirror of one task's episodes: where each lies in the blocks of its space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.wire.episodes import Episode
from services.replay.blocks import Blocks

Ints = npt.NDArray[np.int64]

_FLOAT_BYTES = 4
_FIRST_EPISODES = 64
_TABLES = ("_blocks", "_places", "_lengths", "_terminated")


@dataclass(frozen=True)
class Windows:
    """The sequences of H+1 rows that a task has, N episodes oldest first. Episodes shorter than H+1 are left out.

    Attributes:
        held: The task's episodes.
        horizon: H.
        ordinals: int64[N], position of each among all episodes held.
        places: int64[N, 3], of each the number of the block that it lies in, and the bytes of the block at which its
            rows and its image features begin.
        counts: int64[N], possible first rows of a window: rows - H.
        terminated: bool[N], whether the last transition ended the task.
    """

    held: TaskEpisodes
    horizon: int
    ordinals: Ints
    places: Ints
    counts: Ints
    terminated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.counts)


class TaskEpisodes:
    """FIFO of one task's episodes, each in consecutive rows [obs | action | reward], its image features behind them.

        held = TaskEpisodes(Blocks(), obs_dim=24, action_dim=6, image_dim=0)
        held.append(episode)
        windows = held.windows(3)
        block, first, _ = windows.places[0]
        held.blocks.views[block][first : first + 4 * held.row_bytes]   # float32[4, 31], the first window

    Not thread-safe: its owner holds a lock, and gives blocks back that no task's episodes lie in any more.

    Attributes:
        blocks: Memory that the episodes of all tasks of a space share.
        row_bytes: Size of a row.
        image_row_bytes: Size of a row of image features, 0 without them.
        image_encoder: Encoder that made the image features; empty while unknown.
        held_rows: Rows of all episodes held.
    """

    def __init__(self, blocks: Blocks, obs_dim: int, action_dim: int, image_dim: int) -> None:
        self.blocks = blocks
        self.obs_dim, self.action_dim, self.image_dim = obs_dim, action_dim, image_dim
        self.image_encoder = ""
        self.version = 0
        self.held_rows = 0
        self.row_bytes = _FLOAT_BYTES * (obs_dim + action_dim + 1)
        self.image_row_bytes = _FLOAT_BYTES * image_dim
        self._blocks: Ints = np.zeros(_FIRST_EPISODES, np.int64)
        self._places: Ints = np.zeros(_FIRST_EPISODES, np.int64)
        self._lengths: Ints = np.zeros(_FIRST_EPISODES, np.int64)
        self._terminated = np.zeros(_FIRST_EPISODES, np.bool_)
        self._first = self._last = 0  # Episodes held are [first, last) of the four tables above.
        self._windows: dict[int, tuple[int, Windows]] = {}

    def __len__(self) -> int:
        return self._last - self._first

    @property
    def oldest_block(self) -> int:
        """Number of the block that the oldest episode lies in; there must be one."""
        return int(self._blocks[self._first])

    def append(self, episode: Episode) -> None:
        """Adds the newest episode. Its dims must be the task's."""
        length = episode.transitions + 1
        rows_bytes = length * self.row_bytes
        size = rows_bytes + length * self.image_row_bytes
        block, place = self.blocks.place(size)
        stretch = np.frombuffer(self.blocks.views[block], np.float32, size // _FLOAT_BYTES, place)
        rows = stretch[: rows_bytes // _FLOAT_BYTES].reshape(length, -1)
        rows[:, : self.obs_dim] = episode.obs
        rows[:-1, self.obs_dim : -1] = episode.action
        rows[:-1, -1] = episode.reward
        rows[-1, self.obs_dim :] = 0.0  # No transition leaves the last row.
        if episode.image is not None:
            stretch[rows.size :].reshape(length, -1)[:] = episode.image
            self.image_encoder = self.image_encoder or episode.image_encoder
        self._note(block, place, length, episode.terminated)
        self.held_rows += length
        self.version += 1

    def evict(self) -> None:
        """Drops the oldest episode."""
        self.held_rows -= int(self._lengths[self._first])
        self._first += 1
        self.version += 1

    def windows(self, horizon: int) -> Windows:
        """What can be sampled at a horizon; kept until the episodes change."""
        cached = self._windows.get(horizon)
        if cached and cached[0] == self.version:
            return cached[1]
        held = slice(self._first, self._last)
        ordinals = np.flatnonzero(self._lengths[held] > horizon)
        blocks, places, lengths = (table[held][ordinals] for table in (self._blocks, self._places, self._lengths))
        windows = Windows(
            held=self,
            horizon=horizon,
            ordinals=ordinals,
            places=np.column_stack([blocks, places, places + lengths * self.row_bytes]),
            counts=lengths - horizon,
            terminated=self._terminated[held][ordinals],
        )
        self._windows[horizon] = (self.version, windows)
        return windows

    def _note(self, block: int, place: int, length: int, terminated: bool) -> None:
        if self._last == len(self._lengths):
            held, count = slice(self._first, self._last), len(self)
            for name in _TABLES:
                old = getattr(self, name)
                new = np.zeros(max(_FIRST_EPISODES, 2 * count), old.dtype)
                new[:count] = old[held]
                setattr(self, name, new)
            self._first, self._last = 0, count
        for name, value in zip(_TABLES, (block, place, length, terminated), strict=True):
            getattr(self, name)[self._last] = value
        self._last += 1
