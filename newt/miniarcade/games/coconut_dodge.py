"""Coconut dodge: a traveller on a beach under more and more falling coconuts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import SIDEWAYS, Game, clip

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

LOW, HIGH = 12, 212  # Of the field, both ways.
WIDTH, HORIZON = HIGH - LOW, 104
THRUST, DAMPING, TOP_SPEED = 0.85, 0.97, 5.0
AGENT_Y, AGENT_RADIUS = 200, 9
COCONUT_RADIUS, COCONUTS = 7, 6
CRACK_STEPS, CONTACT_STEPS = 10, 6
DRIFT, FALL = 0.5, (1.4, 2.6)
FORGIVEN_HITS = 15

DUST_STEPS = 16
NUT, DARK_NUT, NUT_RIM, SPECK = (133, 102, 62), (110, 82, 46), (90, 66, 38), (70, 52, 30)
CLOTH, SKIN, RIM = (235, 205, 170), (245, 220, 185), (160, 120, 90)
_SCENERY, _NUT, _DUST, _SHIFT = 1, 2, 3, 4


@dataclass(slots=True)
class Coconut:
    """A coconut; cracked ones keep the speed they fell with.

    Attributes:
        radius: Pixels.
        x: Centre.
        y: Centre.
        vx: Pixels per step.
        vy: Pixels per step.
        number: Number of this episode, for its looks.
        cracked: Steps until it is replaced, None while it falls.
    """

    radius: int
    x: float
    y: float
    vx: float
    vy: float
    number: int
    cracked: int | None = None


class CoconutDodge(Game):
    """-1 for every step in which a falling coconut touches the traveller.

    Observation: position in the field, speed (/5), the nearest falling coconut relative to the traveller (/200),
    whether there was contact lately, then position and speed of six coconuts, the nearest first.
    """

    OBS_DIM: ClassVar[int] = 29
    ACTION_DIM: ClassVar[int] = 1
    KEYS = SIDEWAYS

    def start(self) -> None:
        """In the middle, with one coconut on its way."""
        self.x, self.speed, self.walked = 112.0, 0.0, 0.0
        self.contact = 0
        self.fallen = 0  # Coconuts so far.
        self.coconuts = [self._new_coconut()]
        self.landings: list[tuple[int, float, bool]] = []  # Step, place, whether the coconut moved right.
        self.footprints: list[tuple[int, float]] = []

    def advance(self, action: list[float]) -> float:
        """Traveller, coconuts, contact, new coconuts: in this order."""
        self.speed = clip((self.speed + THRUST * action[0]) * DAMPING, -TOP_SPEED, TOP_SPEED)
        self.x = clip(self.x + self.speed, LOW + AGENT_RADIUS, HIGH - AGENT_RADIUS)
        self.walked += abs(self.speed)
        self.coconuts = [self._moved(coconut) for coconut in self.coconuts]
        hit = any(
            coconut.cracked is None
            and math.hypot(coconut.x - self.x, coconut.y - AGENT_Y) < AGENT_RADIUS + coconut.radius
            for coconut in self.coconuts
        )
        if hit:
            self.contact = CONTACT_STEPS
        done = self.steps + 1
        while len(self.coconuts) < 1 + int(5 * done / self.LENGTH):
            self.coconuts.append(self._new_coconut(done))
        self.contact = max(0, self.contact - 1)
        if abs(self.speed) > 0.25 and done % 4 == 0:
            self.footprints = [*self.footprints[-1:], (done, self.x - math.copysign(1, self.speed))]
        return -1.0 if hit else 0.0

    def observe(self) -> list[float]:
        """See the class."""
        order = sorted(self.coconuts, key=lambda c: (c.x - self.x) ** 2 + (c.y - AGENT_Y) ** 2)
        nearest = next((coconut for coconut in order if coconut.cracked is None), None)
        obs = [(self.x - LOW) / WIDTH, self.speed / TOP_SPEED, 0.0, -1.0, float(self.contact > 0)]
        if nearest is not None:
            obs[2:4] = [(nearest.x - self.x) / WIDTH, (nearest.y - AGENT_Y) / WIDTH]
        for c in order:
            obs += [(c.x - LOW) / WIDTH, (c.y - LOW) / WIDTH, c.vx / TOP_SPEED, c.vy / TOP_SPEED]
        return obs + [0.0] * (self.OBS_DIM - len(obs))

    def score(self) -> float:
        """1 without a hit, 0 from fifteen on."""
        return (self.total + FORGIVEN_HITS) / FORGIVEN_HITS

    def expert(self) -> list[float]:
        """Tries left, right and braking for the next steps, takes what comes least close to a coconut."""
        brake = clip(-self.speed, -1, 1)
        return [max((brake, -1.0, 1.0), key=self._clearance)]

    def draw(self, canvas: Canvas) -> None:
        """The beach at dusk."""
        canvas.fill((0, 0, 0))
        self._draw_beach(canvas)
        for step, x in self.footprints:
            life = 6 - (self.steps - step)
            for side in (-5, 5):
                canvas.ellipse(x + side - 3, 204, 6, 3, (70, 55, 45, max(0, 190 * life // 6)))
        for coconut in self.coconuts:
            self._draw_coconut(canvas, coconut)
        self._draw_dust(canvas)
        self._draw_traveller(canvas)
        if self.contact > 0:
            canvas.fill((186, 108, 24, 70))
            dx, dy = self.decoration(_SHIFT, self.steps + 1).integers(-3, 4, 2).tolist()
            canvas.shift(dx, dy, (0, 0, 0))

    def _new_coconut(self, step: int | None = None) -> Coconut:
        """At the top; they fall faster and drift more as the episode goes on."""
        pace = clip((self.steps if step is None else step) / self.LENGTH, 0, 1)
        radius = COCONUT_RADIUS + int(self.rng.integers(-1, 2))
        self.fallen += 1
        return Coconut(
            radius,
            x=self.rng.uniform(LOW + radius, HIGH - radius),
            y=LOW + 1 + radius,
            vx=self.rng.uniform(-DRIFT, DRIFT) * (1 + 0.6 * pace),
            vy=self.rng.uniform(*FALL) * (1 + 0.8 * pace),
            number=self.fallen,
        )

    def _moved(self, c: Coconut) -> Coconut:
        if c.cracked is not None:
            c.cracked -= 1
            return c if c.cracked > 0 else self._new_coconut()
        c.x += c.vx
        c.y += c.vy
        if c.x < LOW + c.radius or c.x > HIGH - c.radius:
            c.x, c.vx = clip(c.x, LOW + c.radius, HIGH - c.radius), -c.vx
        if c.y + c.radius >= HIGH:
            c.y, c.cracked = HIGH - c.radius, CRACK_STEPS
            self.landings = [landing for landing in self.landings if landing[0] > self.steps - DUST_STEPS]
            self.landings.append((self.steps + 1, c.x, c.vx >= 0))
        return c

    def _clearance(self, thrust: float) -> float:
        """The least gap to a coconut in the next steps, capped, less a little for the walls."""
        x, speed, least = self.x, self.speed, 30.0
        for step in range(1, 25):
            speed = clip((speed + THRUST * thrust) * DAMPING, -TOP_SPEED, TOP_SPEED)
            x = clip(x + speed, LOW + AGENT_RADIUS, HIGH - AGENT_RADIUS)
            for c in self.coconuts:
                if c.cracked is None and c.y + c.vy * step + c.radius < HIGH:
                    gap = math.hypot(c.x + c.vx * step - x, c.y + c.vy * step - AGENT_Y) - c.radius - AGENT_RADIUS
                    least = min(least, gap)
        return least - 0.02 * abs(x - 112)

    def _draw_beach(self, canvas: Canvas) -> None:
        scenery = self.decoration(_SCENERY)
        canvas.gradient(LOW, LOW, WIDTH, HORIZON - LOW, (80, 40, 120), (252, 165, 3), 235)
        for _ in range(22):
            x, y, radius = (int(scenery.integers(*limits)) for limits in ((18, 206), (18, 98), (1, 3)))
            canvas.disc(x, y, radius, (255, 255, 255, 110))
        canvas.rect(LOW, HORIZON, WIDTH, HIGH - HORIZON, (196, 178, 128, 235))
        far, near = scenery.uniform(3, 5), scenery.uniform(4.5, 6)
        phases = scenery.uniform(0, 2 * math.pi, 2).tolist()
        columns = range(0, WIDTH + 1, 4)
        for color, dune in (
            ((208, 190, 140), [far + far * math.sin(i / 23 + phases[0]) for i in columns]),
            ((192, 175, 132), [12 + near * math.sin((i + 40) / 19 + phases[1]) for i in columns]),
        ):
            crest = [(LOW + i, HORIZON + height) for i, height in zip(columns, dune, strict=True)]
            canvas.polygon([(LOW, HIGH), *crest, (HIGH, HIGH)], color)
        _draw_palm(canvas, 68, 120, 1.1 * scenery.uniform(0.9, 1.1), 1)
        _draw_palm(canvas, 164, 110, 0.55 * scenery.uniform(0.9, 1.1), -1)
        canvas.rect(LOW, LOW, WIDTH, WIDTH, (230, 230, 230), outline=2)

    def _draw_coconut(self, canvas: Canvas, c: Coconut) -> None:
        looks = self.decoration(_NUT, c.number)
        if c.cracked is None:
            canvas.disc(c.x, c.y, c.radius, NUT if looks.random() < 0.5 else DARK_NUT)
            canvas.disc(c.x, c.y, c.radius, NUT_RIM, outline=2)
            if looks.random() < 0.5:
                for angle in (-0.6, -0.2, 0.2, 0.6):
                    reach = c.radius - 3
                    canvas.disc(c.x + reach * math.cos(angle), c.y + reach * math.sin(angle), 1, NUT_RIM)
            for _ in range(int(looks.integers(2, 5))):
                dx, dy = looks.uniform(-0.5, 0.5, 2).tolist()
                canvas.disc(c.x + dx * c.radius, c.y + dy * c.radius, int(looks.integers(1, 3)), SPECK)
            return
        share = 1 - c.cracked / CRACK_STEPS
        for side in (-1, 1):
            lead = 2 if side * c.vx > 0 else 0
            x, y = c.x + side * (6 + lead) * share, c.y + 2 * share
            half = [
                (x + side * c.radius * math.cos(angle), y + c.radius * math.sin(angle))
                for angle in (math.pi * i / 8 - math.pi / 2 for i in range(9))
            ]
            inner = [(x + side * (px - x) * side * 0.5, y + (py - y) * 0.5) for px, py in half]
            canvas.polygon(half, (123, 92, 52))
            canvas.polygon(half, NUT_RIM, outline=1)
            canvas.path(inner, (240, 240, 240), 2)

    def _draw_dust(self, canvas: Canvas) -> None:
        for step, x0, right in self.landings:
            age = self.steps - step
            if age >= DUST_STEPS:
                continue
            draws = self.decoration(_DUST, step, int(x0) + 1)
            for _ in range(16):
                dx, dy = draws.uniform(-3, 3), draws.uniform(-1, 1)
                angle, speed = draws.uniform(0.9, 2.2), draws.uniform(0.8, 2.2)
                vx = speed * math.cos(angle) * (1.0 if right else 0.4)
                vy = -speed * math.sin(angle) * draws.uniform(0.6, 1.1)
                radius = int(draws.integers(2, 4))
                x, y = x0 + dx + vx * age, 210 + dy + vy * age + 0.15 * age * (age + 1) / 2
                if LOW < x < HIGH and y < HIGH:
                    canvas.disc(x, y, radius, (215, 195, 150, 230 * (DUST_STEPS - age) // DUST_STEPS))

    def _draw_traveller(self, canvas: Canvas) -> None:
        x, swing = self.x, math.sin(0.12 * self.walked)
        for side in (-1, 1):
            canvas.ellipse(x + side * 4 - 3, 202 + side * swing, 6, 3, (90, 70, 55))
        canvas.ellipse(x - 7, 185, 14, 18, CLOTH)
        canvas.ellipse(x - 7, 185, 14, 18, RIM, outline=2)
        for side in (-1, 1):
            tilt = math.radians(35) + side * math.radians(4) * swing
            canvas.line((x + side * 5, 190), (x + side * (5 + 9 * math.cos(tilt)), 190 + 9 * math.sin(tilt)), RIM, 4)
        canvas.rect(x - 3, 183, 6, 4, SKIN)
        canvas.disc(x, 181, 5, SKIN)
        canvas.disc(x, 181, 5, RIM, outline=1)


def _draw_palm(canvas: Canvas, x: int, y: int, scale: float, side: int) -> None:
    """A dark palm whose fronds all hang to one side."""
    dark = (50, 35, 20)
    trunk = [(x + side * 5 * math.sin(1.2 * i / 6), y - 44 * scale * i / 6) for i in range(7)]
    canvas.path(trunk, dark, 3)
    top_x, top_y = trunk[-1]
    for angle in (-1.05, -0.6, -0.2, 0.2, 0.6, 1.05):
        length = 26 * scale * (0.9 + 0.2 * (1 - abs(angle)))
        dx, dy = side * math.cos(angle), math.sin(angle)
        canvas.line((top_x, top_y), (top_x + length * dx, top_y + length * dy), dark, 2)
        for leaf in range(7):
            along, lift = length * (leaf + 1) / 8, (3 if leaf % 2 else -3) * scale
            base_x, base_y = top_x + along * dx, top_y + along * dy
            tip = (base_x + 3 * dx - lift * dy, base_y + 3 * dy + lift * dx)
            canvas.polygon([(base_x, base_y), (base_x + 3 * dx, base_y + 3 * dy), tip], dark)
