"""The games as Gymnasium environments. Needs gymnasium.

from newt.miniarcade.environment import make

env = make("pygame-highway", render_mode="rgb_array")
obs, info = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
"""

from __future__ import annotations

import math
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt

from newt.miniarcade import GAMES, make_game

RenderMode = Literal["rgb_array"]


class MiniArcadeEnv(gymnasium.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """One game.

    Episodes are truncated at their length and never terminate; `info` has `score`, and `success` where the game knows
    it.

    Args:
        game: Name of the game.
        render_mode: `rgb_array`, or None if no pictures are wanted.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, game: str, render_mode: RenderMode | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"got render_mode {render_mode!r}, expected 'rgb_array' or None")
        self.game = make_game(game)
        self.metadata = {**self.metadata, "render_fps": self.game.FPS}
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self.game.OBS_DIM,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.game.ACTION_DIM,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Starts the episode of this seed; without one, the next of the last seed's sequence."""
        super().reset(seed=seed)
        episode = int(self.np_random.integers(1 << 63)) if seed is None else seed
        return self.game.reset(episode), {}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One frame."""
        outcome = self.game.step(action)
        info: dict[str, Any] = {"score": outcome.score}
        if not math.isnan(outcome.success):
            info["success"] = outcome.success
        return outcome.obs, outcome.reward, False, outcome.truncated, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """uint8[224, 224, 3]; None without a render mode."""
        return self.game.render() if self.render_mode else None


def make(game: str, render_mode: RenderMode | None = None) -> MiniArcadeEnv:
    """Builds the environment of a game, without gymnasium's wrappers.

    Raises:
        ValueError: No game of this name, or no such render mode.
    """
    return MiniArcadeEnv(game, render_mode)


def register() -> None:
    """Makes `gymnasium.make("MiniArcade/pygame-highway-v0")` work, and so on for every game."""
    for game in GAMES:
        gymnasium.register(f"MiniArcade/{game}-v0", "newt.miniarcade.environment:MiniArcadeEnv", kwargs={"game": game})
