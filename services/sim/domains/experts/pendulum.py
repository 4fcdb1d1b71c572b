"""A pendulum whose motor is too weak to lift it at once."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np

from services.sim.domains.experts.mechanics import Expert, Vector, feedback

_ANGLE_COST, _SPEED_COST, _ACTION_COST = 10.0, 1.0, 0.1
_CATCH_ACTION = 1.5  # Balancing takes over where it asks for at most this, of which the motor delivers 1.
_CATCH_ANGLE = 0.4  # rad from upright.


def swing_up(model: Any, data: Any, steps: int) -> Expert:
    """Pushes along the swing until there is energy enough to reach the top, and balances there."""
    gains = feedback(model, steps, [_ANGLE_COST, _SPEED_COST], _ACTION_COST)
    scratch = mujoco.MjData(model)
    mujoco.mj_forward(model, scratch)
    inertia = float(scratch.qM[0])
    weight = _gravity_torque(model)

    def act() -> Vector:
        angle, speed = math.remainder(float(data.qpos[0]), 2 * math.pi), float(data.qvel[0])
        wanted = -gains @ [angle, speed]
        if abs(angle) < _CATCH_ANGLE and abs(wanted[0]) < _CATCH_ACTION:
            return np.clip(wanted, -1.0, 1.0)
        energy = inertia * speed**2 / 2 + weight * (math.cos(angle) - 1)  # Joules; 0 at rest at the top.
        along = math.copysign(1.0, speed)
        return np.array([along if energy < 0 else -along])

    return act


def spin(model: Any, data: Any, steps: int) -> Expert:
    """Pushes along the swing, always: friction limits the speed."""
    return lambda: np.array([math.copysign(1.0, float(data.qvel[0]))])


def _gravity_torque(model: Any) -> float:
    """On the level pendulum, N m."""
    scratch = mujoco.MjData(model)
    scratch.qpos[0] = math.pi / 2
    mujoco.mj_forward(model, scratch)
    return abs(float(scratch.qfrc_bias[0]))
