"""Hopper: hopping backward, for the suite's hopper."""

from __future__ import annotations

from typing import Any

from dm_control.suite import hopper

from services.sim.domains.dmcontrol_extended.building import OtherReward, environment, suite_model
from services.sim.domains.dmcontrol_extended.rewards import linear_above

_CONTROL_TIMESTEP = 0.02
_STANDING_HEIGHTS = 0.6, 2.0  # Torso above foot, between their centres of mass.
_SPEED = 1.0


def _hop_backward(physics: Any) -> float:
    lowest, highest = _STANDING_HEIGHTS
    if not lowest <= physics.height() <= highest:
        return 0.0
    return linear_above(-float(physics.speed()), _SPEED, _SPEED / 2, at_margin=0.5)


def _build() -> Any:
    task = OtherReward(hopper.Hopper(hopping=False), _hop_backward)
    return environment(hopper.Physics, suite_model("hopper.xml"), task, _CONTROL_TIMESTEP)


TASKS = {"hopper-hop-backward": _build}
"""By task name."""
