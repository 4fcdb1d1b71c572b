"""Staging: the transitions of running episodes, kept per simulator instance until an episode is whole.

Every instance has its own list, so that episodes of different lengths cannot mix, and its first observation is written
at every reset (the reference implementation errs in both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from newt.wire.episodes import Behaviour, Episode

Floats = npt.NDArray[np.float32]

NO_IMAGE: Floats = np.zeros(0, np.float32)


class Staged(Protocol):
    """What one must know of a task to stage its episodes; `newt.tasks.registry.Task` has it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def obs_dim(self) -> int:
        """Valid columns of observations."""

    @property
    def action_dim(self) -> int:
        """Valid columns of actions."""


@dataclass
class _Running:
    seed: int
    obs: list[Floats]
    image: list[Floats]
    action: list[Floats] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    behaviours: set[int] = field(default_factory=set)
    versions: set[int] = field(default_factory=set)


class EpisodeStage:
    """Running episodes of N instances.

        stage = EpisodeStage(tasks)
        stage.begin(row, first_obs, seed)
        stage.step(row, action, reward, next_obs, behaviour)
        episode = stage.finish(row, episode_id, terminated=False, success=1.0, score=1.0)

    Args:
        tasks: Tasks of every instance: only its valid columns are kept.
        image_encoder: Identity of what makes the image features, if there are any.
    """

    def __init__(self, tasks: Sequence[Staged], image_encoder: str = "") -> None:
        self._tasks = list(tasks)
        self._image_encoder = image_encoder
        self._running: list[_Running | None] = [None] * len(self._tasks)

    def begin(self, row: int, obs: Floats, seed: int, image: Floats = NO_IMAGE) -> None:
        """Starts an episode, forgetting what the instance had before.

        Args:
            row: The instance.
            obs: float32[O], its first observation; padding is cut off.
            seed: Seed of the episode.
            image: float32[X], its image features; none without images.
        """
        self._running[row] = _Running(seed, [self._valid_obs(row, obs)], [np.array(image, np.float32)])

    def step(
        self,
        row: int,
        action: Floats,
        reward: float,
        next_obs: Floats,
        behaviour: int,
        weights_version: int = 0,
        next_image: Floats = NO_IMAGE,
    ) -> None:
        """Adds a transition: `action` led to `reward` and to `next_obs` and its features (not those of a reset)."""
        running = self._get(row)
        running.obs.append(self._valid_obs(row, next_obs))
        running.image.append(np.array(next_image, np.float32))
        running.action.append(np.array(action[: self._tasks[row].action_dim], np.float32))
        running.reward.append(float(reward))
        running.behaviours.add(behaviour)
        if weights_version:
            running.versions.add(weights_version)

    def finish(self, row: int, episode_id: str, *, terminated: bool, success: float, score: float) -> Episode:
        """Ends the episode and returns it; the instance needs `begin` before its next step."""
        running = self._get(row)
        self._running[row] = None
        behaviours, image = running.behaviours, np.stack(running.image)
        return Episode(
            episode_id=episode_id,
            task=self._tasks[row].name,
            obs=np.stack(running.obs),
            action=np.stack(running.action),
            reward=np.array(running.reward, np.float32),
            terminated=terminated,
            success=success,
            score=score,
            behaviour=next(iter(behaviours)) if len(behaviours) == 1 else Behaviour.MIXED,
            weights_versions=(min(running.versions, default=0), max(running.versions, default=0)),
            seed=running.seed,
            image=image if image.size else None,
            image_encoder=self._image_encoder,
        )

    def length(self, row: int) -> int:
        """Transitions of the running episode so far."""
        return len(self._get(row).reward)

    def seed(self, row: int) -> int:
        """Seed of the running episode."""
        return self._get(row).seed

    def _get(self, row: int) -> _Running:
        running = self._running[row]
        if running is None:
            raise RuntimeError(f"instance {row} has no running episode; begin one first")
        return running

    def _valid_obs(self, row: int, obs: Floats) -> Floats:
        return np.array(obs[: self._tasks[row].obs_dim], np.float32)
