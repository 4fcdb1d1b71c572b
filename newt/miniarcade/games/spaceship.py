"""Spaceship: fly through rows of coins, past asteroids."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import ALL_WAYS, Game, clip, overlap

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

WIDTH, HEIGHT = 28, 18  # Of the ship.
START = (40.0, 112.0)
THRUST, DAMPING = 0.65, 0.95
SCROLL = 12

COIN_RADIUS, COIN_SLOTS = 9, 4
GROUP = (2, 4)  # Coins; both ends included, as below.
AHEAD, COIN_Y, COIN_LIMITS = (20, 59), (30, 193), (20, 204)
COIN_SPACING, COIN_STEP, STEP_PROBABILITY = 27, 18, 0.6

ASTEROID_RADIUS, ASTEROID_Y, ASTEROID_SPREAD = 18, (40, 183), 30
ASTEROID_PROBABILITY, ASTEROID_TURN, ASTEROID_REWARD = 0.5, 0.02, -2.0
FULL_SCORE = 60

_STARS, _FLAME, _ROCK = 1, 2, 3


class Spaceship(Game):
    """+1 for a coin, -2 for every step in the asteroid.

    Observation: ship's left and top edge (/224), its speed (/10), x and y (/224) of the four coins of the group, -1
    for those collected or never there, then the asteroid's, -1 without one.
    """

    OBS_DIM: ClassVar[int] = 14
    ACTION_DIM: ClassVar[int] = 2
    KEYS = ALL_WAYS

    def start(self) -> None:
        """At rest on the left, a group of coins behind the right edge, perhaps with an asteroid."""
        self.x, self.y = START
        self.vx = self.vy = 0.0
        # The original lets its asteroid outlive an episode; here an episode depends on nothing before it.
        self.asteroid: list[float] | None = None
        self.asteroids = 0  # So far, for their looks.
        self.inside = False
        self._spawn()

    def advance(self, action: list[float]) -> float:
        """Ship, asteroid, coins: in this order."""
        self.vx += THRUST * action[0]
        self.vy += THRUST * action[1]
        self.x, self.y = clip(self.x + self.vx, 0, 224 - WIDTH), clip(self.y + self.vy, 0, 224 - HEIGHT)
        self.vx *= DAMPING
        self.vy *= DAMPING
        ship = (self.x, self.y, WIDTH, HEIGHT)
        self.inside = False
        if self.asteroid is not None:
            self.asteroid[0] -= SCROLL
            self.inside = overlap(ship, _box(self.asteroid, ASTEROID_RADIUS))
            if self.asteroid[0] < -ASTEROID_RADIUS:
                self.asteroid = None
        reward = ASTEROID_REWARD if self.inside else 0.0
        for coin in self.coins:
            if coin is not None:
                coin[0] -= SCROLL
        if all(coin is None or coin[0] < -COIN_RADIUS for coin in self.coins):
            self._spawn()
        for slot, coin in enumerate(self.coins):
            if coin is not None and overlap(ship, _box(coin, COIN_RADIUS)):
                self.coins[slot] = None
                reward += 1.0
        return reward

    def observe(self) -> list[float]:
        """See the class."""
        obs = [self.x / 224, self.y / 224, self.vx / 10, self.vy / 10]
        for thing in (*self.coins, *[None] * (COIN_SLOTS - len(self.coins)), self.asteroid):
            obs += [-1.0, -1.0] if thing is None else [thing[0] / 224, thing[1] / 224]
        return obs

    def score(self) -> float:
        """Coins, less steps in asteroids, of sixty."""
        return self.total / FULL_SCORE

    def expert(self) -> list[float]:
        """Keeps to the left and tries the heights of the coins, and of the ways around an asteroid."""
        heights = [coin[1] - HEIGHT / 2 for coin in self.coins if coin is not None and coin[0] > self.x]
        if self.asteroid is not None:
            room = ASTEROID_RADIUS + HEIGHT / 2 + 4
            heights += [self.asteroid[1] + side * room - HEIGHT / 2 for side in (-1, 1)]
        target = max([self.y, *heights], key=self._gain)
        return [0.02 * (60 - self.x) - 0.2 * self.vx, _climb(target, self.y, self.vy)]

    def draw(self, canvas: Canvas) -> None:
        """Space that moves along; reddish while in an asteroid."""
        canvas.fill((0, 0, 0))
        stars = self.decoration(_STARS)
        for x, y in zip(stars.uniform(0, 224, 50).tolist(), stars.uniform(0, 224, 50).tolist(), strict=True):
            gone, left = divmod(x - 6 * self.steps, 224)
            # Every star has a height of its own each time it comes back.
            canvas.disc(left, (y + 89 * gone) % 224, 1, (255, 255, 255))
        self._draw_ship(canvas)
        for coin in self.coins:
            if coin is not None:
                canvas.disc(coin[0], coin[1], COIN_RADIUS, (255, 215, 0))
                canvas.disc(coin[0], coin[1], COIN_RADIUS, (200, 160, 0), outline=2)
        if self.asteroid is not None:
            self._draw_asteroid(canvas, *self.asteroid)
        if self.inside:
            canvas.fill((220, 60, 60, 40))

    def _spawn(self) -> None:
        rng = self.rng
        count = int(rng.integers(GROUP[0], GROUP[1] + 1))
        first = x = 224 + int(rng.integers(AHEAD[0], AHEAD[1] + 1))
        y = int(rng.integers(COIN_Y[0], COIN_Y[1] + 1))
        self.coins: list[list[float] | None] = []
        for _ in range(count):
            self.coins.append([x, y])
            x += COIN_SPACING
            if rng.random() < STEP_PROBABILITY:
                y = int(clip(y + COIN_STEP * self.coin(), *COIN_LIMITS))
        if self.asteroid is None and rng.random() < ASTEROID_PROBABILITY:
            rock_x = first + COIN_SPACING * (count + 2) + rng.uniform(-ASTEROID_SPREAD, ASTEROID_SPREAD)
            self.asteroid = [rock_x, float(rng.integers(ASTEROID_Y[0], ASTEROID_Y[1] + 1))]
            self.asteroids += 1

    def _gain(self, target: float) -> float:
        """Reward of flying to a height and staying there, a little less for what comes late."""
        y, vy, gain, caught = self.y, self.vy, -0.001 * abs(target - self.y), set[int]()
        for step in range(1, 26):
            vy += THRUST * clip(_climb(target, y, vy), -1, 1)
            y = clip(y + vy, 0, 224 - HEIGHT)
            vy *= DAMPING
            ship = (self.x, y, WIDTH, HEIGHT)
            for slot, coin in enumerate(self.coins):
                if coin is None or slot in caught:
                    continue
                if overlap(ship, _box([coin[0] - SCROLL * step, coin[1]], COIN_RADIUS)):
                    caught.add(slot)
                    gain += 1.0 - 0.02 * step
            if self.asteroid is not None:
                rock = [self.asteroid[0] - SCROLL * step, self.asteroid[1]]
                gain += ASTEROID_REWARD * overlap(ship, _box(rock, ASTEROID_RADIUS + 2))
        return gain

    def _draw_ship(self, canvas: Canvas) -> None:
        x, y, speed = self.x, self.y, math.hypot(self.vx, self.vy)
        if speed > 0.1:
            draws = self.decoration(_FLAME, self.steps + 1)
            length = min(28, 14 + 4 * speed) * draws.uniform(0.9, 1.1)
            half = (4 + 0.3 * speed) * draws.uniform(0.9, 1.1)
            for color, share in (((255, 255, 120), 1.0), ((255, 200, 60), 0.7), ((255, 140, 0), 0.5)):
                canvas.polygon(
                    [(x, y + 9 - half * share), (x, y + 9 + half * share), (x - length * share, y + 9)], color
                )
        canvas.polygon([(x, y), (x, y + HEIGHT), (x + WIDTH, y + 9)], (180, 180, 255))
        canvas.line((x + 4, y - 2), (x + 4, y + 20), (100, 100, 200), 2)

    def _draw_asteroid(self, canvas: Canvas, x: float, y: float) -> None:
        looks = self.decoration(_ROCK, self.asteroids)
        corners = []
        for k in range(10):
            angle = 2 * math.pi * k / 10 + ASTEROID_TURN * self.steps
            radius = ASTEROID_RADIUS * (0.7 + 0.6 * looks.random())
            corners.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
        canvas.polygon(corners, (100, 100, 100))
        canvas.polygon(corners, (60, 60, 60), outline=2)


def _climb(target: float, y: float, vy: float) -> float:
    return 0.25 * (target - y) - 1.1 * vy


def _box(center: list[float], radius: int) -> tuple[float, float, int, int]:
    return (center[0] - radius, center[1] - radius, 2 * radius, 2 * radius)
