"""Spinner and jumper: a ball on arms which all start at its centre.

The arms overlap in the ball, and that contact, which never ends, is part of how these bodies move.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from services.sim.domains.dmcontrol_extended.building import Reward, height
from services.sim.domains.dmcontrol_extended.planar import planar_environment
from services.sim.domains.dmcontrol_extended.rewards import linear_above, smooth_above

_FIVE_ARMS = (0, 72, 144, 216, 288)  # Degrees from straight up, towards +x.
_FOUR_ARMS = _FIVE_ARMS[:4]  # The gap of the fifth stays.
_TWO_LEGS = _FIVE_ARMS[2:4]
_JUMP_HEIGHT = 1.5
_SPIN_SPEED = 8.0
_ANGULAR_MOMENTUM = 8.0  # kg m²/s

_BALL = """
<geom name="torso" type="sphere" size=".22"/>
<geom name="left_eye" type="sphere" pos="-.06 -.16 .12" size=".037" material="eye"/>
<geom name="right_eye" type="sphere" pos=".06 -.16 .12" size=".037" material="eye"/>
"""
_ARM = """
<body name="{name}" euler="0 {angle} 0">
  <joint name="{name}" range="-35 35" stiffness="220" damping="5"/>
  <geom name="{name}" fromto="0 0 0 0 0 .566" size=".052"/>
  <geom name="{name}_tip" type="sphere" pos="0 0 .566" size=".078"/>
</body>
"""


def _spin(physics: Any, sign: int) -> float:
    """Rolling: turning about the own centre of mass and travelling, both the same way."""
    angular_momentum = float(physics.named.data.sensordata["torso_subtreeangmom"][1])
    spinning = linear_above(sign * angular_momentum, _ANGULAR_MOMENTUM, _ANGULAR_MOMENTUM)
    travelling = linear_above(sign * float(physics.speed()), _SPIN_SPEED, _SPIN_SPEED)
    return (2 * spinning + 3 * travelling) / 5


def _jump(physics: Any) -> float:
    return smooth_above(height(physics, "torso"), _JUMP_HEIGHT, _JUMP_HEIGHT / 2)


def _build(angles: tuple[int, ...], reward: Reward) -> Any:
    arms = {f"arm_{angle}": angle for angle in angles}
    return planar_environment(
        "spinner",
        mass=2,
        friction=0.15,
        height=0.9,
        body=_BALL + "".join(_ARM.format(name=name, angle=angle) for name, angle in arms.items()),
        gears=dict.fromkeys(arms, 100),
        reward=reward,
    )


_forward, _backward = partial(_spin, sign=1), partial(_spin, sign=-1)

TASKS = {
    "jumper-jump": partial(_build, _TWO_LEGS, _jump),
    "spinner-spin": partial(_build, _FIVE_ARMS, _forward),
    "spinner-spin-backward": partial(_build, _FIVE_ARMS, _backward),
    "spinner-jump": partial(_build, _FIVE_ARMS, _jump),
    "spinner-spin-four": partial(_build, _FOUR_ARMS, _forward),
    "spinner-spin-backward-four": partial(_build, _FOUR_ARMS, _backward),
    "spinner-jump-four": partial(_build, _FOUR_ARMS, _jump),
}
"""By task name."""
