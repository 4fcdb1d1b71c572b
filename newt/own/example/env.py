"""A task of your own: a Gymnasium environment, and below it what Newt must know of it.

    newt env check .        # looks at everything that training will rely on
    newt env play . --agent expert
    newt train . --preset laptop

Replace the environment by yours, or import it here: this file may import what lies beside it and what is installed.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from newt.own import OwnTask, Returns

Floats = npt.NDArray[np.float64]


class ReacherEnv(gymnasium.Env[Floats, Floats]):
    """An arm with two links of length 1 on a table. The tip is to touch a point."""

    # Newt asks for pictures of the kind "rgb_array": for videos, and for agents that see. They may be left out.
    # render_fps is how many steps a second is long: videos are as long as what happens in them.
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        # At most 128 numbers, in a Box, or in a Dict or Tuple of them. Keep them around -10 to 10.
        self.observation_space = spaces.Box(-10.0, 10.0, (8,), np.float64)
        # At most 16 numbers between finite bounds, or Discrete(n) with n up to 16.
        self.action_space = spaces.Box(-2.0, 2.0, (2,), np.float64)
        self.angles = np.zeros(2)
        self.target = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Starts an episode. All chance must come from `self.np_random`: the same seed, the same episode."""
        super().reset(seed=seed)
        self.angles = self.np_random.uniform(-np.pi, np.pi, 2)
        direction, distance = self.np_random.uniform(-np.pi, np.pi), self.np_random.uniform(0.5, 1.8)
        self.target = distance * np.array([np.cos(direction), np.sin(direction)])
        return self.observe(), {}

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        """Turns the joints: the action is their speed in radians per second, a step takes a tenth of a second."""
        self.angles = self.angles + 0.1 * action
        distance = float(np.linalg.norm(self.target - self.tip()))
        # terminated: the task itself has ended, and nothing comes after. Newt cuts episodes off by itself.
        terminated, truncated = False, False
        return self.observe(), -distance, terminated, truncated, {"success": distance < 0.05}

    def observe(self) -> Floats:
        """What the agent sees: the joints, the tip, and the way to the point."""
        return np.concatenate([np.cos(self.angles), np.sin(self.angles), self.tip(), self.target - self.tip()])

    def elbow(self) -> Floats:
        """Where the first link ends."""
        return np.array([np.cos(self.angles[0]), np.sin(self.angles[0])])

    def tip(self) -> Floats:
        """Where the second link ends."""
        both = self.angles.sum()
        tip: Floats = self.elbow() + np.array([np.cos(both), np.sin(both)])
        return tip

    def render(self) -> npt.NDArray[np.uint8]:
        """A picture of any size, uint8[height, width, 3]: the links in grey, the point in red."""
        frame = np.full((128, 128, 3), 255, np.uint8)
        for start, end in ((np.zeros(2), self.elbow()), (self.elbow(), self.tip())):
            for share in np.linspace(0.0, 1.0, 40):
                self._dot(frame, start + share * (end - start), (90, 90, 90))
        self._dot(frame, self.target, (220, 0, 0))
        return frame

    @staticmethod
    def _dot(frame: npt.NDArray[np.uint8], place: Floats, colour: tuple[int, int, int]) -> None:
        column, row = (np.array([1, -1]) * place * 28 + 62).astype(int)
        frame[row : row + 5, column : column + 5] = colour


def expert(env: ReacherEnv, observation: Floats) -> Floats:
    """Moves the tip straight to the point: speeds of the joints by the inverse of the arm's Jacobian."""
    elbow, tip = env.elbow(), env.tip()
    jacobian = np.array([[-tip[1], elbow[1] - tip[1]], [tip[0], tip[0] - elbow[0]]])
    damped = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + 0.01 * np.eye(2))
    speeds: Floats = np.clip(5.0 * damped @ (env.target - tip), -2.0, 2.0)
    return speeds


TASK = OwnTask(
    # What runs, tables and files call it.
    name="my-reacher",
    # The class, or a function that makes an environment.
    make=ReacherEnv,
    # The agent reads these two. Tasks that share a body should share the first text.
    embodiment="An arm with two joints on a table. The actions are the speeds of the first and of the second joint.",
    goal="Touch the red point with the tip of the arm.",
    # Newt cuts episodes off after so many steps.
    episode_length=50,
    # How good an episode was, from 0 to 1. Returns: its sum of rewards between the worst and the best that one expects;
    # Success(): info["success"] of the last step.
    score=Returns(worst=-100.0, best=-8.0),
    # Optional. With an expert, runs begin with demonstrations of it.
    expert=expert,
    # Optional: requirements=["mujoco>=3"], discount=0.98.
)
