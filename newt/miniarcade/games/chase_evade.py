"""Chase and evade in a round arena: whoever is caught chases next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import ALL_WAYS, Game, mixed

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

CENTER_X, CENTER_Y, ARENA = 112, 118, 90
RADIUS, CATCH = 8, 16
PLAY_LIMIT = ARENA - RADIUS - 4
CHANGE_LIMIT = ARENA - RADIUS - 15
START_DISTANCE = 75

SPEED = 3.5  # Of whoever pursues.
EVADE_SPEED = 0.95 * SPEED

OBSTACLES, OBSTACLE_RADIUS, OBSTACLE_ORBIT, OBSTACLE_TURN = 3, 12, 40, 0.01
AVOID = 36
CHANGE_STEPS, CHANGE_NEAR = 5, 2.0

ORANGE, GREEN, WHITE = (255, 140, 0), (70, 160, 70), (255, 255, 255)
FLASH_STEPS = 12


class Runner:
    """Where a character is and the velocity it was told."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y
        self.vx = self.vy = 0.0

    def limit(self, radius: float) -> None:
        """Pulls the character back to a distance from the arena's centre."""
        dx, dy = self.x - CENTER_X, self.y - CENTER_Y
        distance = math.hypot(dx, dy)
        if distance > radius:
            self.x, self.y = CENTER_X + dx * radius / distance, CENTER_Y + dy * radius / distance


