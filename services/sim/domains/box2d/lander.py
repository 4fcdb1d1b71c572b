"""The lunar lander: craft, engines, and the three tasks."""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import Box2D
import numpy as np
import numpy.typing as npt

from services.sim.domains.base import StepResult
from services.sim.domains.box2d import lander_expert
from services.sim.domains.box2d.episode import GROUND, STEPS_PER_SECOND, Box2DEnv, Touch, advance

WIDTH = 400 / 30
"""Width and height of the picture, metres; there is no ground to its left and right."""

PAD_HEIGHT = WIDTH / 4
_HALF = WIDTH / 2
_LEGS_LENGTH = 18 / 30  # How far the craft's centre is above the ground when it stands, about.
_STANDING = PAD_HEIGHT + _LEGS_LENGTH

# Made once: the library never frees the shape that a fixture definition is given.
_HULL = Box2D.b2FixtureDef(
    shape=Box2D.b2PolygonShape(
        vertices=[(x / 30, y / 30) for x, y in ((-14, 17), (-17, 0), (-17, -10), (17, -10), (17, 0), (14, 17))]
    ),
    density=5.0,
    friction=0.1,
    categoryBits=0x0010,
    maskBits=GROUND,
)
_LEG = Box2D.b2FixtureDef(
    shape=Box2D.b2PolygonShape(box=(2 / 30, 8 / 30)), density=1.0, categoryBits=0x0020, maskBits=GROUND
)
_LEG_OFFSET = 20 / 30
_LEG_TORQUE = 40.0

_MAIN_POWER, _SIDE_POWER = 13.0, 0.6
_MAIN_BELOW = 4 / 30  # Where the main engine is, below the centre.
_SIDE_AWAY = 12 / 30  # How far the side engines are from the middle line,
_SIDE_ABOVE = (17 / 30, 14 / 30)  # and how far above the centre: along x it counts differently from along y.
_LARGEST_PUSH = 600.0  # Newton, for the first physics step.
_TAKEOFF_PUSH = -1200.0  # Downwards, onto the pad.
_TAKEOFF_SETTLING = 5  # Physics steps.

_LAND_SCALE = 20.0
_BEST_RETURN = 500.0
# Nobody can land in no time, so 500 (and 250, the most that the rewards add up to) is out of reach. Falling takes
# 1.2 s and braking, settling and falling asleep another; 200 is paid for eight seconds of rest.
_BEST_LANDING = 200.0

_PUFF_LIFE_STEPS = 7  # Agent steps after which a full-power exhaust particle has faded; see lander_frames.


@dataclass(frozen=True)
class Start:
    """What the seed decides.

    Attributes:
        heights: Heights of the raw ground, one more than there are ground points, metres; the pad is put into it.
        position: Position of the craft, metres.
        push: Force on it for the first physics step, Newton.
        goal: Place to hover, metres; None if it is to land.
    """

    heights: npt.NDArray[np.float64]
    position: tuple[float, float]
    push: tuple[float, float]
    goal: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Puff:
    """One firing of an engine, to be drawn.

    Attributes:
        step: Physics steps taken before it.
        agent_step: Agent steps taken before it.
        position: Position of the nozzle, metres.
        impulse: Impulse of the gas, Newton seconds.
        life: Power of the firing, 0.5 to 1.
        main: Whether it was the main engine.
    """

    step: int
    agent_step: int
    position: tuple[float, float]
    impulse: tuple[float, float]
    life: float
    main: bool


