"""Rocket collect: fetch one coin after the other among asteroids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import ALL_WAYS, Game, clip

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

THRUST, DAMPING, TOP_SPEED = 0.75, 0.98, 4.0
ROCKET_RADIUS, COIN_RADIUS, ASTEROID_RADIUS = 10, 9, 14
START = (112.0, 184.0)
LIMITS = (15, 209)

COIN_X, COIN_Y = (30, 193), (40, 111)  # Both ends included.
ASTEROIDS, ASTEROID_EVERY = 3, 150
ASTEROID_SIDE, ASTEROID_OUTSIDE = (20, 203), (-28, 252)
ASTEROID_AIM, ASTEROID_SPEED = (56, 168), (1.0, 2.2)
ASTEROID_LIMITS = (14, 210)

NEAR_REWARD, COIN_REWARD, HIT_REWARD = 0.002, 1.0, -0.2
DIAGONAL = math.hypot(224, 224)
HIT_STEPS = 6
FULL_SCORE = 25

RING_STEPS, PLUS_STEPS = 8, 20
_STARS, _FLAME, _ROCK, _SHIFT = 1, 2, 3, 4


@dataclass(slots=True)
class Asteroid:
    """Centre and speed; walls hold it only once it has been inside."""

    x: float
    y: float
    vx: float
    vy: float
    inside: bool = False

    def advance(self) -> None:
        """One step."""
        self.x += self.vx
        self.y += self.vy
        low, high = ASTEROID_LIMITS
        self.inside = self.inside or (low <= self.x <= high and low <= self.y <= high)
        if self.inside:
            if not low <= self.x <= high:
                self.x, self.vx = clip(self.x, low, high), -self.vx
            if not low <= self.y <= high:
                self.y, self.vy = clip(self.y, low, high), -self.vy


class RocketCollect(Game):
    """+1 for a coin, a trifle for being near it, -0.2 for every step in an asteroid.

    Observation: rocket (/224) and its speed (/4), coin (/224), way to the coin (/224), whether there was contact
    lately, then place (/224) and speed (/4) of three asteroids, zero for those that are not there yet.
    """

    OBS_DIM: ClassVar[int] = 21
    ACTION_DIM: ClassVar[int] = 2
    KEYS = ALL_WAYS

    def start(self) -> None:
        """At rest in the lower middle, one coin, one asteroid on its way."""
        self.x, self.y = START
        self.vx = self.vy = 0.0
        self.hit_left = self.collected = 0
        self.last_coin: tuple[int, float, float] | None = None  # Step and place of the last one collected.
        self._place_coin()
        self.asteroids: list[Asteroid] = []
        self._add_asteroid()

    def advance(self, action: list[float]) -> float:
        """Rocket, asteroids, coin, contact, new asteroids: in this order."""
        self.vx = (self.vx + THRUST * action[0]) * DAMPING
        self.vy = (self.vy + THRUST * action[1]) * DAMPING
        speed = math.hypot(self.vx, self.vy)
        if speed > TOP_SPEED:
            self.vx *= TOP_SPEED / speed
            self.vy *= TOP_SPEED / speed
        self.x, self.y = clip(self.x + self.vx, *LIMITS), clip(self.y + self.vy, *LIMITS)
        for asteroid in self.asteroids:
            asteroid.advance()
        distance = math.hypot(self.coin_x - self.x, self.coin_y - self.y)
        reward = NEAR_REWARD * (1 - clip(distance / DIAGONAL, 0, 1))
        if distance < ROCKET_RADIUS + COIN_RADIUS:
            reward += COIN_REWARD
            self.collected += 1
            self.last_coin = (self.steps + 1, self.coin_x, self.coin_y)
            self._place_coin()
        for asteroid in self.asteroids:
            if math.hypot(asteroid.x - self.x, asteroid.y - self.y) < ROCKET_RADIUS + ASTEROID_RADIUS:
                reward += HIT_REWARD
                self.hit_left = HIT_STEPS
        while len(self.asteroids) < min(1 + (self.steps + 1) // ASTEROID_EVERY, ASTEROIDS):
            self._add_asteroid()
        self.hit_left = max(0, self.hit_left - 1)
        return reward

    def observe(self) -> list[float]:
        """See the class."""
        obs = [self.x / 224, self.y / 224, self.vx / TOP_SPEED, self.vy / TOP_SPEED]
        obs += [self.coin_x / 224, self.coin_y / 224, (self.coin_x - self.x) / 224, (self.coin_y - self.y) / 224]
        obs.append(float(self.hit_left > 0))
        for a in self.asteroids:
            obs += [a.x / 224, a.y / 224, a.vx / TOP_SPEED, a.vy / TOP_SPEED]
        return obs + [0.0] * (self.OBS_DIM - len(obs))

    def score(self) -> float:
        """Coins, less contacts, of twenty-five."""
        return self.total / FULL_SCORE

    def expert(self) -> list[float]:
        """Tries eight directions and none for the next steps: to the coin, clear of the asteroids."""
        return max(_MOVES, key=self._promise)

    def draw(self, canvas: Canvas) -> None:
        """Space; a ring and a number where a coin was, red and shaking after contact."""
        canvas.gradient(0, 0, 224, 224, (10, 0, 20), (30, 0, 60))
        stars = self.decoration(_STARS)
        for _ in range(40):
            x, y = stars.uniform(0, 224, 2).tolist()
            canvas.disc(x, y, int(stars.integers(1, 3)), (255, 255, 255))
        self._draw_rocket(canvas)
        for number, asteroid in enumerate(self.asteroids, start=1):
            self._draw_asteroid(canvas, number, asteroid)
        canvas.disc(self.coin_x, self.coin_y, COIN_RADIUS, (255, 215, 0))
        canvas.disc(self.coin_x, self.coin_y, COIN_RADIUS, (200, 120, 0), outline=2)
        if self.last_coin is not None:
            step, x, y = self.last_coin
            age = self.steps - step
            if age < RING_STEPS:
                left = 1 - age / RING_STEPS
                canvas.disc(x, y, 9 + 14 * (1 - left), (255, 220, 100, int(255 * left)), outline=2)
            if age < PLUS_STEPS:
                yellow = (255, 230, 80, int(255 * (1 - age / PLUS_STEPS)))
                canvas.text("+1", self.x, self.y - 30 - 0.5 * age, 18, yellow, "center")
        canvas.text(f"Score: {self.collected}", 5, 5, 18, (255, 255, 255))
        if self.hit_left > 0:
            canvas.fill((255, 0, 0, 80))
            dx, dy = self.decoration(_SHIFT, self.steps + 1).integers(-3, 4, 2).tolist()
            canvas.shift(dx, dy, (0, 0, 0))

    def _place_coin(self) -> None:
        self.coin_x = float(self.rng.integers(COIN_X[0], COIN_X[1] + 1))
        self.coin_y = float(self.rng.integers(COIN_Y[0], COIN_Y[1] + 1))

    def _add_asteroid(self) -> None:
        """Outside of one of the four sides, toward somewhere near the middle."""
        rng = self.rng
        side = int(rng.integers(4))
        along, across = float(rng.integers(ASTEROID_SIDE[0], ASTEROID_SIDE[1] + 1)), float(ASTEROID_OUTSIDE[side % 2])
        x, y = (along, across) if side < 2 else (across, along)
        aim_x, aim_y = rng.uniform(*ASTEROID_AIM, 2).tolist()
        pace = rng.uniform(*ASTEROID_SPEED) / math.hypot(aim_x - x, aim_y - y)
        self.asteroids.append(Asteroid(x, y, (aim_x - x) * pace, (aim_y - y) * pace))

    def _promise(self, move: list[float]) -> float:
        """How good a move is if it is kept up for a few steps: near the coin, not in an asteroid."""
        x, y, vx, vy, cost = self.x, self.y, self.vx, self.vy, 0.0
        for step in range(1, 13):
            vx, vy = (vx + THRUST * move[0]) * DAMPING, (vy + THRUST * move[1]) * DAMPING
            speed = max(1.0, math.hypot(vx, vy) / TOP_SPEED)
            vx, vy = vx / speed, vy / speed
            x, y = clip(x + vx, *LIMITS), clip(y + vy, *LIMITS)
            for a in self.asteroids:
                if math.hypot(a.x + a.vx * step - x, a.y + a.vy * step - y) < 27:
                    cost += 30
            distance = math.hypot(self.coin_x - x, self.coin_y - y)
            if distance < 17:
                return 40 - step - cost
        return -distance / 5 - cost

    def _draw_rocket(self, canvas: Canvas) -> None:
        x, y, speed = self.x, self.y, math.hypot(self.vx, self.vy)
        if speed > 0.05:
            draws = self.decoration(_FLAME, self.steps + 1)
            length = int(3 + 4 * speed + draws.integers(-1, 2))
            flame = (255, int(draws.integers(150, 200)), 80)
            canvas.polygon([(x - 4, y + 10), (x + 4, y + 10), (x, y + 10 + length)], flame)
        for side in (-1, 1):
            fin = [(x + 8 * side, y + 10), (x + 12 * side, y + 16), (x + 4 * side, y + 10)]
            canvas.polygon(fin, (150, 150, 200))
        canvas.polygon([(x, y - 14), (x - 8, y + 10), (x + 8, y + 10)], (180, 180, 255))

    def _draw_asteroid(self, canvas: Canvas, number: int, asteroid: Asteroid) -> None:
        looks = self.decoration(_ROCK, number)
        spin = looks.uniform(-0.02, 0.02) * self.steps
        corners = []
        for k in range(8):
            angle = 2 * math.pi * k / 8 + spin
            size_x, size_y = (ASTEROID_RADIUS + int(looks.integers(-3, 4)) for _ in range(2))
            corners.append((asteroid.x + size_x * math.cos(angle), asteroid.y + size_y * math.sin(angle)))
        canvas.polygon(corners, (120, 120, 120))


_MOVES = [[math.cos(math.pi * k / 4), math.sin(math.pi * k / 4)] for k in range(8)] + [[0.0, 0.0]]
