"""Meta-World: 49 manipulation tasks with visible goals, and their scripted experts."""

from __future__ import annotations

import warnings
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
from metaworld.policies import ENV_POLICY_MAP

from newt.tasks.registry import get_task
from services.sim.domains.base import SimEnv, StepResult
from services.sim.domains.frames import resize
from services.sim.domains.mujoco_frames import fixed_camera, renderer_for

_NATIVE_SIZE = 480
_CAMERA = "corner2"
_CAMERA_POSITION = (0.75, 0.075, 0.7)  # Closer than the model's own; orientation and field of view stay.
# After a success, the share of the last motion that goes on: these spring back when nobody presses. Elsewhere, going on
# undoes more successes than it keeps.
_PRESSING_ON = {"mw-button-press-topdown": 0.3, "mw-handle-press-side": 0.3}
_ZERO_ACTION = np.zeros(4, np.float32)


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance of `mw-<name>`."""
    # The experts warn whenever they ask for more than is clipped below.
    warnings.filterwarnings("ignore", module="metaworld.policies")
    return MetaWorldEnv(task, rendering)


class MetaWorldEnv(SimEnv):
    """A Sawyer arm task: two library steps per agent step, 100 agent steps, score = success of the last one."""

    def __init__(self, task: str, rendering: bool) -> None:
        facts = get_task(task)
        name = task.removeprefix("mw-")
        self._task, self._repeat, self._length = task, facts.action_repeat, facts.episode_length
        self._env: Any = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-v3-goal-observable"](seed=0)
        self._expert: Any = ENV_POLICY_MAP[f"{name}-v3"]()
        # The constructor freezes one placement of object and goal, and draws others from NumPy's global generator.
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        model = self._env.model
        camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, _CAMERA)
        model.cam_pos[camera_id] = _CAMERA_POSITION
        self._camera = fixed_camera(camera_id)
        self._obs: npt.NDArray[np.float64] = np.zeros(facts.obs_dim)
        self._steps = 0
        self._succeeded = False
        self._hold = _ZERO_ACTION
        if rendering:
            renderer_for(task, model, _NATIVE_SIZE)

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Draws object and goal from the seed, then takes one library step without action."""
        self._env.seed(seed)
        self._env.reset()
        self._obs, _, _, _, _ = self._env.step(_ZERO_ACTION)
        self._steps = 0
        self._succeeded = False
        return self._obs.astype(np.float32)

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Repeats the action; success is that of the last library step and not kept."""
        reward = 0.0
        for _ in range(self._repeat):
            self._obs, step_reward, _, _, info = self._env.step(action)
            reward += float(step_reward)
        self._steps += 1
        success = float(info["success"])
        self._succeeded = bool(success)
        return StepResult(
            obs=self._obs.astype(np.float32),
            reward=reward,
            terminated=False,
            truncated=self._steps >= self._length,
            success=success,
            score=success,
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """The corner camera, which hangs upside down: turned, then resized."""
        renderer = renderer_for(self._task, self._env.model, _NATIVE_SIZE)
        frame = renderer.draw(self._env.model, self._env.data, self._camera)
        return resize(np.ascontiguousarray(frame[::-1]))

    def expert_action(self) -> npt.NDArray[np.float32]:
        """The package's scripted policy on the current (unrounded) observation; after a success, staying put.

        The experts were written to succeed once and many then move on, but a demonstration has to end in success.
        """
        if self._succeeded:
            return self._hold
        action: npt.NDArray[np.float32] = np.clip(self._expert.get_action(self._obs), -1, 1).astype(np.float32)
        pressing = _PRESSING_ON.get(self._task, 0.0)
        self._hold = np.array([*(pressing * action[:3]), action[3]], np.float32)
        return action

    def close(self) -> None:
        """Closes the library's environment."""
        self._env.close()
