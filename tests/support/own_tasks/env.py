"""Tasks of a stranger's, for the tests of what takes them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from newt.own import OwnTask, Returns, Success


class PointEnv(gymnasium.Env[Any, Any]):
    """A point is pushed to the middle of a line; it ends there. Observations are written into one array."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            {"place": spaces.Box(-10, 10, (1,), np.float64), "side": spaces.Discrete(2), "clock": spaces.Box(0, 99, ())}
        )
        self.action_space = spaces.Box(np.array([0.0], np.float32), np.array([4.0], np.float32))
        self._place = np.zeros(1)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Anywhere on the line."""
        super().reset(seed=seed)
        self._place[:] = self.np_random.uniform(-1, 1)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """2 stands still."""
        assert self.action_space.contains(action), action
        self._place += 0.1 * (action - 2.0)
        self._steps += 1
        distance = abs(float(self._place[0]))
        return self._observe(), -distance, distance > 5, False, {"success": distance < 0.1}

    def render(self) -> Any:
        """A white bar where the point is."""
        frame = np.zeros((60, 90, 3), np.uint8)
        column = int(np.clip(45 + 40 * self._place[0], 0, 84))
        frame[:, column : column + 5] = 255
        return frame

    def _observe(self) -> dict[str, Any]:
        return {"place": self._place, "side": int(self._place[0] > 0), "clock": np.float32(self._steps)}


class TurnsEnv(gymnasium.Env[Any, Any]):
    """Guess the number that is shown."""

    def __init__(self) -> None:
        self.observation_space = spaces.Discrete(3, start=1)
        self.action_space = spaces.Discrete(3, start=1)
        self._shown = 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws a number."""
        super().reset(seed=seed)
        self._shown = int(self.np_random.integers(1, 4))
        return self._shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pays for the number shown, and draws another one."""
        right = float(action == self._shown)
        self._shown = int(self.np_random.integers(1, 4))
        return self._shown, right, False, False, {}


POINT = OwnTask(
    name="own-point",
    make=PointEnv,
    embodiment="A point on a line. The action pushes it to the left or to the right.",
    goal="Keep the point in the middle.",
    episode_length=10,
    score=Success(),
    expert=lambda env, obs: np.clip(2.0 - 10.0 * obs["place"], 0.0, 4.0),
)
TURNS = OwnTask(
    name="own-turns",
    make=TurnsEnv,
    goal="Say the number that is shown.",
    episode_length=12,
    score=Returns(worst=0, best=12),
    expert=lambda env, obs: obs,
)
