"""Coinrun: jump at the right moment, and high enough, to catch floating coins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from newt.miniarcade.base import Game, mixed, overlap
from newt.miniarcade.runner import GROUND, JUMP, SCROLL, Runner, draw_limbs

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

COIN_RADIUS = 9
GROUP = (2, 5)  # Coins, both ends included.
AHEAD = (20, 59)  # Of the right edge, first coin.
LOWEST_COIN, HIGHEST_COIN, COIN_RISE = 173, 83, 18
COIN_SPACING, RISE_PROBABILITY = 27, 0.6
FULL_SCORE = 50

GOLD, WHITE = (255, 215, 0), (255, 255, 255)
PETALS = ((255, 182, 193), (255, 204, 229), (255, 255, 153), (221, 160, 221))
SPARK_STEPS = 15
_CLOUD, _TUFT, _FLOWER, _PEBBLE, _SPARK, _BLADES = 1, 2, 3, 4, 5, 6


class Coinrun(Game):
    """+1 for a coin. Coins come in groups; a group is replaced when it has been collected or has passed.

    Observation: height above the ground (/224), vertical speed (/10), x and y (/224) of the five coins of the group,
    -1 for those collected or never there.
    """

    OBS_DIM: ClassVar[int] = 12
    ACTION_DIM: ClassVar[int] = 1
    KEYS = JUMP
    IDLE = (0,)

    def start(self) -> None:
        """Standing, a group of coins behind the right edge."""
        self.runner = Runner()
        self.grounded_steps = 0
        self.caught: list[tuple[int, float, float]] = []  # Step and place of coins whose sparks may still fly.
        self._spawn()

    def advance(self, action: list[float]) -> float:
        """Runner, then coins."""
        self.runner.advance(action[0])
        self.grounded_steps += self.runner.grounded
        for coin in self.coins:
            if coin is not None:
                coin[0] -= SCROLL
        if all(coin is None or coin[0] < -COIN_RADIUS for coin in self.coins):
            self._spawn()
        reward = 0.0
        for slot, coin in enumerate(self.coins):
            if coin is not None and overlap(self.runner.box, _coin_box(*coin)):
                self.coins[slot] = None
                self.caught = [c for c in self.caught if c[0] > self.steps - SPARK_STEPS]
                self.caught.append((self.steps + 1, coin[0], coin[1]))
                reward += 1.0
        return reward

    def observe(self) -> list[float]:
        """See the class."""
        obs = self.runner.observe()
        for coin in self.coins:
            obs += [-1.0, -1.0] if coin is None else [coin[0] / 224, coin[1] / 224]
        return obs + [-1.0] * (self.OBS_DIM - len(obs))

    def score(self) -> float:
        """Coins, of fifty."""
        return self.total / FULL_SCORE

    def expert(self) -> list[float]:
        """Jumps now if no jump of the next few steps would bring more."""
        if not self.runner.grounded:
            return [0.0]
        strengths = (0.0, 0.5, 0.65, 0.75, 0.85, 1.0)
        plans = [(self._gain(delay, jump), -delay, jump) for delay in range(7) for jump in strengths]
        _, delay, jump = max(plans)
        return [jump if delay == 0 else 0.0]

    def draw(self, canvas: Canvas) -> None:
        """A meadow in spring that moves along."""
        canvas.gradient(0, 0, 224, GROUND, (173, 216, 230), (255, 182, 193))
        canvas.gradient(0, GROUND, 224, 224 - GROUND, (76, 130, 78), (112, 170, 112))
        canvas.line((0, GROUND), (224, GROUND), (51, 92, 53), 2)
        for x, looks in self._passing(_CLOUD, 7, (-78, 302), SCROLL * 0.3):
            y, b = looks.uniform(15, 82.8), looks.uniform(16, 26)
            for dx, dy, w, h in ((0, 0, 2, 1), (-0.6, 0.15, 1.6, 0.9), (0.9, 0.1, 1.6, 0.9)):
                canvas.ellipse(x + dx * b, y + dy * b, w * b, h * b, (255, 204, 214))
        self._draw_plants(canvas, front=False)
        for x, looks in self._passing(_PEBBLE, 10, (-5, 234), SCROLL):
            canvas.disc(x, GROUND + looks.uniform(1, 4), 1, (51, 92, 53))
        self._draw_runner(canvas)
        self._draw_plants(canvas, front=True)
        for slot, coin in enumerate(self.coins):
            if coin is not None:
                self._draw_coin(canvas, slot, *coin)
        self._draw_sparks(canvas)

    def _spawn(self) -> None:
        rng = self.rng
        x, y = 224 + int(rng.integers(AHEAD[0], AHEAD[1] + 1)), LOWEST_COIN - COIN_RISE * int(rng.integers(1, 5))
        self.coins: list[list[float] | None] = []
        for _ in range(int(rng.integers(GROUP[0], GROUP[1] + 1))):
            self.coins.append([x, y])
            x += COIN_SPACING
            if rng.random() < RISE_PROBABILITY:
                y = min(max(y + COIN_RISE * self.coin(), HIGHEST_COIN), LOWEST_COIN)

    def _gain(self, delay: int, jump: float) -> float:
        """Coins of this group that a jump of this strength would catch, a little less the longer it takes."""
        trial, coins = Runner(), [tuple(coin) for coin in self.coins if coin is not None]
        caught: set[int] = set()
        for step in range(1, 33):
            trial.advance(jump if step == delay + 1 else 0.0)
            for i, (x, y) in enumerate(coins):
                if i not in caught and overlap(trial.box, _coin_box(x - SCROLL * step, y)):
                    caught.add(i)
        return len(caught) - 0.1 * jump

    def _passing(
        self, kind: int, count: int, span: tuple[int, int], pace: float
    ) -> Iterator[tuple[float, np.random.Generator]]:
        """Places of things that drift to the left and come back on the right, looking different."""
        width = span[1] - span[0]
        for number in range(1, count + 1):
            own = self.decoration(kind, number)
            way = own.uniform(0, width) + pace * (own.uniform(0.6, 1.4) if kind == _CLOUD else 1.0) * self.steps
            round_, gone = divmod(way, width)
            yield span[1] - gone, self.decoration(kind, number, int(round_) + 1)

    def _draw_plants(self, canvas: Canvas, front: bool) -> None:
        for number, (x, looks) in enumerate(self._passing(_TUFT, 8, (-22, 244), SCROLL)):
            if (looks.random() < 0.35) == front:
                y, height, spread = GROUND + looks.uniform(-2, 3), looks.uniform(5, 10), looks.uniform(2, 4)
                share = (y - GROUND + 2) / 5
                blades = self.decoration(_BLADES, number + 1, self.steps + 1)
                canvas.line((x - spread, y), (x + spread, y), mixed((46, 102, 50), (66, 132, 70), share))
                for blade in range(int(blades.integers(3, 6))):
                    low, high = (((34, 110, 38), (60, 150, 64)), ((40, 120, 42), (70, 160, 72)))[blade % 2]
                    foot = x + blades.uniform(-spread, spread)
                    tip = (foot + blades.uniform(-2, 2), y - height * blades.uniform(0.7, 1))
                    canvas.line((foot, y), tip, mixed(low, high, share))
        for x, looks in self._passing(_FLOWER, 4, (-22, 262), SCROLL):
            if (looks.random() < 0.3) == front:
                y = GROUND - looks.uniform(1, 6) + looks.uniform(-2, 2) - 4
                size, petal = looks.uniform(2, 3.2), PETALS[int(looks.integers(4))]
                canvas.line((x, y), (x, GROUND), (60, 120, 60))
                for i in range(5):
                    angle = 2 * math.pi * i / 5
                    canvas.disc(x + size * math.cos(angle), y + size * math.sin(angle), size, petal)
                canvas.disc(x, y, 1.5, (255, 230, 120))

    def _draw_runner(self, canvas: Canvas) -> None:
        y, stride = self.runner.y, self.grounded_steps // 3 % 2
        canvas.rect(42, y - 1, 14, 18, (220, 20, 60), corner=4)
        canvas.disc(49, y + 5, 5, (222, 184, 135))
        poses = ((40, 58, 16), (41, 61, 17)) if self.runner.grounded else ((44, 54, 14), (45, 57, 15))
        draw_limbs(canvas, y, poses[stride], ((44, 54), (42, 56))[stride], shoulder=1)
        brown = (139, 69, 19)
        canvas.polygon([(46, y + 10), (52, y + 10), (49, y + 25)], brown)
        canvas.polygon([(43, y + 30), (55, y + 30), (49, y + 18)], brown)

    def _draw_coin(self, canvas: Canvas, slot: int, x: float, y: float) -> None:
        canvas.disc(x, y, COIN_RADIUS, GOLD)
        shine = 0.5 + 0.125 * math.sin(2 * math.pi * (self.steps + 7 * slot) / 30)
        canvas.disc(x, y, COIN_RADIUS, mixed((200, 160, 0), (255, 220, 60), shine), outline=2)
        canvas.arc(x - 11, y - 11, 22, 22, -0.5, 0.5, (250, 245, 200), 1)
        angle = 2 * math.pi * self.steps / 45
        gx, gy = x + 8 * math.cos(angle), y + 8 * math.sin(angle)
        canvas.line((gx - 2, gy), (gx + 2, gy), (245, 245, 235))
        canvas.line((gx, gy - 2), (gx, gy + 2), (245, 245, 235))

    def _draw_sparks(self, canvas: Canvas) -> None:
        for step, x, y in self.caught:
            draws, age = self.decoration(_SPARK, step, int(y)), self.steps - step
            for i in range(8):
                angle, speed = 2 * math.pi * i / 8 + draws.uniform(-0.25, 0.25), draws.uniform(1, 2.4)
                lift, life, size = draws.uniform(0, 0.3), draws.uniform(10, SPARK_STEPS), draws.uniform(1, 2)
                if age < life:
                    left = 1 - age / life
                    at_x = x + speed * math.cos(angle) * age
                    at_y = y + (speed * math.sin(angle) - lift) * age + 0.025 * age * age
                    color = WHITE if i % 2 else (255, 230, 120)
                    canvas.disc(at_x, at_y, max(1.0, size * left), (*color, int(255 * left)))


def _coin_box(x: float, y: float) -> tuple[float, float, int, int]:
    return (x - COIN_RADIUS, y - COIN_RADIUS, 2 * COIN_RADIUS, 2 * COIN_RADIUS)
