"""DMControl: the 21 tasks of the stock suite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from dm_control import suite

from newt.tasks.registry import get_task
from services.sim.domains.base import FRAME_SIZE, SimEnv, StepResult, flat_float32
from services.sim.domains.experts import cartpole, pendulum
from services.sim.domains.experts.mechanics import MakeExpert, OnDemand
from services.sim.domains.experts.reaching import Reach
from services.sim.domains.mujoco_frames import fixed_camera, renderer_for

_DOMAIN_ALIASES = {"cup": "ball_in_cup", "pointmass": "point_mass"}
_CAMERAS = {"quadruped": 2}  # Camera 0 of the quadruped is inside its body's frame; 2 is the one named "y".
_REACH = Reach("finger", "target", frequency=15.0)
_EXPERTS: dict[str, MakeExpert] = {
    "reacher-easy": _REACH,
    "reacher-hard": _REACH,
    "pendulum-swingup": pendulum.swing_up,
    "cartpole-balance": cartpole.balance,
    "cartpole-balance-sparse": cartpole.balance,
    "cartpole-swingup": cartpole.swing_up,
    "cartpole-swingup-sparse": cartpole.swing_up,
}
_MAX_RETURN = 1000.0  # 1000 control steps of a reward in [0, 1].


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance of a task of the suite."""
    if not hasattr(np, "in1d"):
        # Removed in NumPy 2.4; the quadruped of dm_control 1.0.34 still calls it.
        np.in1d = np.isin  # type: ignore[attr-defined]
    domain, _, name = task.replace("-", "_").partition("_")
    environment = suite.load(_DOMAIN_ALIASES.get(domain, domain), name)
    return DmControlEnv(task, environment, rendering, _CAMERAS.get(domain, 0), make_expert=_EXPERTS.get(task))


class DmControlEnv(SimEnv):
    """A task of dm_control: two control steps per agent step, 500 agent steps, score = return / 1000.

    Args:
        task: Task name.
        environment: dm_control's environment of the task, with one of the suite's kind of tasks.
        rendering: Whether frames will be wanted.
        camera: Number of the model's camera that draws them.
        best_score: The highest score that the task allows, if it is below 1.
        make_expert: Makes the scripted expert, if there is one.
    """

    def __init__(
        self,
        task: str,
        environment: Any,
        rendering: bool,
        camera: int = 0,
        best_score: float | None = None,
        make_expert: MakeExpert | None = None,
    ) -> None:
        facts = get_task(task)
        self._env = environment
        self._task, self._repeat, self._length = task, facts.action_repeat, facts.episode_length
        spec = self._env.action_spec()
        # The suite's bounds are [-1, 1] everywhere but in the quadruped.
        self._action_scale = (spec.maximum - spec.minimum) / 2
        self._action_offset = (spec.maximum + spec.minimum) / 2
        self._camera = fixed_camera(camera)
        self._best_score = best_score
        physics = self._env.physics
        steps = self._repeat * round(self._env.control_timestep() / physics.timestep())
        self._expert = make_expert and OnDemand(make_expert, physics.model.ptr, physics.data.ptr, steps)
        self._steps = 0
        self._return = 0.0
        if rendering:
            renderer_for(task, self._env.physics.model.ptr, FRAME_SIZE)

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Re-seeds the task's own generator and resets the suite's environment."""
        self._env.task.random.seed([seed & 0xFFFFFFFF, seed >> 32])
        self._steps, self._return = 0, 0.0
        return flat_float32(self._env.reset().observation.values())

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Repeats the action; the observation is that of the last control step."""
        control = action.astype(np.float64) * self._action_scale + self._action_offset
        reward = 0.0
        for _ in range(self._repeat):
            time_step = self._env.step(control)
            reward += time_step.reward
        self._steps += 1
        self._return += reward
        score = self._return / _MAX_RETURN
        if self._best_score is not None:
            self.corrected_score = min(score / self._best_score, 1.0)
        return StepResult(
            obs=flat_float32(time_step.observation.values()),
            reward=reward,
            terminated=False,
            truncated=self._steps >= self._length,
            success=math.nan,
            score=score,
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """The model's own camera at 224 x 224."""
        physics = self._env.physics
        renderer = renderer_for(self._task, physics.model.ptr, FRAME_SIZE)
        return renderer.draw(physics.model.ptr, physics.data.ptr, self._camera)

    def expert_action(self) -> npt.NDArray[np.float32]:
        """That of the task's scripted expert, if it has one."""
        return self._expert() if self._expert else super().expert_action()

    def close(self) -> None:
        """Frees the suite's environment."""
        self._env.close()
