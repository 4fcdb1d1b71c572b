"""Giraffe: running with the head up, for a heavy trunk on a cheetah's legs with a long neck."""

from __future__ import annotations

from typing import Any

from services.sim.domains.dmcontrol_extended.building import height
from services.sim.domains.dmcontrol_extended.planar import planar_environment
from services.sim.domains.dmcontrol_extended.rewards import linear_above, smooth_above

_HEAD_HEIGHT = 0.5
_SPEED = 10.0

# The neck comes first among the joints and the observations, but last among the actions.
_GEARS = {"bthigh": 120, "bshin": 90, "bfoot": 60, "fthigh": 90, "fshin": 60, "ffoot": 30, "neck": 30}
_BODY = """
<geom name="torso" fromto="-.34 0 0 .34 0 0" size=".092"/>
<body name="neck" pos=".44 0 0">
  <joint name="neck" range="-5 20" stiffness="240" damping="6"/>
  <geom name="neck" pos="0 0 .39" euler="0 6 0" size=".052 .39"/>
  <body name="head" pos=".15 0 .66">
    <geom name="head" euler="0 -236 0" size=".046 .088"/>
  </body>
</body>
<body name="bthigh" pos="-.34 0 0">
  <joint name="bthigh" range="-30 60" stiffness="240" damping="6"/>
  <geom name="bthigh" pos=".1 0 -.13" euler="0 -200 0" size=".046 .145"/>
  <body name="bshin" pos=".16 0 -.25">
    <joint name="bshin" range="-50 50" stiffness="180" damping="4.5"/>
    <geom name="bshin" pos="-.14 0 -.07" euler="0 -116 0" size=".046 .15"/>
    <body name="bfoot" pos="-.28 0 -.14">
      <joint name="bfoot" range="-230 50" stiffness="120" damping="3"/>
      <geom name="bfoot" pos=".03 0 -.072" euler="0 -15 0" size=".046 .069"/>
    </body>
  </body>
</body>
<body name="fthigh" pos=".34 0 0">
  <joint name="fthigh" range="-57 .4" stiffness="180" damping="4.5"/>
  <geom name="fthigh" pos="-.07 0 -.12" euler="0 30 0" size=".046 .133"/>
  <body name="fshin" pos="-.14 0 -.24">
    <joint name="fshin" range="-70 50" stiffness="120" damping="3"/>
    <geom name="fshin" pos=".065 0 -.09" euler="0 -34 0" size=".046 .106"/>
    <body name="ffoot" pos=".13 0 -.18">
      <joint name="ffoot" range="-28 28" stiffness="60" damping="1.5"/>
      <geom name="ffoot" pos=".045 0 -.056" euler="0 -34 0" size=".046 .056"/>
    </body>
  </body>
</body>
"""


def _run(physics: Any) -> float:
    running = linear_above(float(physics.speed()), _SPEED, _SPEED)
    return smooth_above(height(physics, "head"), _HEAD_HEIGHT, _HEAD_HEIGHT / 2) * (3 * running + 1) / 4


def _build() -> Any:
    return planar_environment("giraffe", mass=16, friction=0.45, height=0.7, body=_BODY, gears=_GEARS, reward=_run)


TASKS = {"giraffe-run": _build}
"""By task name."""
