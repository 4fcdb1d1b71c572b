"""Reacher: bring the tip of a two-link arm into a disc and keep it there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import Game, Keys, clip, mixed

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

# Metres, radians, seconds; y points up here, unlike in the other games.
LINK = 0.11
TIME_STEP = 0.02
TORQUE = (90.0, 180.0)
LINEAR_DRAG, QUADRATIC_DRAG = (4.0, 38.0), (1.2, 0.05)
TOP_SPEED = 30.0
ELBOW_LIMIT = math.radians(160)
TARGET_DISTANCE = (0.05, 0.20)
FULL_SCORE = 200

SCALE, MIDDLE = 376.36, 112
PANEL, PANEL_SIZE = 20, 184
TRAIL = 10


class Reacher(Game):
    """1 for every step with the tip in the target. Joints move independently of each other, without gravity.

    Observation: shoulder and elbow angle, target minus tip (x, y), both angular speeds; raw.

    Args:
        target_radius: Metres.
        drawn_radius: Radius of the target in the picture, pixels.
    """

    OBS_DIM: ClassVar[int] = 6
    ACTION_DIM: ClassVar[int] = 2
    LENGTH: ClassVar[int] = 200
    FPS: ClassVar[int] = 50
    KEYS: ClassVar[Keys] = {"left": (0.5, 0), "right": (-0.5, 0), "up": (0, 0.5), "down": (0, -0.5)}

    def __init__(self, *, target_radius: float, drawn_radius: int) -> None:
        super().__init__()
        self.target_radius, self.drawn_radius = target_radius, drawn_radius

    def start(self) -> None:
        """Any pose at rest, any target."""
        rng = self.rng
        self.angles = [rng.uniform(-math.pi, math.pi), rng.uniform(-ELBOW_LIMIT, ELBOW_LIMIT)]
        self.speeds = [0.0, 0.0]
        angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(*TARGET_DISTANCE)
        self.target = (distance * math.cos(angle), distance * math.sin(angle))
        self.trail: list[tuple[float, float]] = []

    def advance(self, action: list[float]) -> float:
        """Speeds first, then angles with the new speeds; the elbow stops at its limit."""
        self.trail = [*self.trail[1 - TRAIL :], self.tip()]
        for joint in range(2):
            speed = self.speeds[joint]
            drag = (LINEAR_DRAG[joint] + QUADRATIC_DRAG[joint] * abs(speed)) * speed
            speed = clip(speed + TIME_STEP * (TORQUE[joint] * action[joint] - drag), -TOP_SPEED, TOP_SPEED)
            self.speeds[joint] = speed
            self.angles[joint] += TIME_STEP * speed
        if abs(self.angles[1]) > ELBOW_LIMIT:
            self.angles[1], self.speeds[1] = math.copysign(ELBOW_LIMIT, self.angles[1]), 0.0
        x, y = self.tip()
        return float(math.hypot(self.target[0] - x, self.target[1] - y) <= self.target_radius)

    def observe(self) -> list[float]:
        """See the class."""
        x, y = self.tip()
        return [*self.angles, self.target[0] - x, self.target[1] - y, *self.speeds]

    def score(self) -> float:
        """Share of the steps."""
        return self.total / FULL_SCORE

    def expert(self) -> list[float]:
        """Moves both joints to the nearer of the two poses that reach the target's middle."""
        distance = min(math.hypot(*self.target), 2 * LINK)
        bend = 2 * math.acos(distance / (2 * LINK))
        poses = []
        for elbow in (clip(bend, 0, ELBOW_LIMIT), clip(-bend, -ELBOW_LIMIT, 0)):
            shoulder = math.atan2(self.target[1], self.target[0]) - elbow / 2
            turn = math.remainder(shoulder - self.angles[0], 2 * math.pi)
            poses.append((turn, elbow - self.angles[1]))
        turn, bending = min(poses, key=lambda pose: max(abs(pose[0]), abs(pose[1])))
        return [(8 * turn - self.speeds[0]) * 0.5, (8 * bending - 0.5 * self.speeds[1]) * 0.3]

    def draw(self, canvas: Canvas) -> None:
        """A neon panel; the arm's two links differ in colour."""
        _draw_background(canvas)
        x, y = _pixel(*self.target)
        canvas.disc(x, y, self.drawn_radius, (210, 70, 60))
        canvas.disc(x, y, self.drawn_radius, (220, 80, 70), outline=3)
        for point in self.trail:
            canvas.disc(*_pixel(*point), 3, (240, 240, 240, 200))
        shoulder = self.angles[0]
        elbow = _pixel(LINK * math.cos(shoulder), LINK * math.sin(shoulder))
        tip = _pixel(*self.tip())
        canvas.line((MIDDLE, MIDDLE), elbow, (180, 180, 180), 6)
        canvas.line(elbow, tip, (255, 140, 0), 6)
        canvas.disc(MIDDLE, MIDDLE, 4, (160, 160, 160))
        canvas.disc(*elbow, 4, (255, 200, 120))
        canvas.disc(*tip, 3, (230, 230, 230))

    def tip(self) -> tuple[float, float]:
        """X and y of the arm's end, metres."""
        shoulder, both = self.angles[0], self.angles[0] + self.angles[1]
        return LINK * (math.cos(shoulder) + math.cos(both)), LINK * (math.sin(shoulder) + math.sin(both))


def _pixel(x: float, y: float) -> tuple[float, float]:
    return MIDDLE + SCALE * x, MIDDLE - SCALE * y


def _draw_background(canvas: Canvas) -> None:
    teal, purple, pink = (120, 160, 160), (115, 95, 165), (160, 90, 130)
    for diagonal in range(0, 447):
        share = diagonal / 446
        color = mixed(teal, purple, 2 * share) if share < 0.5 else mixed(purple, pink, 2 * share - 1)
        canvas.line((diagonal, 0), (0, diagonal), color, 2)
    canvas.rect(PANEL, PANEL, PANEL_SIZE, PANEL_SIZE, (0, 0, 0, 30), corner=14)
    canvas.rect(PANEL, PANEL, PANEL_SIZE, PANEL_SIZE, (60, 220, 255), outline=2, corner=14)
    canvas.rect(PANEL + 3, PANEL + 3, PANEL_SIZE - 6, PANEL_SIZE - 6, (255, 70, 200), outline=1, corner=12)