class ChaseEvade(Game):
    """+0.1 d/90 per step while evading, -0.1 d/90 while chasing, d being the distance.

    Observation: position (/224) and velocity (/3.5) of agent and opponent, whether the agent evades, the positions of
    three obstacles (/224).
    """

    OBS_DIM: ClassVar[int] = 15
    ACTION_DIM: ClassVar[int] = 2
    KEYS = ALL_WAYS

    def start(self) -> None:
        """The agent at the rim, the opponent in the middle; either may be the one to chase."""
        angle = self.rng.uniform(0, 2 * math.pi)
        self.agent = Runner(CENTER_X + START_DISTANCE * math.cos(angle), CENTER_Y + START_DISTANCE * math.sin(angle))
        self.opponent = Runner(CENTER_X, CENTER_Y)
        self.evading = self.rng.random() < 0.5
        self.phase, self.direction = self.rng.uniform(0, 2 * math.pi), self.coin()
        self.changing: int | None = None  # Steps since roles began to change.
        self.caught_at: tuple[int, float, float] | None = None  # Step and place of the last catch.
        self._place_obstacles()

    def advance(self, action: list[float]) -> float:
        """Obstacles turn, then both move, or take their places for the next round."""
        self._place_obstacles()
        if self.changing is not None:
            self._change_roles()
        else:
            speed = EVADE_SPEED if self.evading else SPEED
            self.agent.vx, self.agent.vy = speed * action[0], speed * action[1]
            self._move(self.agent)
            self.opponent.vx, self.opponent.vy = self._pursue() if self.evading else self._evade()
            self._move(self.opponent)
            if self._distance() < CATCH:
                self.evading, self.changing = not self.evading, 0
                x, y = (self.agent.x + self.opponent.x) / 2, (self.agent.y + self.opponent.y) / 2
                self.caught_at = (self.steps, x, y)
        return 0.1 * self._distance() / ARENA * (1 if self.evading else -1)

    def observe(self) -> list[float]:
        """See the class."""
        obs: list[float] = []
        for one in (self.agent, self.opponent):
            obs += [one.x / 224, one.y / 224, one.vx / SPEED, one.vy / SPEED]
        obs.append(float(self.evading))
        return obs + [entry / 224 for obstacle in self.obstacles for entry in obstacle]

    def score(self) -> float:
        """Half for nothing; distance kept while evading counts as much as distance lost while chasing."""
        return (self.total + 50) / 100

    def expert(self) -> list[float]:
        """Chases straight ahead, with both axes at full speed where that pays; evades around the arena."""
        dx, dy = self.opponent.x - self.agent.x, self.opponent.y - self.agent.y
        if self.evading:
            # Away from the opponent, turned along the rim: the diagonal is faster than the opponent.
            cx, cy = self.agent.x - CENTER_X, self.agent.y - CENTER_Y
            side = 1 if cx * dy - cy * dx < 0 else -1
            rim = math.hypot(cx, cy) / PLAY_LIMIT
            dx, dy = -dx - side * 60 * rim * cy / 78, -dy + side * 60 * rim * cx / 78
        else:
            dx, dy = dx + 3 * self.opponent.vx, dy + 3 * self.opponent.vy
        dx, dy = self._around_obstacles(dx, dy)
        most = max(abs(dx), abs(dy), 1e-6)
        return [dx / most, dy / most]

    def draw(self, canvas: Canvas) -> None:
        """The background takes the colour of whoever evades; so does the flag in the middle."""
        evader, pursuer = (ORANGE, GREEN) if self.evading else (GREEN, ORANGE)
        tint = evader if self.changing is None else mixed(pursuer, evader, min(1.0, self.changing / 10))
        canvas.gradient(0, 0, 224, 224, mixed((130, 185, 180), tint, 0.25), mixed((80, 170, 180), tint, 0.25))
        canvas.disc(CENTER_X, CENTER_Y, ARENA, (40, 40, 45))
        canvas.disc(CENTER_X, CENTER_Y, ARENA, (220, 220, 220), outline=2)
        canvas.line((112, 106), (112, 130), (180, 180, 180), 2)
        canvas.polygon([(112, 106), (122, 110), (112, 114)], evader)
        for x, y in self.obstacles:
            canvas.rect(x - OBSTACLE_RADIUS, y, 24, 4, (90, 90, 95))
            canvas.disc(x, y, OBSTACLE_RADIUS, (130, 130, 130))
        name, color = ("orange", ORANGE) if self.evading else ("green", (0, 180, 0))
        width = canvas.text(name, 6, 5, 18, color, outline=(0, 0, 0))
        canvas.text(" is evading", 6 + width, 5, 18, WHITE, outline=(0, 0, 0))
        self._draw_runner(canvas, self.agent, ORANGE)
        self._draw_runner(canvas, self.opponent, GREEN)
        if self.caught_at is not None:
            step, x, y = self.caught_at
            age = self.steps - step
            share = 1 - abs(age - FLASH_STEPS / 2) / (FLASH_STEPS / 2)
            if share > 0:
                canvas.disc(x, y, 10 + 40 * share, (*pursuer, int(255 * share)), outline=3)
        if self.changing is not None and self.changing < 15:
            canvas.text(str(3 - self.changing // 5), 112, 74, 28, pursuer, "center", outline=(0, 0, 0))

    def _place_obstacles(self) -> None:
        angle = self.phase + self.direction * OBSTACLE_TURN * self.steps
        self.obstacles = [
            (CENTER_X + OBSTACLE_ORBIT * math.cos(a), CENTER_Y + OBSTACLE_ORBIT * math.sin(a))
            for a in (angle + 2 * math.pi * i / OBSTACLES for i in range(OBSTACLES))
        ]

    def _distance(self) -> float:
        return math.hypot(self.agent.x - self.opponent.x, self.agent.y - self.opponent.y)

    def _move(self, one: Runner) -> None:
        """Moves by the velocity, inside the arena, and out of the obstacles in their order."""
        one.x += one.vx
        one.y += one.vy
        one.limit(PLAY_LIMIT)
        for x, y in self.obstacles:
            dx, dy = x - one.x, y - one.y
            distance = math.hypot(dx, dy)
            depth = RADIUS + OBSTACLE_RADIUS - distance
            if depth > 0:
                nx, ny = dx / (distance + 1e-8), dy / (distance + 1e-8)
                one.x -= nx * (depth + 0.5)
                one.y -= ny * (depth + 0.5)
                into = one.vx * nx + one.vy * ny
                if into > 0:
                    one.vx -= 2 * into * nx
                    one.vy -= 2 * into * ny

    def _pursue(self) -> tuple[float, float]:
        """The opponent's velocity: at the agent, pushed aside by obstacles that are near."""
        ux, uy = _unit(self.agent.x - self.opponent.x, self.agent.y - self.opponent.y)
        for x, y in self.obstacles:
            dx, dy = self.opponent.x - x, self.opponent.y - y
            distance = math.hypot(dx, dy)
            if distance < AVOID:
                ax, ay = _unit(dx, dy)
                ux += ax * (AVOID - distance) / AVOID
                uy += ay * (AVOID - distance) / AVOID
        return _scaled(ux, uy, SPEED)

    def _evade(self) -> tuple[float, float]:
        """The opponent's velocity: away from the agent, off the rim, behind obstacles, with a jitter when close."""
        me, dx, dy = self.opponent, self.opponent.x - self.agent.x, self.opponent.y - self.agent.y
        distance = math.hypot(dx, dy)
        ux, uy = _unit(dx, dy)
        out_x, out_y = me.x - CENTER_X, me.y - CENTER_Y
        if math.hypot(out_x, out_y) > 0.8 * ARENA:
            ox, oy = _unit(out_x, out_y)
            ux, uy = ux - 0.5 * ox, uy - 0.5 * oy
        for x, y in self.obstacles:
            if (self.agent.x - x) * (me.x - x) + (self.agent.y - y) * (me.y - y) < 0:
                ux, uy = ux + 0.02 * (x - me.x), uy + 0.02 * (y - me.y)
        if distance < AVOID:
            px, py = _unit(-dy, dx)
            ux, uy = ux + 0.2 * self.coin() * px, uy + 0.2 * self.coin() * py
        return _scaled(ux, uy, EVADE_SPEED)

    def _change_roles(self) -> None:
        """The new pursuer walks to the middle, the new evader to the rim; nobody is caught."""
        assert self.changing is not None
        self.changing += 1
        pursuer, evader = (self.opponent, self.agent) if self.evading else (self.agent, self.opponent)
        dx, dy = CENTER_X - pursuer.x, CENTER_Y - pursuer.y
        distance = math.hypot(dx, dy)
        if distance > 1.5:
            pursuer.x += SPEED * dx / distance
            pursuer.y += SPEED * dy / distance
        dx, dy = evader.x - CENTER_X, evader.y - CENTER_Y
        distance = math.hypot(dx, dy)
        if distance > 0.01:
            evader.x += EVADE_SPEED * dx / distance
            evader.y += EVADE_SPEED * dy / distance
            evader.limit(CHANGE_LIMIT)
        near = math.hypot(pursuer.x - CENTER_X, pursuer.y - CENTER_Y) <= CHANGE_NEAR
        if self.changing >= CHANGE_STEPS and near:
            self.changing = None

    def _around_obstacles(self, dx: float, dy: float) -> tuple[float, float]:
        """Bends the agent's way around obstacles that lie on it."""
        ux, uy = _unit(dx, dy)
        for x, y in self.obstacles:
            ox, oy = x - self.agent.x, y - self.agent.y
            ahead, aside = ox * ux + oy * uy, ux * oy - uy * ox
            if 0 < ahead < 40 and abs(aside) < 22:
                turn = (1 - ahead / 40) * (-1 if aside > 0 else 1) * 1.5
                ux, uy = ux - turn * uy, uy + turn * ux
        return ux, uy

    def _draw_runner(self, canvas: Canvas, one: Runner, color: tuple[int, int, int]) -> None:
        x, y = one.x, one.y
        stride = 1 if self.steps // 3 % 2 else -1
        if abs(one.vx) + abs(one.vy) <= 0.5:
            stride = 0
        light = (220, 220, 220)
        canvas.ellipse(x - 6, y - 10, 12, 18, light)
        canvas.rect(x - 6, y - 3, 12, 6, color)
        canvas.disc(x - 4, y + 8 + stride, 3, color)
        canvas.disc(x + 4, y + 8 - stride, 3, color)
        for left in (x - 9, x + 3):
            canvas.ellipse(left, y, 6, 4, light)
        canvas.polygon([(x, y - 14), (x - 6, y - 10), (x + 6, y - 10)], color)


def _unit(dx: float, dy: float) -> tuple[float, float]:
    """Of length 1; zero if there is hardly a direction."""
    length = math.hypot(dx, dy)
    return (dx / length, dy / length) if length > 1e-5 else (0.0, 0.0)


def _scaled(ux: float, uy: float, speed: float) -> tuple[float, float]:
    length = math.hypot(ux, uy)
    factor = speed / length if length > 1e-8 else speed
    return ux * factor, uy * factor
