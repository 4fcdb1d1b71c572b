"""MiniArcade: the small games of `newt.miniarcade`, with their scripted players as experts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from newt.miniarcade import make_game
from services.sim.domains.base import RenderingError, SimEnv, StepResult


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance."""
    return MiniArcadeEnv(task, rendering)


class MiniArcadeEnv(SimEnv):
    """One game. States need no pygame; frames do, but no screen and no graphics driver."""

    def __init__(self, task: str, rendering: bool) -> None:
        self._game = make_game(task)
        if rendering:
            self._game.reset(0)
            self.render()

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Starts the game's episode of this seed."""
        return self._game.reset(seed)

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """One frame."""
        outcome = self._game.step(action.tolist())
        return StepResult(
            obs=outcome.obs,
            reward=outcome.reward,
            terminated=False,
            truncated=outcome.truncated,
            success=outcome.success,
            score=outcome.score,
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """The game's own picture."""
        try:
            return self._game.render()
        except ImportError as error:
            raise RenderingError(f"drawing needs pygame ({error}): install newt[sim-miniarcade]") from error

    def expert_action(self) -> npt.NDArray[np.float32]:
        """What the game's scripted player would do."""
        return self._game.expert_action()
