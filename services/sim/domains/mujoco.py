"""MuJoCo: six tasks of gymnasium, in their v4 versions (v5 observes and rewards differently)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt

from newt.tasks.registry import get_task
from services.sim.domains.base import SimEnv, StepResult
from services.sim.domains.experts import cartpole
from services.sim.domains.experts.mechanics import MakeExpert, OnDemand
from services.sim.domains.experts.reaching import Reach
from services.sim.domains.frames import resize
from services.sim.domains.mujoco_frames import fixed_camera, renderer_for

_NATIVE_SIZE = 480


@dataclass(frozen=True)
class _Variant:
    """How a task uses its gymnasium environment.

    Attributes:
        env_id: The gymnasium id.
        score: Maps the return so far to the score so far.
        kwargs: Constructor arguments.
        camera: Name of the model's camera, or None for a free camera that looks at the whole model.
        camera_distance: Distance of the free camera, metres; None is the model's extent.
    """

    env_id: str
    score: Callable[[float], float]
    kwargs: dict[str, Any] = field(default_factory=dict)
    camera: str | None = None
    camera_distance: float | None = None


def _share_of(best: float) -> Callable[[float], float]:
    return lambda episode_return: min(max(episode_return, 0.0), best) / best


def _reacher_score(episode_return: float) -> float:
    return 1.0 + min(max(episode_return, -50.0), 0.0) / 50.0


_KEEP_GOING = {"terminate_when_unhealthy": False}
_VARIANTS = {
    "mujoco-ant": _Variant("Ant-v4", _share_of(5000), _KEEP_GOING, camera="track"),
    "mujoco-halfcheetah": _Variant("HalfCheetah-v4", _share_of(15000), camera="track"),
    "mujoco-hopper": _Variant("Hopper-v4", _share_of(5000), _KEEP_GOING, camera="track"),
    "mujoco-walker": _Variant("Walker2d-v4", _share_of(5000), _KEEP_GOING, camera="track"),
    "mujoco-inverted-pendulum": _Variant("InvertedPendulum-v4", _share_of(1000), camera_distance=2.04),
    "mujoco-reacher": _Variant("Reacher-v4", _reacher_score),
}

_EXPERTS: dict[str, MakeExpert] = {
    "mujoco-inverted-pendulum": cartpole.balance,
    "mujoco-reacher": Reach("fingertip", "target", frequency=8.0),  # Slow: large actions cost reward.
}


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance."""
    return MujocoEnv(task, rendering)


class MujocoEnv(SimEnv):
    """A gymnasium environment of fixed length: falling costs reward, it never ends the episode."""

    def __init__(self, task: str, rendering: bool) -> None:
        facts = get_task(task)
        self._variant = _VARIANTS[task]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # v4 is deprecated, and what we want.
            env: Any = gymnasium.make(self._variant.env_id, disable_env_checker=True, **self._variant.kwargs)
        self._env = env.unwrapped  # Without the wrappers: the time limit is ours.
        self._task, self._repeat, self._length = task, facts.action_repeat, facts.episode_length
        self._action_scale = self._env.action_space.high
        self._steps = 0
        self._return = 0.0
        self._failed = False
        self._camera = self._make_camera()
        make_expert, steps = _EXPERTS.get(task), self._repeat * self._env.frame_skip
        self._expert = make_expert and OnDemand(make_expert, self._env.model, self._env.data, steps)
        if rendering:
            renderer_for(task, self._env.model, _NATIVE_SIZE)

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Seeds and resets the library's environment."""
        obs, _ = self._env.reset(seed=seed)
        self._steps, self._return, self._failed = 0, 0.0, False
        return np.asarray(obs, np.float32)

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Repeats the action, scaled to the environment's bounds, and sums the shaped rewards."""
        control = action * self._action_scale
        reward = 0.0
        for _ in range(self._repeat):
            obs, raw_reward, failed, _, _ = self._env.step(control)
            reward += self._shaped(float(raw_reward), bool(failed))
        self._steps += 1
        self._return += reward
        return StepResult(
            obs=np.asarray(obs, np.float32),
            reward=reward,
            terminated=False,
            truncated=self._steps >= self._length,
            success=math.nan,
            score=self._variant.score(self._return),
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """The library's native 480 x 480 picture, resized."""
        renderer = renderer_for(self._task, self._env.model, _NATIVE_SIZE)
        return resize(renderer.draw(self._env.model, self._env.data, self._camera))

    def expert_action(self) -> npt.NDArray[np.float32]:
        """That of the task's scripted expert, if it has one."""
        return self._expert() if self._expert else super().expert_action()

    def close(self) -> None:
        """Closes the library's environment."""
        self._env.close()

    def _shaped(self, reward: float, failed: bool) -> float:
        if self._task in ("mujoco-hopper", "mujoco-walker"):
            return max(0.0, reward) if self._env.is_healthy else -1.0
        if self._task == "mujoco-inverted-pendulum":
            # Nothing is paid from the first failure on, the failing sub-step included.
            self._failed = self._failed or failed
            return 0.0 if self._failed else 1.0
        return reward

    def _make_camera(self) -> Any:
        model = self._env.model
        if self._variant.camera is not None:
            return fixed_camera(mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, self._variant.camera))
        # As gymnasium places it, but from the model's reference pose: there it depends on the first state drawn.
        reference = mujoco.MjData(model)
        mujoco.mj_forward(model, reference)
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = np.median(reference.geom_xpos, axis=0)
        camera.distance = self._variant.camera_distance or model.stat.extent
        return camera
