"""Tasks without a simulator, for tests and benchmarks: they cost nothing, or fail in the way they are told to."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.tasks.registry import Task
from services.sim.domains.base import FRAME_SIZE, SimEnv, StepResult

_FACTS = Task(
    # As wide as walker-walk, so that a benchmark of it measures the service alone.
    "noop",
    "noop",
    24,
    6,
    episode_length=500,
    action_repeat=1,
    has_success=False,
    has_expert=False,
    discount=0.99,
    embodiment="A counter that counts its steps and shows the last action.",
    goal="Choose a large number.",
)
_SHORT: dict[str, Any] = {
    "obs_dim": 3,
    "action_dim": 2,
    "episode_length": 5,
    "has_success": True,
    "has_expert": True,
    "discount": 0.95,
}
TASKS = [
    _FACTS,
    replace(_FACTS, name="noop-short", **_SHORT),
    replace(_FACTS, name="noop-faulty", obs_dim=3, action_dim=1, episode_length=20, discount=0.95),
]

# First action column of noop-faulty, compared exactly.
RAISE, DIE, HANG, SLOW, NOT_A_NUMBER, TERMINATE = 1.0, -1.0, 0.5, 0.75, -0.5, 0.25

# noop-faulty cannot start episodes of seeds that are multiples of this, but for 0.
BAD_SEED = 1009
# Its reset does not come back from this one.
HANG_SEED = 2**63 + 1013


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance."""
    return NoopEnv(next(facts for facts in TASKS if facts.name == task))


class NoopEnv(SimEnv):
    """Observes (first draw of the seed, steps, last action, 0, ...) and rewards the action's first column."""

    def __init__(self, facts: Task) -> None:
        self._facts = facts
        self._obs = np.zeros(facts.obs_dim, np.float32)
        self._steps = 0

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """The seed's first uniform number is the whole state; `noop-faulty` has seeds that lead to none."""
        if self._facts.name == "noop-faulty" and seed == HANG_SEED:
            time.sleep(3600)
        self._steps = 0
        self._obs[:] = 0
        self._obs[0] = np.random.default_rng(seed).random()
        if self._facts.name == "noop-faulty" and seed and seed % BAD_SEED == 0:
            self._obs[1] = math.nan
        return self._obs.copy()

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Counts; `noop-faulty` obeys the action."""
        first = float(action[0])
        if self._facts.name == "noop-faulty":
            self._misbehave(first)
        self._steps += 1
        self._obs[1], self._obs[2] = self._steps, first
        return StepResult(
            obs=self._obs.copy(),
            reward=first,
            terminated=self._facts.name == "noop-faulty" and first == TERMINATE,
            truncated=self._steps >= self._facts.episode_length,
            success=float(first > 0) if self._facts.has_success else math.nan,
            score=self._steps / self._facts.episode_length,
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """Grey that brightens with the steps taken; the top left pixel is white."""
        frame = np.full((FRAME_SIZE, FRAME_SIZE, 3), 10 + self._steps % 200, np.uint8)
        frame[0, 0] = 255
        return frame

    def expert_action(self) -> npt.NDArray[np.float32]:
        """The state, for every column."""
        return np.full(self._facts.action_dim, self._obs[0], np.float32)

    def _misbehave(self, order: float) -> None:
        if order == RAISE:
            raise RuntimeError("noop-faulty was told to raise")
        if order == DIE:
            os.kill(os.getpid(), signal.SIGSEGV)
        if order == HANG:
            time.sleep(3600)
        if order == SLOW:
            time.sleep(0.2)
        if order == NOT_A_NUMBER:
            self._obs[0] = math.nan
