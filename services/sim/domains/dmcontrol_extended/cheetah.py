"""Cheetah: running backward, running on one leg and jumping, for the suite's cheetah."""

from __future__ import annotations

from functools import partial
from typing import Any

from dm_control.suite import cheetah

from services.sim.domains.dmcontrol_extended.building import (
    OtherReward,
    Reward,
    element,
    environment,
    height,
    suite_model,
)
from services.sim.domains.dmcontrol_extended.rewards import linear_above, linear_below, smooth_above

_BACKWARD_SPEED = 8.0
_ONE_LEGGED_SPEED = 6.0
_STILL_SPEED = 0.5
_AIRBORNE_HEIGHT = 1.2


def _run_backward(physics: Any) -> float:
    return linear_above(-float(physics.speed()), _BACKWARD_SPEED, _BACKWARD_SPEED)


def _jump(physics: Any) -> float:
    """Torso and feet high, without travelling."""
    still = linear_below(abs(float(physics.speed())), _STILL_SPEED, _STILL_SPEED)

    def high(foot: str) -> float:
        return smooth_above(
            (height(physics, "torso") + height(physics, foot)) / 2, _AIRBORNE_HEIGHT, _AIRBORNE_HEIGHT / 2
        )

    return (5 * (high("bfoot") + high("ffoot")) / 2 + still) / 6


def _run_on_one_leg(physics: Any, airborne: str) -> float:
    """Forward, with the torso and this foot high."""

    def high(body: str) -> float:
        return smooth_above(height(physics, body), _AIRBORNE_HEIGHT, _AIRBORNE_HEIGHT / 2)

    running = linear_above(float(physics.speed()), _ONE_LEGGED_SPEED, _ONE_LEGGED_SPEED)
    return (3 * high(airborne) + 2 * high("torso")) / 5 * (5 * running + 1) / 6


def _build(reward: Reward) -> Any:
    model = suite_model("cheetah.xml")
    # Drawn twice as long, for runs backward; the plane that carries the cheetah has no end.
    element(model, "geom", "ground").set("size", "200 .8 .5")
    return environment(cheetah.Physics, model, OtherReward(cheetah.Cheetah(), reward))


TASKS = {
    "cheetah-run-backward": partial(_build, _run_backward),
    "cheetah-run-front": partial(_build, partial(_run_on_one_leg, airborne="bfoot")),
    "cheetah-run-back": partial(_build, partial(_run_on_one_leg, airborne="ffoot")),
    "cheetah-jump": partial(_build, _jump),
}
"""By task name."""
