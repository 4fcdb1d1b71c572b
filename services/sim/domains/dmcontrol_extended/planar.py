"""The frame of our own planar bodies: what the suite's cheetah also has around its body.

A torso which slides and turns in a vertical plane above a narrow strip of floor, followed by the cameras and a light.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from dm_control.suite import cheetah

from services.sim.domains.dmcontrol_extended.building import OtherReward, Reward, environment

_FRAME = """
<mujoco model="{name}">
  <include file="./common/skybox.xml"/>
  <include file="./common/visual.xml"/>
  <include file="./common/materials.xml"/>
  <compiler settotalmass="{mass}"/>
  <option timestep="0.01"/>
  <statistic center="0 0 .7" extent="2"/>
  <default>
    <motor ctrllimited="true" ctrlrange="-1 1"/>
    <default class="body">
      <joint type="hinge" axis="0 1 0" limited="true" armature=".1"/>
      <geom type="capsule" condim="3" friction="{friction} .1 .1" material="self"/>
    </default>
    <default class="root">
      <joint limited="false" armature="0"/>
    </default>
  </default>
  <worldbody>
    <!-- Friction between two geoms is the larger of theirs: with the ground it is 1, whatever the body's. -->
    <geom name="ground" type="plane" pos="98 0 0" size="200 .8 .5" material="grid"/>
    <body name="torso" pos="0 0 {height}" childclass="body">
      <light name="light" pos="0 0 2" mode="trackcom"/>
      <camera name="side" pos="0 -3 0" quat=".707 .707 0 0" mode="trackcom"/>
      <camera name="back" pos="-1.8 -1.3 .8" xyaxes=".45 -.9 0 .3 .15 .94" mode="trackcom"/>
      <joint name="rootx" class="root" type="slide" axis="1 0 0"/>
      <joint name="rootz" class="root" type="slide" axis="0 0 1"/>
      <joint name="rooty" class="root" type="hinge" axis="0 1 0"/>
      {body}
    </body>
  </worldbody>
  <actuator>
    {motors}
  </actuator>
  <sensor>
    <subtreelinvel name="torso_subtreelinvel" body="torso"/>
    <subtreeangmom name="torso_subtreeangmom" body="torso"/>
  </sensor>
</mujoco>
"""


def planar_environment(
    name: str,
    *,
    mass: float,
    friction: float,
    height: float,
    body: str,
    gears: Mapping[str, float],
    reward: Reward,
) -> Any:
    """An environment around a planar body, which starts as the suite's cheetah does: dropped and come to rest.

    Args:
        name: Name of the model.
        mass: Mass of the whole body, kg; densities are scaled to it.
        friction: Sliding friction between parts of the body.
        height: Height of the torso's frame where the root joints are at 0, metres.
        body: MJCF of what is in the torso: geoms and limbs.
        gears: Torque of the motor on each joint at full action, N m, in the order of the actions.
        reward: What the task pays; the physics has `speed()`.
    """
    motors = "".join(f'<motor name="{joint}" joint="{joint}" gear="{gear}"/>' for joint, gear in gears.items())
    xml = _FRAME.format(name=name, mass=mass, friction=friction, height=height, body=body, motors=motors)
    return environment(cheetah.Physics, ElementTree.fromstring(xml), OtherReward(cheetah.Cheetah(), reward))
