"""One simulator instance as a gymnasium.Env."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from newt.client.vector_env import RemoteVectorEnv
from newt.tasks.pace import DEFAULT_STEPS_PER_S


class RemoteEnv(gymnasium.Env[Any, npt.NDArray[np.float32]]):
    """One instance somewhere else. Many are slow: every step is a call, where RemoteVectorEnv makes one for all.

        env = RemoteEnv("walker-walk", address="127.0.0.1:50051", render_mode="rgb_array")
        obs, info = env.reset(seed=0)
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        env.close()

    Spaces, seeds, `info` and errors are those of `RemoteVectorEnv`, for one row: `success`, `score` and
    `corrected_score` after a step, `episode_seed` after a reset. If the simulator crashes, the episode is truncated
    with reward 0 and `info["env_error"]`.

    Args:
        task: Name of the task.
        address: host:port of the simulator service; None: what $NEWT_SIM says.
        obs_mode: `state`, or `rgb` for state and frames.
        render_mode: `rgb_array` for `render()`, or None.
        with_expert: Put the scripted expert's action into `info["expert_action"]`.
        timeout_s: As RemoteVectorEnv's.

    Raises:
        ValueError: Arguments that make no sense.
        NewtError: What the server says: unknown task, no room, unreachable, ...
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": DEFAULT_STEPS_PER_S}  # noqa: RUF012  # Gymnasium's

    def __init__(
        self,
        task: str,
        *,
        address: str | None = None,
        obs_mode: Literal["state", "rgb"] = "state",
        render_mode: str | None = None,
        with_expert: bool = False,
        timeout_s: float = 120.0,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"got render_mode={render_mode!r}; expected 'rgb_array' or None")
        self._envs = RemoteVectorEnv(
            task,
            1,
            address=address,
            obs_mode=obs_mode,
            autoreset_mode=AutoresetMode.DISABLED,
            with_expert=with_expert,
            timeout_s=timeout_s,
        )
        self.task = self._envs.tasks[0]
        self.metadata = {**self.metadata, "render_fps": self._envs.metadata["render_fps"]}
        self.render_mode = render_mode
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode: of this seed, or the next one of the sequence."""
        super().reset(seed=seed)
        obs, info = self._envs.reset(seed=seed)
        return self._row(obs), _plain(info)

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; `action` is float32[A] in [-1, 1]. Raises as RemoteVectorEnv.step."""
        obs, reward, terminated, truncated, info = self._envs.step(np.asarray(action, np.float32)[None])
        return self._row(obs), float(reward[0]), bool(terminated[0]), bool(truncated[0]), _plain(info)

    def render(self) -> Any:
        """Draws the instance as it is now: uint8[224, 224, 3]; None without a render mode."""
        return self._envs.render()[0] if self.render_mode else None

    def close(self) -> None:
        """Gives the instance back."""
        if hasattr(self, "_envs"):
            self._envs.close()

    @staticmethod
    def _row(obs: Any) -> Any:
        return {key: value[0] for key, value in obs.items()} if isinstance(obs, dict) else obs[0]


def _plain(info: dict[str, Any]) -> dict[str, Any]:
    """A vector's info as that of its only row."""
    return {key: value[0] for key, value in info.items() if not key.startswith("_") and value is not None}
