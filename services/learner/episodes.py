"""Staging: the transitions of running episodes, kept per simulator instance until an episode is whole.

Every instance has its own list, so that episodes of different lengths cannot mix, and its first observation is written
at every reset (the reference implementation errs in both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from newt.wire.tensors import encode
from newt.wire.v1 import replay_pb2

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StagedEpisode:
    """A finished episode with valid dims only.

    Attributes:
        row: Instance that played it.
        obs: float32[T+1, O].
        action: float32[T, A].
        reward: float32[T].
        terminated: The task itself ended.
        success: At the last step; NaN where undefined.
        score: At the last step.
        seed: Seed of the episode.
        behaviours: Who acted (values of newt.v1.Behaviour).
        weights_versions: Lowest and highest version that acted; 0 for none.
    """

    row: int
    obs: Array
    action: Array
    reward: Array
    terminated: bool
    success: float
    score: float
    seed: int
    behaviours: frozenset[int]
    weights_versions: tuple[int, int]

    @property
    def length(self) -> int:
        """T, transitions."""
        return len(self.reward)

    @property
    def total_reward(self) -> float:
        """Sum of the rewards."""
        return float(self.reward.sum(dtype=np.float64))

    def message(self, episode_id: str, task: str, behaviour: int | None = None) -> replay_pb2.Episode:
        """The episode as it travels to replay."""
        kinds = self.behaviours
        mixed = next(iter(kinds)) if len(kinds) == 1 else replay_pb2.BEHAVIOUR_MIXED
        return replay_pb2.Episode(
            episode_id=episode_id,
            task=task,
            obs=encode(self.obs),
            action=encode(self.action),
            reward=encode(self.reward),
            terminated=self.terminated,
            success=self.success,
            score=self.score,
            behaviour=mixed if behaviour is None else behaviour,  # type: ignore[arg-type]
            min_weights_version=self.weights_versions[0],
            max_weights_version=self.weights_versions[1],
            seed=self.seed,
        )


@dataclass
class _Running:
    seed: int
    obs: list[Array]
    action: list[Array] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    behaviours: set[int] = field(default_factory=set)
    versions: set[int] = field(default_factory=set)


class EpisodeStage:
    """Running episodes of N instances.

        stage = EpisodeStage(dims)
        stage.begin(row, first_obs, seed)
        stage.step(row, action, reward, next_obs)
        episode = stage.finish(row, terminated=..., success=..., score=...)

    Args:
        dims: (obs_dim, action_dim) of every instance: only these columns are kept.
    """

    def __init__(self, dims: Sequence[tuple[int, int]]) -> None:
        self._dims = list(dims)
        self._running: list[_Running | None] = [None] * len(self._dims)

    def begin(self, row: int, obs: Array, seed: int) -> None:
        """Starts an episode, forgetting what the instance had before.

        Args:
            row: The instance.
            obs: float32[128], its first observation.
            seed: Seed of the episode.
        """
        self._running[row] = _Running(seed, [self._valid_obs(row, obs)])

    def step(
        self, row: int, action: Array, reward: float, next_obs: Array, behaviour: int, weights_version: int = 0
    ) -> None:
        """Adds a transition: `action` led to `reward` and `next_obs` (the true one, not that of a reset)."""
        running = self._get(row)
        running.obs.append(self._valid_obs(row, next_obs))
        running.action.append(np.array(action[: self._dims[row][1]], np.float32))
        running.reward.append(float(reward))
        running.behaviours.add(behaviour)
        if weights_version:
            running.versions.add(weights_version)

    def finish(self, row: int, *, terminated: bool, success: float, score: float) -> StagedEpisode:
        """Ends the episode; the instance needs `begin` before its next step."""
        running = self._get(row)
        self._running[row] = None
        return StagedEpisode(
            row=row,
            obs=np.stack(running.obs),
            action=np.stack(running.action),
            reward=np.array(running.reward, np.float32),
            terminated=terminated,
            success=success,
            score=score,
            seed=running.seed,
            behaviours=frozenset(running.behaviours),
            weights_versions=(min(running.versions, default=0), max(running.versions, default=0)),
        )

    def drop(self, row: int) -> None:
        """Forgets the running episode."""
        self._running[row] = None

    def length(self, row: int) -> int:
        """Transitions so far."""
        running = self._running[row]
        return len(running.reward) if running else 0

    def _get(self, row: int) -> _Running:
        running = self._running[row]
        if running is None:
            raise RuntimeError(f"instance {row} has no running episode; begin one first")
        return running

    def _valid_obs(self, row: int, obs: Array) -> Array:
        return np.array(obs[: self._dims[row][0]], np.float32)
