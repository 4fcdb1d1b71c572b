"""Carts that balance a pole, or swing it up first."""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np

from services.sim.domains.experts.mechanics import Expert, Vector, feedback

_CART_COST, _POLE_COST, _SPEED_COST, _ACTION_COST = 1.0, 10.0, 0.1, 0.5

_CATCH_ANGLE = 0.5  # rad from upright; within it balancing takes over ...
_CATCH_SPEED = 3.5  # ... unless the pole is faster than this, rad/s.
_PUMP = 0.9  # Action that pumps energy into the pole, as long as much is missing.
_PUMP_GAIN = 4.0  # By how much less it pumps where little is missing, per share of the way from bottom to top.
_RETURN_GAIN, _RETURN_DAMPING = 0.4, 0.1  # Action per metre and per m/s that keep the cart off the ends of the rail.


def balance(model: Any, data: Any, steps: int) -> Expert:
    """Keeps the pole, or poles end to end, upright and the cart in the middle; joint 0 is the cart's."""
    joints = model.nv
    costs = [_CART_COST, *[_POLE_COST] * (joints - 1), *[_SPEED_COST] * joints]
    gains = feedback(model, steps, costs, _ACTION_COST)

    def act() -> Vector:
        angles = np.remainder(data.qpos[1:] + math.pi, 2 * math.pi) - math.pi
        state = np.concatenate([data.qpos[:1], angles, data.qvel])
        action: Vector = np.clip(-gains @ state, -1.0, 1.0)
        return action

    return act


def swing_up(model: Any, data: Any, steps: int) -> Expert:
    """Pumps energy into the pole until it comes by the top slowly enough, then balances it.

    A cart that is pushed against the swing of the pole's lower half adds to the pole's energy (Åström & Furuta,
    "Swinging up a pendulum by energy control", 2000).
    """
    hold = balance(model, data, steps)
    frequency = _square_frequency(model)

    def act() -> Vector:
        angle = math.remainder(float(data.qpos[1]), 2 * math.pi)
        speed = float(data.qvel[1])
        if abs(angle) < _CATCH_ANGLE and abs(speed) < _CATCH_SPEED:
            return hold()
        # 0 for the pole at rest at the top, -2 at the bottom.
        energy = speed**2 / (2 * frequency) + math.cos(angle) - 1
        pump = min(max(_PUMP_GAIN * energy, -_PUMP), _PUMP) * math.copysign(1.0, speed * math.cos(angle))
        stay = -_RETURN_GAIN * float(data.qpos[0]) - _RETURN_DAMPING * float(data.qvel[0])
        return np.clip([pump + stay], -1.0, 1.0)

    return act


def _square_frequency(model: Any) -> float:
    """Of small swings of the pole about the bottom, (rad/s)²: gravity's torque by the moment of inertia."""
    scratch = mujoco.MjData(model)
    mujoco.mj_forward(model, scratch)
    mass = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, mass, scratch.qM)
    return float(-model.opt.gravity[2] * mass[0, 1] / mass[1, 1])
