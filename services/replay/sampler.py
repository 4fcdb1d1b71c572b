"""Which sequences a batch takes: draws of (episode, first row) that depend on the seed and the contents only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from newt.wire.v1 import replay_pb2
from services.replay.blocks import Blocks
from services.replay.task_episodes import Ints, Windows

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Source:
    """One task's episodes to draw from.

    Attributes:
        task_index: Index of the task in its run.
        windows: The sequences.
        first: Windows' episodes before this one are left out; at least one remains.
        demo: Whether they are demos.
    """

    task_index: int
    windows: Windows
    first: int
    demo: bool


@dataclass(frozen=True)
class Draws:
    """n drawn sequences, ordered by source.

    Attributes:
        source: int64[n], position among the pool's sources.
        episode: int64[n], position among the pool's episodes.
        offset: int64[n], first row in the episode.
        ends_task: bool[n], whether the last transition ended the task.
    """

    source: Ints
    episode: Ints
    offset: Ints
    ends_task: Bools


class Pool:
    """All episodes that one part of a batch can draw from, E of them, one after another.

    Tables over all episodes make a draw a handful of array operations, however many tasks there are.

    Args:
        sources: S of them, ordered by task; kept in that order.

    Attributes:
        memory: What the episodes lie in.
        tasks: int64[S], index of the task of each.
        facts: int64[4, S]: what batches are ordered by (tasks, demos of a task first), O, A, bytes of a row.
        places: int64[E, 3], where each episode lies, see Windows.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        held = [source.windows.held for source in sources]
        self.memory: set[Blocks] = {one.blocks for one in held}
        self.tasks: Ints = np.array([source.task_index for source in sources], np.int64)
        rank = 2 * self.tasks + np.array([not source.demo for source in sources], np.int64)
        obs_dims = np.array([one.obs_dim for one in held], np.int64)
        action_dims = np.array([one.action_dim for one in held], np.int64)
        row_bytes = np.array([one.row_bytes for one in held], np.int64)
        self.facts: Ints = np.stack([rank, obs_dims, action_dims, row_bytes])
        self._last: Ints = np.cumsum([len(source.windows) - source.first for source in sources], dtype=np.int64)
        self.places: Ints = np.zeros((0, 3), np.int64)
        if sources:
            self.places = np.concatenate([source.windows.places[source.first :] for source in sources])
            self._counts: Ints = np.concatenate([source.windows.counts[source.first :] for source in sources])
            self._terminated: Bools = np.concatenate([s.windows.terminated[s.first :] for s in sources])

    def __len__(self) -> int:
        """Episodes, E."""
        return int(self._last[-1]) if len(self._last) else 0

    def weight(self, sampler: replay_pb2.Sampler.ValueType) -> int:
        """Of this pool among several that are drawn from together: episodes, starts or tasks, whatever is uniform."""
        if sampler == replay_pb2.SAMPLER_TRANSITION_UNIFORM:
            return int(self._start_ends[-1]) if len(self) else 0
        return len(np.unique(self.tasks)) if sampler == replay_pb2.SAMPLER_TASK_BALANCED else len(self)

    def draw(self, rng: np.random.Generator, sampler: replay_pb2.Sampler.ValueType, count: int) -> Draws:
        """Draws `count` sequences with replacement.

        Args:
            rng: Source of randomness.
            sampler: The strategy (see the proto).
            count: n. Must be 0 if the pool is empty.
        """
        if not count:
            nothing = np.zeros(0, np.int64)
            return Draws(nothing, nothing, nothing, np.zeros(0, np.bool_))
        if sampler == replay_pb2.SAMPLER_TRANSITION_UNIFORM:
            flat = np.sort(rng.integers(int(self._start_ends[-1]), size=count))
            episode = np.searchsorted(self._start_ends, flat, side="right")
            offset = flat - (self._start_ends[episode] - self._counts[episode])
        else:
            # Sorted draws are grouped by source, and walk through memory in one direction.
            episode = np.sort(self._episodes(rng, sampler, count))
            offset = (rng.random(count) * self._counts[episode]).astype(np.int64)
        return Draws(
            source=np.searchsorted(self._last, episode, side="right"),
            episode=episode,
            offset=offset,
            ends_task=self._terminated[episode] & (offset == self._counts[episode] - 1),
        )

    def _episodes(self, rng: np.random.Generator, sampler: replay_pb2.Sampler.ValueType, count: int) -> Ints:
        if sampler != replay_pb2.SAMPLER_TASK_BALANCED:
            return rng.integers(len(self), size=count)
        first = np.flatnonzero(np.diff(self.tasks, prepend=-1))  # Each task's first source.
        stop = self._last[np.append(first[1:], len(self.tasks)) - 1]
        begin = np.concatenate([np.zeros(1, np.int64), stop[:-1]])
        task = rng.integers(len(first), size=count)
        within: Ints = (rng.random(count) * (stop - begin)[task]).astype(np.int64)
        return begin[task] + within

    @cached_property
    def _start_ends(self) -> Ints:
        """int64[E], running sum of the episodes' window starts."""
        return np.cumsum(self._counts)
