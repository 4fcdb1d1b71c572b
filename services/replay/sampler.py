"""Which sequences a batch takes: draws of (episode, first row) that depend on the seed and the contents only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.wire.v1 import replay_pb2
from services.replay.ring import Ints, Windows


@dataclass(frozen=True)
class Source:
    """One task's episodes to draw from.

    Attributes:
        task_index: Of the run.
        windows: The sequences.
        first: Windows' episodes before this one are left out.
        demo: Whether they are demos.
    """

    task_index: int
    windows: Windows
    first: int
    demo: bool

    @property
    def episodes(self) -> int:
        """How many episodes can be drawn."""
        return len(self.windows) - self.first

    @property
    def skipped_starts(self) -> int:
        """Window starts of the episodes left out."""
        return int(self.windows.ends[self.first - 1]) if self.first else 0

    @property
    def starts(self) -> int:
        """How many window starts can be drawn."""
        return int(self.windows.ends[-1]) - self.skipped_starts


@dataclass(frozen=True)
class Pick:
    """Windows drawn from one source.

    Attributes:
        source: Where from.
        starts: int64[n], first rows in the ring.
        ends_task: bool[n], whether the window's last transition ended the task.
    """

    source: Source
    starts: Ints
    ends_task: npt.NDArray[np.bool_]


def draw(
    rng: np.random.Generator, sources: Sequence[Source], sampler: replay_pb2.Sampler.ValueType, count: int
) -> list[Pick]:
    """Draws `count` windows with replacement.

    Args:
        rng: Source of randomness.
        sources: At least one, none empty, ordered by task.
        sampler: The strategy (see the proto).
        count: Windows to draw.

    Returns:
        One pick for each source that was hit, in the order of the sources.
    """
    by_start = sampler == replay_pb2.SAMPLER_TRANSITION_UNIFORM
    sizes = np.array([s.starts if by_start else s.episodes for s in sources], np.int64)
    ends = np.cumsum(sizes)
    if sampler == replay_pb2.SAMPLER_TASK_BALANCED:
        tasks = np.array([s.task_index for s in sources])
        first = np.flatnonzero(np.diff(tasks, prepend=-1))  # First source of each task.
        last = np.append(first[1:], len(sources)) - 1
        low = (ends - sizes)[first]
        chosen = rng.integers(len(first), size=count)
        flat = low[chosen] + (rng.random(count) * (ends[last] - low)[chosen]).astype(np.int64)
    else:
        flat = rng.integers(int(ends[-1]), size=count)
    flat.sort()  # Groups the draws by source, and walks through memory in one direction.
    within = rng.random(count)
    cuts = np.searchsorted(flat, ends)
    picks = []
    begin = 0
    for source, end, size, stop in zip(sources, ends, sizes, cuts, strict=True):
        if stop > begin:
            picks.append(_pick(source, flat[begin:stop] - (end - size), within[begin:stop], by_start))
        begin = stop
    return picks


def _pick(source: Source, index: Ints, within: npt.NDArray[np.float64], by_start: bool) -> Pick:
    windows = source.windows
    if by_start:
        index = index + source.skipped_starts
        episode = np.searchsorted(windows.ends, index, side="right")
        offset = index - (windows.ends[episode] - windows.counts[episode])
    else:
        episode = index + source.first
        offset = (within * windows.counts[episode]).astype(np.int64)
    ends_task = windows.terminated[episode] & (offset == windows.counts[episode] - 1)
    return Pick(source, windows.starts[episode] + offset, ends_task)
