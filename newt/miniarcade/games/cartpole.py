"""Cartpole in a mine: balance, swing up, or withstand tremors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import SIDEWAYS, Game, clip

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

GRAVITY, TIME_STEP = 9.81, 0.025
CART_MASS, POLE_MASS, HALF_LENGTH = 0.9, 0.11, 0.6
MASS, POLE_MOMENT = CART_MASS + POLE_MASS, POLE_MASS * HALF_LENGTH
FORCE = 11.0
TRACK = 2.4  # Metres to either side within which rewards are paid; there is no wall.
UPRIGHT = 0.15  # Radians, for the sparse reward.
START_SPREAD = 0.065

FIRST_PAUSE, PAUSE, SHAKE_STEPS = (40, 80), (50, 90), (5, 10)
SHAKE_STRENGTH, SHAKE_SHARE = 5.0, (0.35, 1.0)  # Radians per second squared.

# Linear-quadratic regulator of the upright pole for costs (1, 0.1, 20, 1) of the state and 5 of the action.
BALANCE_GAINS = (0.377, 0.569, 4.857, 1.339)

SCALE, CART_Y, POLE_PIXELS = 32.5, 154, 39
LANTERNS = ((50, 59), (154, 59))
STONE, FLOOR = (85, 65, 45), (100, 75, 45)
DUST_LIFE = (18, 39)
_SCENERY, _FLICKER, _SHIFT, _DUST = 1, 2, 3, 4


class Cartpole(Game):
    """A pole hinged to a cart. The reward looks at the angle as it is: upright after a whole turn pays nothing.

    Observation: position, its speed, angle (0 upright, positive to the right, never wrapped), its speed; raw.

    Args:
        hanging: The pole starts hanging down.
        sparse: The reward is 1 or 0 instead of falling off with the angle.
        tremor: Tremors push the pole now and then.
    """

    OBS_DIM: ClassVar[int] = 4
    ACTION_DIM: ClassVar[int] = 1
    FPS: ClassVar[int] = 50
    KEYS = SIDEWAYS

    def __init__(self, *, hanging: bool = False, sparse: bool = False, tremor: bool = False) -> None:
        super().__init__()
        self.hanging, self.sparse, self.tremor = hanging, sparse, tremor

    x: float
    x_speed: float
    angle: float
    angle_speed: float

    def start(self) -> None:
        """Almost at rest, almost upright or hanging."""
        self.x, self.x_speed, self.angle, self.angle_speed = self.rng.uniform(-START_SPREAD, START_SPREAD, 4).tolist()
        if self.hanging:
            self.angle += math.pi
        self.shake_left, self.shake = 0, 0.0
        self.pause = self._draw_integer(FIRST_PAUSE) if self.tremor else 0
        self.shaken: list[int] = []  # Steps of which dust may still be falling.

    def advance(self, action: list[float]) -> float:
        """One explicit Euler step with the old speeds."""
        sin, cos = math.sin(self.angle), math.cos(self.angle)
        push = (FORCE * action[0] + POLE_MOMENT * self.angle_speed**2 * sin) / MASS
        turn = (GRAVITY * sin - push * cos) / (HALF_LENGTH * (4 / 3 - POLE_MASS * cos * cos / MASS))
        if self.tremor:
            turn += self._tremor()
        pull = push - POLE_MOMENT * turn * cos / MASS
        self.x += TIME_STEP * self.x_speed
        self.x_speed += TIME_STEP * pull
        self.angle += TIME_STEP * self.angle_speed
        self.angle_speed += TIME_STEP * turn
        if abs(self.x) > TRACK:
            return 0.0
        if self.sparse:
            return float(abs(self.angle) < UPRIGHT)
        return 1 - min(abs(self.angle), math.pi / 2) / (math.pi / 2)

    def observe(self) -> list[float]:
        """See the class."""
        return [self.x, self.x_speed, self.angle, self.angle_speed]

    def score(self) -> float:
        """Share of the steps, weighted by uprightness."""
        return self.total / self.LENGTH

    def expert(self) -> list[float]:
        """Balances near the top; elsewhere brings the swings' energy to just what the upright needs."""
        state = self.observe()
        if abs(self.angle) < 0.4:
            return [sum(gain * value for gain, value in zip(BALANCE_GAINS, state, strict=True))]
        center = -0.3 * self.x - 0.2 * self.x_speed
        lacking = GRAVITY * (1 - math.cos(self.angle)) - (2 / 3) * HALF_LENGTH * self.angle_speed**2
        # Energy is added on the way toward the upright that pays only: the pole must not get to the other one first.
        if self.angle * self.angle_speed < 0 or lacking < 0:
            push = clip(0.3 * (lacking + 0.1), -0.7, 0.7)
            center -= push * math.copysign(1, self.angle_speed * math.cos(self.angle))
        return [center]

    def draw(self, canvas: Canvas) -> None:
        """A mine with lanterns; in a tremor dust falls and the picture shakes."""
        canvas.gradient(0, 0, 224, 224, (120, 90, 50), (90, 60, 35))
        self._draw_lanterns(canvas)
        scenery = self.decoration(_SCENERY)
        ceiling = [(i * 224 // 11, 45 + int(scenery.integers(12))) for i in range(12)]
        canvas.polygon([(0, 0), (0, 45), *ceiling, (224, 45), (224, 0)], STONE)
        canvas.rect(0, 192, 224, 32, FLOOR)
        for _ in range(int(scenery.integers(5, 8))):
            x, y = int(scenery.integers(10, 214)), 224 - int(scenery.integers(26, 34))
            radius, shade = int(scenery.integers(4, 8)), int(scenery.integers(70, 110))
            wide, high = radius * scenery.uniform(1.2, 1.6), radius * scenery.uniform(0.8, 1.2)
            if scenery.random() < 0.5:
                wide = high = radius
            canvas.ellipse(x - wide, y - high, 2 * wide, 2 * high, (shade, max(0, shade - 25), max(0, shade - 35)))
        canvas.line((0, 161), (224, 161), (125, 120, 120), 6)
        x = round(112 + SCALE * clip(self.x, -100, 100))
        canvas.rect(x - 14, CART_Y - 7, 28, 14, (180, 110, 60))
        canvas.rect(x - 14, CART_Y - 7, 28, 14, (190, 185, 185), outline=2)
        for offset in (-10, 9):
            canvas.disc(x + offset, 161, 5, (200, 195, 195))
        tip = (x + POLE_PIXELS * math.sin(self.angle), 147 - POLE_PIXELS * math.cos(self.angle))
        canvas.line((x, 147), tip, (200, 140, 80), 4)
        if self.tremor:
            self._draw_tremor(canvas)

    def _draw_integer(self, limits: tuple[int, int]) -> int:
        return int(self.rng.integers(limits[0], limits[1] + 1))

    def _tremor(self) -> float:
        """The angular acceleration of this step's tremor; begins the next one on the step after its pause."""
        if self.shake_left > 0:
            self.shake_left -= 1
            self.shaken = [step for step in self.shaken if step > self.steps - DUST_LIFE[1]]
            self.shaken.append(self.steps)
            return self.shake
        self.pause -= 1
        if self.pause <= 0:
            self.shake_left = self._draw_integer(SHAKE_STEPS)
            self.shake = self.coin() * SHAKE_STRENGTH * self.rng.uniform(*SHAKE_SHARE)
            self.pause = self._draw_integer(PAUSE)
        return 0.0

    def _draw_lanterns(self, canvas: Canvas) -> None:
        for number, (x, y) in enumerate(LANTERNS, start=1):
            phase = self.decoration(_SCENERY, number).uniform(0, 2 * math.pi)
            noise = self.decoration(_FLICKER, number, self.steps + 1).normal(0, 0.08)
            light = clip(0.9 + 0.35 * math.sin(2 * math.pi * self.steps / 60 + phase) + noise, 0.4, 1.3)
            canvas.glow(x + 6, y + 8, 55, (255, 210, 120, int(90 * light)), 2)
            canvas.rect(x + 4, 45, 4, 14, (160, 160, 160))
            canvas.rect(x, y, 12, 16, (230, 190, 90))
            canvas.rect(x, y, 12, 16, (120, 100, 60), outline=2)

    def _draw_tremor(self, canvas: Canvas) -> None:
        for born in self.shaken:
            grain = self.decoration(_DUST, born + 1)
            age = self.steps - born
            if grain.random() < 0.3:
                x, speed = int(grain.integers(20, 204)), grain.uniform(1.5, 4)
                life, radius = int(grain.integers(DUST_LIFE[0], DUST_LIFE[1] + 1)), int(grain.integers(2, 4))
                if age < life and 50 + speed * age < 214:
                    canvas.disc(x, 50 + speed * age, radius, (150, 120, 90))
        if self.shake_left > 0:
            most = min(5, int(5 * abs(self.shake) / FORCE))
            dx, dy = self.decoration(_SHIFT, self.steps + 1).integers(-most, most + 1, 2).tolist()
            canvas.shift(dx, dy, FLOOR)
