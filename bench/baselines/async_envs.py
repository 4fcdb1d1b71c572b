"""Gymnasium's own vector of processes around the same simulators."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from services.sim.domains import make

Floats = npt.NDArray[np.float32]


class PlainEnv(gymnasium.Env[Floats, Floats]):
    """One simulator instance of the service's domain adapters, without the service."""

    def __init__(self, domain: str, task: str, obs_dim: int, action_dim: int) -> None:
        self._env = make(domain, task, rendering=False)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """A new episode."""
        super().reset(seed=seed)
        return self._env.reset(int(self.np_random.integers(2**63))), {}

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """One agent step."""
        result = self._env.step(action)
        info = {"success": result.success, "score": result.score}
        return result.obs, result.reward, result.terminated, result.truncated, info

    def close(self) -> None:
        """Frees the simulator."""
        self._env.close()


def async_envs(domain: str, task: str, obs_dim: int, action_dim: int, count: int) -> AsyncVectorEnv:
    """One process per instance, observations in shared memory.

    Spawned: the process that asks may have gRPC threads, which a fork does not survive.
    """
    env = partial(PlainEnv, domain, task, obs_dim, action_dim)
    return AsyncVectorEnv([env] * count, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)
