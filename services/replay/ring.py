"""Memory mirror of one task's episodes: a growing ring of rows with valid dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.wire.episodes import Episode, Floats

Ints = npt.NDArray[np.int64]

_FIRST_ROWS = 256
_FIRST_EPISODES = 64
# Memory is what bounds a buffer: a full one holds up to this many times its rows.
_GROWTH = 1.25


@dataclass(frozen=True)
class Windows:
    """The sequences of H+1 rows that a ring holds, N episodes oldest first. Episodes shorter than H+1 are left out.

    Attributes:
        ring: Ring that the rows lie in.
        horizon: H.
        ordinals: int64[N], position of each among all episodes held.
        starts: int64[N], row at which each begins.
        counts: int64[N], possible first rows of a window: rows - H.
        terminated: bool[N], whether the last transition ended the task.
    """

    ring: TaskRing
    horizon: int
    ordinals: Ints
    starts: Ints
    counts: Ints
    terminated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.starts)


class TaskRing:
    """FIFO of one task's episodes, each in consecutive rows [obs | action | reward].

        ring = TaskRing(obs_dim=24, action_dim=6, image_dim=0)
        ring.append(episode)
        start = ring.windows(3).starts[0]
        first = start * ring.row_bytes
        ring.data[first : first + 4 * ring.row_bytes]   # float32[4, 31], the first window

    No episode straddles the end of the arrays, so a window is always consecutive rows. The arrays grow as needed;
    what bounds them is the eviction that the buffer asks for. Not thread-safe: its owner holds a lock.

    Attributes:
        row_bytes: Size of a row.
        data: Bytes of all rows, one after another; another object when the arrays have grown.
        image_data: The same of the image features, `4 * image_dim` bytes a row.
        image_encoder: Encoder that made the image features; empty while unknown.
    """

    def __init__(self, obs_dim: int, action_dim: int, image_dim: int) -> None:
        self.obs_dim, self.action_dim, self.image_dim = obs_dim, action_dim, image_dim
        self.image_encoder = ""
        self.version = 0
        self.held_rows = 0
        self.row_bytes = 4 * (obs_dim + action_dim + 1)
        self._rows: Floats = np.zeros((0, obs_dim + action_dim + 1), np.float32)
        self._images: Floats = np.zeros((0, image_dim), np.float32)
        self.data, self.image_data = _bytes(self._rows), _bytes(self._images)
        self._starts: Ints = np.zeros(_FIRST_EPISODES, np.int64)
        self._lengths: Ints = np.zeros(_FIRST_EPISODES, np.int64)
        self._terminated = np.zeros(_FIRST_EPISODES, np.bool_)
        self._first = self._last = 0  # Episodes held are [first, last) of the three arrays above.
        self._windows: dict[int, tuple[int, Windows]] = {}

    def __len__(self) -> int:
        return self._last - self._first

    def append(self, episode: Episode) -> None:
        """Adds the newest episode. Its dims must be the ring's."""
        length = episode.transitions + 1
        start = self._place(length)
        rows = self._rows[start : start + length]
        rows[:, : self.obs_dim] = episode.obs
        rows[:-1, self.obs_dim : -1] = episode.action
        rows[:-1, -1] = episode.reward
        rows[-1, self.obs_dim :] = 0.0  # No transition leaves the last row.
        if episode.image is not None:
            self._images[start : start + length] = episode.image
            self.image_encoder = self.image_encoder or episode.image_encoder
        self._note(start, length, episode.terminated)
        self.held_rows += length
        self.version += 1

    def evict(self) -> None:
        """Drops the oldest episode."""
        self.held_rows -= int(self._lengths[self._first])
        self._first += 1
        self.version += 1

    def windows(self, horizon: int) -> Windows:
        """What can be sampled at a horizon; kept until the ring changes."""
        cached = self._windows.get(horizon)
        if cached and cached[0] == self.version:
            return cached[1]
        held = slice(self._first, self._last)
        ordinals = np.flatnonzero(self._lengths[held] > horizon)
        windows = Windows(
            ring=self,
            horizon=horizon,
            ordinals=ordinals,
            starts=self._starts[held][ordinals],
            counts=self._lengths[held][ordinals] - horizon,
            terminated=self._terminated[held][ordinals],
        )
        self._windows[horizon] = (self.version, windows)
        return windows

    def _place(self, length: int) -> int:
        """First of `length` free rows; grows the arrays if no free stretch is that long."""
        if self._first == self._last:
            start, stop = 0, len(self._rows)
        else:
            oldest = int(self._starts[self._first])
            newest = int(self._starts[self._last - 1])
            start = newest + int(self._lengths[self._last - 1])
            if newest < oldest:  # Already wrapped: free up to the oldest.
                stop = oldest
            elif len(self._rows) - start >= length:
                stop = len(self._rows)
            else:
                start, stop = 0, oldest
        if stop - start >= length:
            return start
        self._grow(length)
        return self._place(length)

    def _grow(self, length: int) -> None:
        """Moves all rows into larger arrays, oldest first."""
        size = max(_FIRST_ROWS, int(self.held_rows * _GROWTH), self.held_rows + length)
        held = slice(self._first, self._last)
        starts, lengths = self._starts[held], self._lengths[held]
        # At most two stretches: from the oldest episode up, then, once wrapped, from row 0.
        wrap = int(np.argmax(starts < starts[0])) if len(starts) and starts.min() < starts[0] else len(starts)
        moved = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)[:-1]]) if len(starts) else starts.copy()
        for name in ("_rows", "_images"):
            old = getattr(self, name)
            new = np.zeros((size, old.shape[1]), np.float32)
            for part in (slice(0, wrap), slice(wrap, len(starts))):
                if part.start < part.stop:
                    count = int(lengths[part].sum())
                    source, target = int(starts[part.start]), int(moved[part.start])
                    new[target : target + count] = old[source : source + count]
            setattr(self, name, new)
        self.data, self.image_data = _bytes(self._rows), _bytes(self._images)
        self._starts[held] = moved

    def _note(self, start: int, length: int, terminated: bool) -> None:
        if self._last == len(self._starts):
            held, count = slice(self._first, self._last), len(self)
            size = max(_FIRST_EPISODES, 2 * count)
            for name in ("_starts", "_lengths", "_terminated"):
                old = getattr(self, name)
                new = np.zeros(size, old.dtype)
                new[:count] = old[held]
                setattr(self, name, new)
            self._first, self._last = 0, count
        self._starts[self._last], self._lengths[self._last] = start, length
        self._terminated[self._last] = terminated
        self._last += 1


def _bytes(rows: Floats) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data