class LanderEnv(Box2DEnv):
    """A rocket between hills has to land, to hover at a place in the air, or to take off and hover.

    Observation, float32[8]: position from the pad, velocity, angle, its rate, contact of either leg; to hover also
    float32[2], the way to the goal. Action, float32[2]: main engine (on above 0, from half to full power), side
    engines (on beyond 0.5; the sign is the direction).
    """

    def __init__(self, task: str) -> None:
        super().__init__(task, _BEST_RETURN)
        self._kind = task.removeprefix("lunarlander-")
        self._picture: Any = None

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """As for every craft; landings also have a score on a scale that reaches 1, without what a wreck is paid.

        The published score of `lunarlander-land` is return / 500, but no return exceeds 250, and a wreck that has come
        to rest is paid like a craft that has landed: doing nothing scores more than trying.
        """
        result = super().step(action)
        if self._kind == "land":
            self.corrected_score = min(max((self._return - self._wreck_pay) / _BEST_LANDING, 0.0), 1.0)
        return result

    def expert_action(self) -> npt.NDArray[np.float32]:
        """The pilot's, who sees the craft but not the ground."""
        hull, velocity = self._hull, self._hull.linearVelocity
        goal_x, goal_y = self.goal or (_HALF, _STANDING)
        way = (goal_x - hull.position.x, goal_y - hull.position.y)
        flight = lander_expert.Flight(way, (velocity.x, velocity.y), hull.angle, hull.angularVelocity)
        if self._kind == "land":
            return lander_expert.land(flight, standing=any(self._touch.feet))
        return lander_expert.hover(flight)

    def _begin(self, rng: np.random.Generator) -> None:
        self._picture = None
        self._rng = rng
        self._build(self._draw_start(rng))
        for _ in range(1 + (_TAKEOFF_SETTLING if self._kind == "takeoff" else 0)):
            self._advance(self._still)

    def _draw_start(self, rng: np.random.Generator) -> Start:
        points = int(rng.choice([7, 9]))
        heights = rng.uniform(0, _HALF, points + 1)
        push_x, push_y = rng.uniform(-_LARGEST_PUSH, _LARGEST_PUSH, 2).tolist()
        if self._kind == "takeoff":
            quarter_pad = WIDTH / (points - 1) / 2
            position = (rng.uniform(_HALF - quarter_pad, _HALF + quarter_pad), _STANDING)
            goal = (rng.uniform(0.2, 0.8) * WIDTH, rng.uniform(0.6, 0.8) * WIDTH)
            return Start(heights, position, (0.5 * push_x, _TAKEOFF_PUSH), goal)
        position = (_HALF * rng.uniform(0.95, 1.05), 0.8 * WIDTH * rng.uniform(0.95, 1.05))
        if self._kind == "land":
            return Start(heights, position, (push_x, push_y), None)
        goal = (_HALF + rng.uniform(-1, 1), 2 * PAD_HEIGHT + rng.uniform(-1, 1))
        return Start(heights, position, (push_x, push_y), goal)

    def _build(self, start: Start) -> None:
        self.goal = start.goal
        self.surface = _smooth_ground(start.heights)
        self._world = Box2D.b2World(gravity=(0, -10))
        add_ground(self._world, self.surface)
        self._hull = self._world.CreateDynamicBody(position=start.position, fixtures=_HULL)
        self._hull.ApplyForceToCenter(start.push, True)
        self._legs = [self._add_leg(start.position, side) for side in (-1, 1)]
        self._touch = Touch(self._hull, self._legs)
        self._world.contactListener = self._touch
        self._potential = 0.0
        self._physics_steps = 0
        self._wreck_pay = 0.0
        self._puffs: deque[Puff] = deque()

    def _add_leg(self, position: tuple[float, float], side: int) -> Any:
        x, y = position
        leg = self._world.CreateDynamicBody(position=(x - side * _LEG_OFFSET, y), angle=side * 0.05, fixtures=_LEG)
        self._world.CreateJoint(
            Box2D.b2RevoluteJointDef(
                bodyA=self._hull,
                bodyB=leg,
                localAnchorA=(0, 0),
                localAnchorB=(side * _LEG_OFFSET, _LEGS_LENGTH),
                enableMotor=True,
                enableLimit=True,
                maxMotorTorque=_LEG_TORQUE,
                motorSpeed=0.3 * side,
                lowerAngle=0.4 if side < 0 else -0.9,
                upperAngle=0.9 if side < 0 else -0.4,
            )
        )
        return leg

    def _advance(self, action: npt.NDArray[np.float32]) -> float:
        main, side = self._fire(*action.tolist())
        advance(self._world)
        self._physics_steps += 1
        if self.goal is None:
            return self._landing_reward(main, side)
        x, y = self._hull.position
        if y < _STANDING:
            return 0.0
        distance = math.hypot(self.goal[0] - x, self.goal[1] - y)
        return min(max(1 - distance / 6 - 0.03 * main - 0.003 * side, 0.0), 1.0)

    def _fire(self, throttle: float, turn: float) -> tuple[float, float]:
        """Lets the engines push; returns the power of main and side engine."""
        sine, cosine = math.sin(self._hull.angle), math.cos(self._hull.angle)
        # Drawn whether or not an engine fires.
        along, across = (self._rng.uniform(-1, 1) / 30 for _ in range(2))
        main = side = 0.0
        if throttle > 0:
            main = (throttle + 1) / 2
            down = _MAIN_BELOW + 2 * along
            thrust = (sine * down - cosine * across, -cosine * down - sine * across)
            self._push(thrust, (0.0, 0.0), _MAIN_POWER, main)
        if abs(turn) > 0.5:
            side = abs(turn)
            out = 3 * across + math.copysign(_SIDE_AWAY, turn)
            thrust = (sine * along - cosine * out, -cosine * along - sine * out)
            self._push(thrust, (-sine * _SIDE_ABOVE[0], cosine * _SIDE_ABOVE[1]), _SIDE_POWER, side)
        return main, side

    def _push(self, thrust: tuple[float, float], mount: tuple[float, float], engine_power: float, power: float) -> None:
        """Gas leaves along `thrust` at `mount + thrust` from the centre; the hull goes the other way."""
        x, y = self._hull.position
        nozzle = (x + thrust[0] + mount[0], y + thrust[1] + mount[1])
        gas = (thrust[0] * engine_power * power, thrust[1] * engine_power * power)
        self._hull.ApplyLinearImpulse((-gas[0], -gas[1]), nozzle, True)
        while self._puffs and self._steps - self._puffs[0].agent_step > _PUFF_LIFE_STEPS:
            self._puffs.popleft()
        self._puffs.append(Puff(self._physics_steps, self._steps, nozzle, gas, power, engine_power == _MAIN_POWER))

    def _landing_reward(self, main: float, side: float) -> float:
        state, before = self._state(), self._potential
        self._potential = (
            -100 * math.hypot(state[0], state[1])
            - 100 * math.hypot(state[2], state[3])
            - 100 * abs(state[4])
            + 10 * (state[6] + state[7])
        )
        reward = self._potential - before - 0.3 * main - 0.03 * side
        wrecked = self._touch.body or abs(state[0]) >= 1
        if wrecked:
            reward = -100.0
        if not self._hull.awake:
            reward = 100.0  # Also for a wreck.
        reward = min(max(reward, -5.0), 10.0) / _LAND_SCALE
        if wrecked and reward > 0:
            self._wreck_pay += reward
        return reward

    def _state(self) -> list[float]:
        hull, velocity = self._hull, self._hull.linearVelocity
        x, y = hull.position
        speed_scale = _HALF / STEPS_PER_SECOND
        state = [(x - _HALF) / _HALF, (y - _STANDING) / _HALF, velocity.x * speed_scale, velocity.y * speed_scale]
        return [*state, hull.angle, 20 * hull.angularVelocity / STEPS_PER_SECOND, *self._touch.feet]

    def _observe(self) -> npt.NDArray[np.float32]:
        state = self._state()
        if self.goal is not None:
            x, y = self._hull.position
            state += [(self.goal[0] - x) / _HALF, (self.goal[1] - y) / _HALF]
        return np.array(state, np.float32)

    def render(self) -> npt.NDArray[np.uint8]:
        """The craft, the ground and the goal, with glowing exhaust; colours are the episode's."""
        from services.sim.domains.box2d.lander_frames import LanderPicture

        if self._picture is None:
            self._picture = LanderPicture(self.surface, self.goal, self._seed)
        puffs = list(self._puffs)
        return self._picture.draw(self._hull, self._legs, puffs, self._physics_steps, self._steps)  # type: ignore[no-any-return]


def _smooth_ground(raw: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """The ground's corners: a pad of four pieces in the middle, then the mean of three neighbours, nearly."""
    count = len(raw) - 1
    heights = raw.copy()
    heights[count // 2 - 2 : count // 2 + 3] = PAD_HEIGHT
    # The left neighbour of the first is the last raw height, which is no ground point itself.
    smooth = [0.33 * float(heights[i - 1] + heights[i] + heights[i + 1]) for i in range(count)]
    return [(WIDTH / (count - 1) * i, smooth[i]) for i in range(count)]


def add_ground(world: Any, surface: list[tuple[float, float]]) -> None:
    """Adds the ground, and a floor below it, to a world."""
    ground = world.CreateStaticBody(shapes=Box2D.b2EdgeShape(vertices=[(0, 0), (WIDTH, 0)]))
    piece = Box2D.b2FixtureDef(shape=Box2D.b2EdgeShape(vertices=[(0, 0), (1, 0)]), density=0, friction=0.1)
    for segment in itertools.pairwise(surface):
        piece.shape.vertices = list(segment)
        ground.CreateFixture(piece)
