"""Walker: backward gaits, slopes and poses, for the suite's planar biped."""

from __future__ import annotations

from functools import partial
from typing import Any

from dm_control.suite import walker

from services.sim.domains.dmcontrol_extended.building import (
    OtherReward,
    Reward,
    element,
    environment,
    height,
    suite_model,
)
from services.sim.domains.dmcontrol_extended.rewards import linear_above, smooth_above, smooth_below

_CONTROL_TIMESTEP = 0.025
_STAND_HEIGHT, _WALK_SPEED, _RUN_SPEED = 1.2, 1.0, 8.0  # The suite's.
_LYING_HEIGHT = 0.08
_FEET_UP_HEIGHT = 1.1
_HIPS_UP_HEIGHT = 1.0
_ARABESQUE_HEIGHT = 1.0
# Normal of the slope. It rises by 0.1397 per metre, 7.95 degrees.
_SLOPE_NORMAL = "-0.139173 0 0.996195"


def _standing(physics: Any) -> float:
    upright = (1 + float(physics.torso_upright())) / 2
    return (3 * smooth_above(height(physics, "torso"), _STAND_HEIGHT, _STAND_HEIGHT / 2) + upright) / 4


def _backward(physics: Any, speed: float) -> float:
    moving = linear_above(-float(physics.horizontal_velocity()), speed, speed / 2, at_margin=0.5)
    return _standing(physics) * (5 * moving + 1) / 6


def _inverted(physics: Any) -> float:
    return (1 - float(physics.torso_upright())) / 2


def _hips(physics: Any) -> float:
    return (height(physics, "right_thigh") + height(physics, "left_thigh")) / 2


def _feet(physics: Any) -> float:
    return (height(physics, "right_foot") + height(physics, "left_foot")) / 2


def _feet_up(physics: Any) -> float:
    return smooth_above(_feet(physics), _FEET_UP_HEIGHT, _FEET_UP_HEIGHT / 2)


def _on_the_floor(body_height: float) -> float:
    return smooth_below(body_height, _LYING_HEIGHT, _LYING_HEIGHT / 2)


def _arabesque(physics: Any) -> float:
    """On the left foot, the right one and the hips high, head down."""
    margin = _ARABESQUE_HEIGHT / 2
    torso = smooth_above(height(physics, "torso"), _ARABESQUE_HEIGHT, margin)
    left_down = smooth_below(height(physics, "left_foot"), _LYING_HEIGHT, margin)
    right_up = smooth_above(height(physics, "right_foot"), _ARABESQUE_HEIGHT, margin)
    return (3 * torso + left_down + right_up + _inverted(physics)) / 6


def _lie_down(physics: Any) -> float:
    """Torso and hips on the floor; where the feet are does not matter."""
    return (3 * _on_the_floor(height(physics, "torso")) + _on_the_floor(_hips(physics)) + _inverted(physics)) / 5


def _legs_up(physics: Any) -> float:
    """Torso and hips on the floor, feet in the air."""
    torso = _on_the_floor(height(physics, "torso"))
    return (3 * torso + 2 * _feet_up(physics) + _on_the_floor(_hips(physics)) + _inverted(physics)) / 7


def _headstand(physics: Any) -> float:
    """Feet and hips in the air."""
    return (3 * _feet_up(physics) + 2 * smooth_above(_hips(physics), _HIPS_UP_HEIGHT, _HIPS_UP_HEIGHT / 2)) / 5


def _on_the_flat(reward: Reward) -> Any:
    model = suite_model("walker.xml")
    # Drawn twice as long, for walks backward; the plane that carries the walker has no end.
    element(model, "geom", "floor").set("size", "500 .8 .2")
    task = OtherReward(walker.PlanarWalker(move_speed=0), reward)
    return environment(walker.Physics, model, task, _CONTROL_TIMESTEP)


def _on_the_slope(speed: float) -> Any:
    """The suite's task on a slope; heights are counted from the level of the origin, as on the flat."""
    model = suite_model("walker.xml")
    floor = element(model, "geom", "floor")
    floor.set("pos", "0 0 0")
    floor.set("size", "500 .8 .2")
    floor.set("zaxis", _SLOPE_NORMAL)
    return environment(walker.Physics, model, walker.PlanarWalker(move_speed=speed), _CONTROL_TIMESTEP)


TASKS = {
    "walker-walk-backward": partial(_on_the_flat, partial(_backward, speed=_WALK_SPEED)),
    "walker-run-backward": partial(_on_the_flat, partial(_backward, speed=_RUN_SPEED)),
    "walker-stand-incline": partial(_on_the_slope, 0.0),
    "walker-walk-incline": partial(_on_the_slope, _WALK_SPEED),
    "walker-run-incline": partial(_on_the_slope, _RUN_SPEED),
    "walker-arabesque": partial(_on_the_flat, _arabesque),
    "walker-lie-down": partial(_on_the_flat, _lie_down),
    "walker-legs-up": partial(_on_the_flat, _legs_up),
    "walker-headstand": partial(_on_the_flat, _headstand),
}
"""By task name."""
