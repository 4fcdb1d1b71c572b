"""Pendulum: spinning fast, either way round, for the suite's pendulum."""

from __future__ import annotations

from typing import Any

from dm_control.suite import pendulum

from services.sim.domains.dmcontrol_extended.building import OtherReward, environment, suite_model
from services.sim.domains.dmcontrol_extended.rewards import linear_above

_SPEED = 9.0  # rad/s


def _spin(physics: Any) -> float:
    return linear_above(abs(float(physics.angular_velocity()[0])), _SPEED, _SPEED / 2, at_margin=0.5)


def _build() -> Any:
    return environment(pendulum.Physics, suite_model("pendulum.xml"), OtherReward(pendulum.SwingUp(), _spin))


TASKS = {"pendulum-spin": _build}
"""By task name."""
