"""Cowboy: run through the desert and jump over every cactus."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import Game, overlap
from newt.miniarcade.runner import GROUND, HEIGHT, JUMP, LEFT, SCROLL, WIDTH, Runner, draw_limbs

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

SPAWN_X = 264
LOW_CACTUS, TALL_CACTUS = (15, 25), (20, 40)
# Of each kind of obstacle its cacti: offset from the left edge, width and height.
KINDS = (
    ((0, *LOW_CACTUS),),
    ((0, *TALL_CACTUS),),
    ((0, *LOW_CACTUS), (20, *TALL_CACTUS)),
    ((0, *TALL_CACTUS), (25, *LOW_CACTUS)),
)
STANDING_SHARE = 0.5  # Of the cowboy's width which has to be above a cactus to stand on it.

STONE, DUST_STEPS = (115, 90, 65), 20
_SUN, _PEBBLE, _DUST = 1, 2, 3


class Cowboy(Game):
    """+1 for every step on which the world moves, -1 for every step stuck against a cactus.

    Observation: height above the ground (/224), vertical speed (/10), left edge of the obstacle (/224). Which kind of
    obstacle it is cannot be told.
    """

    OBS_DIM: ClassVar[int] = 3
    ACTION_DIM: ClassVar[int] = 1
    KEYS = JUMP
    IDLE = (0,)

    def start(self) -> None:
        """Standing, the first obstacle behind the right edge."""
        self.runner = Runner()
        self.stuck = False
        self.way = 0  # Pixels that the world has moved.
        self.grounded_steps = 0
        self.jumps: list[int] = []  # Steps of jumps whose dust may still fly.
        self._spawn()

    def advance(self, action: list[float]) -> float:
        """Runner, landing on a cactus, contact, then the world."""
        if action[0] > 0 and self.runner.grounded:
            self.jumps = [step for step in self.jumps if step > self.steps - DUST_STEPS]
            self.jumps.append(self.steps)
        self.runner.advance(action[0])
        self._land_on_cactus()
        self.stuck = overlap(self.runner.box, self.obstacle)
        if not self.stuck:
            self.left -= SCROLL
            self.way += SCROLL
            self.grounded_steps += self.runner.grounded
        reward = -1.0 if self.stuck else 1.0
        if self.left + self.width < 0:
            self._spawn()
            self.stuck = False
        return reward

    def observe(self) -> list[float]:
        """See the class."""
        return [*self.runner.observe(), self.left / 224]

    def score(self) -> float:
        """Share of the steps, less those stuck."""
        return self.total / self.LENGTH

    def expert(self) -> list[float]:
        """A full jump whenever the obstacle is near."""
        return [1.0 if 58 < self.left <= 100 or self.stuck else -1.0]

    def draw(self, canvas: Canvas) -> None:
        """A desert that moves along; reddish while stuck."""
        canvas.gradient(0, 0, 224, 224, (150, 190, 220), (210, 220, 235))
        self._draw_sun(canvas)
        canvas.gradient(0, GROUND, 224, 224 - GROUND, (196, 166, 135), (140, 110, 90))
        canvas.line((0, GROUND), (224, GROUND), STONE, 2)
        for number in range(1, 11):
            looks = self.decoration(_PEBBLE, number)
            x = (looks.uniform(0, 240) - self.way) % 240
            canvas.disc(x, GROUND + looks.uniform(1, 4), 1, STONE)
        self._draw_cowboy(canvas)
        for offset, width, height in KINDS[self.kind]:
            _draw_cactus(canvas, self.left + offset, width, height)
        self._draw_dust(canvas)
        if self.stuck:
            canvas.fill((220, 60, 60, 20))

    @property
    def obstacle(self) -> tuple[float, float, int, int]:
        """The box around the obstacle's cacti: left, top, width, height."""
        return (self.left, GROUND - self.height, self.width, self.height)

    def _spawn(self) -> None:
        self.kind = int(self.rng.integers(len(KINDS)))
        self.left = SPAWN_X
        self.width = max(offset + width for offset, width, _ in KINDS[self.kind])
        self.height = max(height for _, _, height in KINDS[self.kind])

    def _land_on_cactus(self) -> None:
        left, top, width, _ = self.obstacle
        if self.runner.speed > 0 and overlap(self.runner.box, self.obstacle):
            above = min(LEFT + WIDTH, left + width) - max(LEFT, left)
            if above / WIDTH > STANDING_SHARE and self.runner.y + HEIGHT > top:
                self.runner.y, self.runner.speed = top - HEIGHT, 0.0

    def _draw_sun(self, canvas: Canvas) -> None:
        looks = self.decoration(_SUN)
        radius = int(looks.integers(12, 20))
        x, y = 224 - int(looks.integers(20, 40)), int(looks.integers(15, 35))
        color = [c + int(looks.integers(-10, 10)) for c in (230, 212, 100)]
        for halo in range(2 * radius, radius, -2):
            canvas.disc(x, y, halo, (*color, max(0, 30 - (2 * radius - halo) // 2)))
        canvas.disc(x, y, radius, color)

    def _draw_cowboy(self, canvas: Canvas) -> None:
        y, stride = self.runner.y, self.grounded_steps // 6 % 2
        draw_limbs(canvas, y, ((38, 60, 18), (40, 62, 20))[stride], ((40, 58), (38, 60))[stride], shoulder=3)
        canvas.rect(46, y + 10, 6, 15, (139, 69, 19))
        canvas.disc(49, y + 5, 5, (222, 184, 135))
        canvas.line((40, y + 1), (58, y + 1), (0, 0, 0), 2)
        canvas.polygon([(45, y), (53, y), (49, y - 8)], (0, 0, 0))

    def _draw_dust(self, canvas: Canvas) -> None:
        for step in self.jumps:
            draws, age = self.decoration(_DUST, step + 1), self.steps - step
            for _ in range(5):
                vx, vy = draws.uniform(-1, 1), draws.uniform(-2, 0)
                x, y = 49 + vx * age, 182 + vy * age + 0.05 * age * age
                canvas.disc(x, y, 2, (150, 120, 100, max(0, 255 * (DUST_STEPS - age) // DUST_STEPS)))


def _draw_cactus(canvas: Canvas, x: float, width: int, height: int) -> None:
    green = (108, 138, 72)
    top = GROUND - height
    canvas.rect(x, top, width, height, green)
    canvas.rect(x - 4, top + height // 3, 4, 10, green)
    canvas.rect(x + width, top + height // 3 - 5, 4, 10, green)
