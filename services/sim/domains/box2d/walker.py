"""The bipedal walker: body, senses and reward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

import Box2D
import numpy as np
import numpy.typing as npt

from services.sim.domains.box2d.episode import GROUND, STEPS_PER_SECOND, Box2DEnv, Touch, advance
from services.sim.domains.box2d.terrain import GENERATORS, LEVEL, PIXELS_PER_METRE, SPACING, START_COLUMN, Terrain

_WALKER = 0x0020  # Collision category of hull and legs; they pass through each other.
_LEG_WIDTH, _LEG_LENGTH = 8 / 30, 34 / 30
_HIP = (0.0, -8 / 30)  # In the hull.
_GROUND_FRICTION = 2.5
_LARGEST_TORQUE = 80.0
_JOINT_SPEEDS = (4.0, 6.0, 4.0, 6.0)  # rad/s of hip and knee of leg A, then of leg B.
_LARGEST_PUSH = 5.0  # Newton, along the ground, for the first physics step.

_RANGE = 160 / 30  # Of the lidar, metres.
_RAYS = [_RANGE * Box2D.b2Vec2(math.sin(0.15 * ray), -math.cos(0.15 * ray)) for ray in range(10)]

# Metres per second to observed units: 0.3 of the picture's width per physics step.
_SPEED_SCALE = 0.3 * 224 / PIXELS_PER_METRE / STEPS_PER_SECOND
_BEST_RETURN = 250.0


def _part(shape: Any, density: float = 1.0, friction: float = 0.2) -> Any:
    return Box2D.b2FixtureDef(shape=shape, density=density, friction=friction, categoryBits=_WALKER, maskBits=GROUND)


# Made once: the library never frees the shape that a fixture definition is given.
_HULL = _part(
    Box2D.b2PolygonShape(vertices=[(x / 30, y / 30) for x, y in ((-30, 9), (6, 9), (34, 1), (34, -8), (-30, -8))]),
    density=5.0,
    friction=0.1,
)
_UPPER_LEG = _part(Box2D.b2PolygonShape(box=(_LEG_WIDTH / 2, _LEG_LENGTH / 2)))
_LOWER_LEG = _part(Box2D.b2PolygonShape(box=(0.8 * _LEG_WIDTH / 2, _LEG_LENGTH / 2)))


class WalkerEnv(Box2DEnv):
    """A hull on two legs with hips and knees has to get to the right, as fast as it can, within ten seconds.

    Observation, float32[24]: hull angle, its rate, velocity x and y; for each leg hip angle and speed, knee angle and
    speed, contact of the lower leg; ten lidar distances. Action, float32[4]: hip and knee of leg A, of leg B; the
    sign is the direction, the size the torque.
    """

    def __init__(self, task: str) -> None:
        super().__init__(task, _BEST_RETURN)
        self._generate = GENERATORS[task.removeprefix("bipedal-walker-")]
        self._box, self._edge = (
            Box2D.b2FixtureDef(shape=shape, friction=_GROUND_FRICTION, categoryBits=GROUND)
            for shape in (Box2D.b2PolygonShape(box=(1, 1)), Box2D.b2EdgeShape(vertices=[(0, 0), (1, 0)]))
        )
        self._picture: Any = None

    def _begin(self, rng: np.random.Generator) -> None:
        self._build(self._generate(rng), rng.uniform(-_LARGEST_PUSH, _LARGEST_PUSH))
        self._picture = None
        self._advance(self._still)

    def _build(self, terrain: Terrain, push: float) -> None:
        # A new world each time: the order of its parts decides about the last digits of what happens in it.
        self._terrain = terrain
        self._world = Box2D.b2World(gravity=(0, -10))
        self._obstacles = [self._add_ground(self._box, box) for box in terrain.boxes]
        points = terrain.points()
        for segment in itertools.pairwise(points):
            self._add_ground(self._edge, segment)
        x, y = START_COLUMN * SPACING, LEVEL + 2 * _LEG_LENGTH
        self._hull = self._world.CreateDynamicBody(position=(x, y), fixtures=_HULL)
        self._hull.ApplyForceToCenter((push, 0.0), True)
        self._legs: list[Any] = []
        self._joints: list[Any] = []
        for tilt in (-0.05, 0.05):
            # As far above the hip as it should be below: the first physics step pulls the parts together.
            self._add_leg(x, y - _HIP[1], tilt)
        self._touch = Touch(self._hull, self._legs[1::2])
        self._world.contactListener = self._touch
        self._potential = 0.0

    def _add_ground(self, fixture: Any, corners: Iterable[tuple[float, float]]) -> Any:
        fixture.shape.vertices = list(corners)
        return self._world.CreateStaticBody(fixtures=fixture)

    def _add_leg(self, x: float, top: float, tilt: float) -> None:
        half = _LEG_LENGTH / 2
        upper = self._world.CreateDynamicBody(position=(x, top - half), angle=tilt, fixtures=_UPPER_LEG)
        self._add_joint(self._hull, _HIP, upper, lower_angle=-0.8, upper_angle=1.1)
        lower = self._world.CreateDynamicBody(position=(x, top - 3 * half), angle=tilt, fixtures=_LOWER_LEG)
        self._add_joint(upper, (0.0, -half), lower, lower_angle=-1.6, upper_angle=-0.1)
        self._legs += [upper, lower]

    def _add_joint(
        self, parent: Any, anchor: tuple[float, float], child: Any, lower_angle: float, upper_angle: float
    ) -> None:
        joint = Box2D.b2RevoluteJointDef(
            bodyA=parent,
            bodyB=child,
            localAnchorA=anchor,
            localAnchorB=(0.0, _LEG_LENGTH / 2),
            enableMotor=True,
            enableLimit=True,
            lowerAngle=lower_angle,
            upperAngle=upper_angle,
        )
        self._joints.append(self._world.CreateJoint(joint))

    def _advance(self, action: npt.NDArray[np.float32]) -> float:
        effort = 0.0
        for joint, speed, value in zip(self._joints, _JOINT_SPEEDS, action.tolist(), strict=True):
            joint.motorSpeed = math.copysign(speed, value) if value else 0.0
            joint.maxMotorTorque = _LARGEST_TORQUE * abs(value)
            effort += abs(value)
        advance(self._world)
        x, before = self._hull.position.x, self._potential
        self._potential = 130 * x / PIXELS_PER_METRE - 5 * abs(self._hull.angle)
        if self._touch.body or x < 0:
            return -1.0
        return min(max(self._potential - before - 0.00035 * _LARGEST_TORQUE * effort, -1.0), 10.0)

    def _observe(self) -> npt.NDArray[np.float32]:
        hull, velocity = self._hull, self._hull.linearVelocity
        state = [hull.angle, 2 * hull.angularVelocity / STEPS_PER_SECOND]
        state += [_SPEED_SCALE * velocity.x, _SPEED_SCALE * velocity.y]
        for leg in (0, 1):
            hip, knee = self._joints[2 * leg : 2 * leg + 2]
            hip_speed, knee_speed = _JOINT_SPEEDS[:2]
            state += [hip.angle, hip.speed / hip_speed, knee.angle + 1.0, knee.speed / knee_speed]
            state.append(self._touch.feet[leg])
        state += [self._measure(ray) for ray in _RAYS]
        return np.array(state, np.float32)

    def _measure(self, ray: Any) -> float:
        """The share of a ray that is free."""
        start = self._hull.position
        probe = _Probe()
        self._world.RayCast(probe, start, start + ray)
        return probe.fraction

    def render(self) -> npt.NDArray[np.uint8]:
        """The walker at the left fifth of a picture 15 m wide, one lidar ray at a time; colours are the episode's."""
        from services.sim.domains.box2d.walker_frames import WalkerPicture

        if self._picture is None:
            self._picture = WalkerPicture(self._terrain, self._seed)
        return self._picture.draw(self._hull, self._legs, self._obstacles, self._visible_ray())  # type: ignore[no-any-return]

    def _visible_ray(self) -> tuple[Any, Any] | None:
        """Start and end of the lidar ray that is drawn: rays 0 to 9 and back in twenty steps out of a hundred."""
        turn = (self._steps + 1) % 100
        if turn >= 20:
            return None
        ray = _RAYS[turn if turn < 10 else 19 - turn]
        start = self._hull.position.copy()
        return start, start + self._measure(ray) * ray


class _Probe(Box2D.b2RayCastCallback):  # type: ignore[misc] # the library has no types
    """Finds the nearest piece of ground on a ray."""

    def __init__(self) -> None:
        super().__init__()
        self.fraction = 1.0

    def ReportFixture(self, fixture: Any, point: Any, normal: Any, fraction: float) -> float:  # noqa: N802
        """Called for what the ray meets, in any order; answers how much of the ray is still of interest."""
        if not fixture.filterData.categoryBits & GROUND:
            return -1.0
        self.fraction = fraction
        return fraction
