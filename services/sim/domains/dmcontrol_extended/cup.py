"""Cup: whirling the ball around the cup, for the suite's ball in a cup."""

from __future__ import annotations

from typing import Any

import numpy as np
from dm_control.suite import ball_in_cup

from services.sim.domains.dmcontrol_extended.building import environment, suite_model
from services.sim.domains.dmcontrol_extended.rewards import linear_above

_CONTROL_TIMESTEP = 0.02
_DISTANCE = 0.5  # The string allows 0.358 (0.3 from the cup's bottom, 0.058 below the target): see BEST_SCORES.
_BALL_SPEED = 6.0
_ANYWHERE_PROBABILITY = 0.1


class CupSpin(ball_in_cup.BallInCup):  # type: ignore[misc] # dm_control is untyped
    """Most episodes start with the ball in the cup, where nothing is paid."""

    def initialize_episode(self, physics: Any) -> None:
        """Draws ball positions until one is free of contacts and, nine times in ten, in the cup."""
        anywhere = self.random.uniform() < _ANYWHERE_PROBABILITY
        while True:
            super().initialize_episode(physics)
            if anywhere or physics.in_target():
                return

    def get_reward(self, physics: Any) -> float:
        """Two thirds for the ball's speed, one third for its distance from the cup."""
        if physics.in_target():
            return 0.0
        distance = float(np.linalg.norm(physics.ball_to_target()))
        velocity = physics.named.data.qvel
        speed = float(np.hypot(velocity["ball_x"][0], velocity["ball_z"][0]))
        far = linear_above(distance, _DISTANCE, _DISTANCE / 2, at_margin=0.5)
        fast = linear_above(speed, _BALL_SPEED, _BALL_SPEED / 2, at_margin=0.5)
        return (far + 2 * fast) / 3


def _build() -> Any:
    return environment(ball_in_cup.Physics, suite_model("ball_in_cup.xml"), CupSpin(), _CONTROL_TIMESTEP)


TASKS = {"cup-spin": _build}
"""By task name."""

BEST_SCORES = {"cup-spin": 0.905}
"""The reward of a ball that is fast and as far out as the string lets it."""
