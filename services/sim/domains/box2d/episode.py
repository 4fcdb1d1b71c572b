"""What walker and lander have in common: fixed-length episodes of repeated actions, and how they touch the ground."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import Box2D
import numpy as np
import numpy.typing as npt

from newt.tasks.registry import get_task
from services.sim.domains.base import SimEnv, StepResult

STEPS_PER_SECOND = 50
_VELOCITY_ITERATIONS, _POSITION_ITERATIONS = 180, 60

GROUND = 0x0001
"""Collision category of all that the craft can touch; nothing collides with anything else."""


class Box2DEnv(SimEnv):
    """An episode of fixed length: falls, crashes and leaving the picture end nothing, they cost reward.

    Args:
        task: Task name.
        best_return: The return whose score is 1.
    """

    def __init__(self, task: str, best_return: float) -> None:
        facts = get_task(task)
        self._repeat, self._length, self._best_return = facts.action_repeat, facts.episode_length, best_return
        self._still = np.zeros(facts.action_dim, np.float32)
        self._seed = 0
        self._steps = 0
        self._return = 0.0

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Builds a new world from the seed."""
        self._seed = seed
        self._begin(np.random.default_rng(seed))
        self._steps, self._return = 0, 0.0
        return self._observe()

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Repeats the action and sums the rewards, each transformed on its own."""
        reward = 0.0
        for _ in range(self._repeat):
            reward += self._advance(action)
        self._steps += 1
        self._return += reward
        return StepResult(
            obs=self._observe(),
            reward=reward,
            terminated=False,
            truncated=self._steps >= self._length,
            success=math.nan,
            score=min(max(self._return / self._best_return, 0.0), 1.0),
        )

    @abstractmethod
    def _begin(self, rng: np.random.Generator) -> None:
        """Builds the world and takes the first physics steps, without action."""

    @abstractmethod
    def _advance(self, action: npt.NDArray[np.float32]) -> float:
        """One physics step; its transformed reward."""

    @abstractmethod
    def _observe(self) -> npt.NDArray[np.float32]:
        """float32[O]; reads the state, changes nothing."""


class Touch(Box2D.b2ContactListener):  # type: ignore[misc] # the library has no types
    """Follows the contacts of a body and its feet with the ground.

    Attributes:
        body: Whether the body has ever touched.
        feet: 1.0 or 0.0 for each foot: what its last contact event was. A foot on two pieces of ground that leaves
            one of them counts as lifted: observations have always been made this way.
    """

    def __init__(self, body: Any, feet: list[Any]) -> None:
        super().__init__()
        self.body = False
        self.feet = [0.0] * len(feet)
        body.userData = -1
        for index, foot in enumerate(feet):
            foot.userData = index

    def BeginContact(self, contact: Any) -> None:  # noqa: N802 - called by the library
        """Something began to touch the ground."""
        self._note(contact, 1.0)

    def EndContact(self, contact: Any) -> None:  # noqa: N802 - called by the library
        """Something left it."""
        self._note(contact, 0.0)

    def _note(self, contact: Any, touching: float) -> None:
        # One of the two is a piece of ground, which has no number.
        first, second = contact.fixtureA.body.userData, contact.fixtureB.body.userData
        index = second if first is None else first
        if index is None:
            return
        if index < 0:
            self.body = self.body or bool(touching)
        else:
            self.feet[index] = touching


def advance(world: Any) -> None:
    """One physics step of 1/50 s."""
    world.Step(1.0 / STEPS_PER_SECOND, _VELOCITY_ITERATIONS, _POSITION_ITERATIONS)
