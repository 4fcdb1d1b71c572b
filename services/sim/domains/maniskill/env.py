"""A ManiSkill task behind the service's interface."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.tasks.registry import get_task
from services.sim.domains.base import SimEnv, StepResult
from services.sim.domains.maniskill.frames import drawing_for
from services.sim.domains.maniskill.scenes import build_scene
from services.sim.domains.maniskill.variants import VARIANTS


class ManiSkillEnv(SimEnv):
    """Two control steps per agent step, fixed length, ManiSkill's normalised dense reward."""

    def __init__(self, task: str, rendering: bool) -> None:
        facts = get_task(task)
        self._task, self._repeat, self._length = task, facts.action_repeat, facts.episode_length
        self._variant = VARIANTS[task]
        # Objects do not change between episodes: never rebuild the scene, as some tasks would at every reset.
        self._env: Any = build_scene(task, reconfiguration_freq=0)
        self._steps = 0
        self._return = 0.0
        if rendering:
            drawing_for(task)

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Resets the environment with 32 bits made of the seed: it takes no more."""
        obs, _ = self._env.reset(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self._steps, self._return = 0, 0.0
        return self._flat(obs)

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Repeats the action; success is that of the last control step and not kept."""
        reward = 0.0
        for _ in range(self._repeat):
            obs, step_reward, _, _, info = self._env.step(action)
            reward += float(step_reward)
        self._steps += 1
        self._return += reward
        success = float(info["success"]) if "success" in info else math.nan
        return StepResult(
            obs=self._flat(obs),
            reward=reward,
            terminated=False,
            truncated=self._steps >= self._length,
            success=success,
            score=self._score(success),
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """The camera which ManiSkill uses for people, at 224 x 224."""
        return drawing_for(self._task).draw(self._env)

    def close(self) -> None:
        """Frees the scene."""
        self._env.close()

    def _score(self, success: float) -> float:
        best, published = self._variant.max_return, self._variant.published_max_return
        if best is None:
            return success
        score = min(self._return / best, 1.0)  # A sum of many rounded ones may exceed it by a hair.
        if published is None:
            return score
        self.corrected_score = score
        return self._return / published if published else 0.0

    def _flat(self, obs: Any) -> npt.NDArray[np.float32]:
        # A copy: the array could be a view of a tensor that the library reuses.
        return np.array(obs[0].numpy(), np.float32)
