"""The simulator service as a vectorised environment of Stable-Baselines3.

from stable_baselines3 import PPO
from newt.client.stable_baselines3 import RemoteVecEnv

PPO("MlpPolicy", RemoteVecEnv("walker-walk", num_envs=8, address="127.0.0.1:50051")).learn(100_000)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from newt.client.vector_env import RemoteVectorEnv


class RemoteVecEnv(VecEnv):  # type: ignore[misc]  # that library is not type-checked
    """N simulator instances somewhere else, stepped together; `RemoteVectorEnv` in Stable-Baselines3's terms.

    `infos` has an entry per row with `score`, `corrected_score` and, where the task defines one, `success`; at the end
    of an episode also `terminal_observation`, `TimeLimit.truncated` and `is_success`, and `env_error` where a simulator
    has crashed. `reset_infos` has the `episode_seed`. VecMonitor, VecNormalize and VecFrameStack work on top of it.

    Args:
        tasks: One name for all rows, or one per row.
        num_envs: Number of rows; needed if `tasks` is one name.
        settings: Others of `RemoteVectorEnv`: `address`, `obs_mode`, `timeout_s`. With `rgb`, observations are a dict,
            for `MultiInputPolicy`.

    Raises:
        ValueError, NewtError: As `RemoteVectorEnv`.
    """

    def __init__(self, tasks: str | Sequence[str], num_envs: int | None = None, **settings: Any) -> None:
        self.envs = RemoteVectorEnv(tasks, num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **settings)
        super().__init__(self.envs.num_envs, self.envs.single_observation_space, self.envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Starts new episodes in all rows: of the seeds that `seed` has set, else the next ones."""
        obs, info = self.envs.reset(seed=self._seeds)
        self.reset_infos = [_row(info, row) for row in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Starts a step: [N, A] in [-1, 1]."""
        self.envs.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """What it has led to. Raises as `RemoteVectorEnv.step`."""
        obs, reward, terminated, truncated, info = self.envs.step_wait()
        done = terminated | truncated
        ended = info.get("final_info", {})
        infos = []
        for row in range(self.num_envs):
            facts = _row(ended if done[row] else info, row)
            if np.isnan(facts["success"]):
                del facts["success"]
            if done[row]:
                self.reset_infos[row] = {"episode_seed": info["episode_seed"][row]}
                facts["terminal_observation"] = info["final_obs"][row]
                facts["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
                if "success" in facts:
                    facts["is_success"] = bool(facts["success"])
                if "env_error" in info and info["env_error"][row]:
                    facts["env_error"] = True
            infos.append(facts)
        return obs, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Gives the instances back."""
        self.envs.close()

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """Draws all rows: uint8[224, 224, 3] each."""
        return self.envs.render()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of this object, for each of the rows: `render_mode`, `spec`; `task` is the row's own."""
        rows = list(self._get_indices(indices))
        if attr_name == "task":
            return [self.envs.tasks[row] for row in rows]
        return [getattr(self.envs, attr_name) for _ in rows]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: the environments are in other processes, and nothing of them can be set."""
        raise AttributeError(f"{attr_name!r} cannot be set: the simulators are in another process")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: the environments are in other processes, and have no methods but those of VecEnv."""
        raise AttributeError(f"{method_name!r} cannot be called: the simulators are in another process")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No row is: wrap all of them with VecMonitor and its kin."""
        return [False for _ in self._get_indices(indices)]

    def _get_indices(self, indices: VecEnvIndices) -> Iterable[int]:
        return [int(row) for row in super()._get_indices(indices)]


def _row(info: dict[str, Any], row: int) -> dict[str, Any]:
    """What a vector's info says of a row."""
    return {name: values[row] for name, values in info.items() if not name.startswith("_") and info[f"_{name}"][row]}
