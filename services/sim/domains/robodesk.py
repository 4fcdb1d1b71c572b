"""RoboDesk: six tasks of a Panda arm at a desk."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from newt.tasks.registry import get_task
from services.sim.domains.base import FRAME_SIZE, SimEnv, StepResult, flat_float32
from services.sim.domains.mujoco_frames import renderer_for

with contextlib.redirect_stderr(io.StringIO()):  # It imports the old gym, which prints a page of advice.
    from robodesk import RoboDesk

# By name, as they have always been sorted. What the library calls qpos_objects are the objects' velocities once more:
# nobody sees where the objects are, but to change that would change the task.
_OBSERVED = ("end_effector", "qpos_objects", "qpos_robot", "qvel_objects", "qvel_robot")
_STILL = np.zeros(5)
_RENDERER = "robodesk"  # One for all tasks: they have the same model.


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance of `rd-<name>`."""
    return RoboDeskEnv(task, rendering)


class RoboDeskEnv(SimEnv):
    """A desk task: ten control steps per agent step, 100 agent steps, score = success after the last one."""

    def __init__(self, task: str, rendering: bool) -> None:
        facts = get_task(task)
        self._length = facts.episode_length
        self._name = task.removeprefix("rd-").replace("-", "_")
        # The library's own time limit is out of the way: the reset takes a step, too.
        self._env: Any = _Desk(
            task=self._name, reward="dense", action_repeat=facts.action_repeat, episode_length=0, image_size=1
        )
        self._camera = _camera()
        self._steps = 0
        if rendering:
            renderer_for(_RENDERER, self._env.physics.model.ptr, FRAME_SIZE)

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Draws objects and arm from the seed, then takes one agent step without action."""
        # The library draws from NumPy's global generator.
        others = np.random.get_state()
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
        try:
            self._env.reset()
        finally:
            np.random.set_state(others)
        self._steps = 0
        obs, _, _, _ = self._env.step(_STILL)
        return _observe(obs)

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Takes the control steps; success is that of the last one and not kept."""
        obs, reward, _, _ = self._env.step(action)
        self._steps += 1
        # Some of the tests answer with an array of one element.
        success = float(np.any(self._env.reward_functions[self._name]("success")))
        return StepResult(
            obs=_observe(obs),
            reward=float(reward),
            terminated=False,
            truncated=self._steps >= self._length,
            success=success,
            score=success,
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """The desk from above its front edge."""
        physics = self._env.physics
        renderer = renderer_for(_RENDERER, physics.model.ptr, FRAME_SIZE)
        return renderer.draw(physics.model.ptr, physics.data.ptr, self._camera)

    def close(self) -> None:
        """Frees the two simulations of the library's environment."""
        self._env.physics.free()
        self._env.physics_copy.free()


class _Desk(RoboDesk):  # type: ignore[misc] # the library has no types
    """The library's environment without the picture that it draws for every observation, wanted or not."""

    def render(self, mode: str = "rgb_array", resize: bool = True) -> None:
        """Draws nothing."""


def _observe(obs: dict[str, Any]) -> npt.NDArray[np.float32]:
    return flat_float32(obs[name] for name in _OBSERVED)


def _camera() -> Any:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = (0.0, 0.535, 1.1)
    camera.distance, camera.azimuth, camera.elevation = 1.4, 90.0, -60.0
    return camera
