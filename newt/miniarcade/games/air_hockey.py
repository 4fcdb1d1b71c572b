"""Air hockey: outscore a scripted opponent on an upright table. The agent guards the goal at the bottom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import ALL_WAYS, Game, clip

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

LEFT, RIGHT, TOP, BOTTOM = 33, 191, 24, 200
MIDDLE = 112
MOUTH = (84, 140)
GOAL_DEPTH = 10
PUCK_RADIUS, PADDLE_RADIUS = 6, 10

PADDLE_SPEED = 7.5
OPPONENT_SPEED = 0.85 * PADDLE_SPEED
OPPONENT_NOISE = 0.25
OPPONENT_HOME = (112, 52)
OPPONENT_DEPTH = 83
THREAT_Y = 120
PADDLE_X = (43, 181)
AGENT_Y, OPPONENT_Y = (122, 190), (34, 102)
AGENT_START, OPPONENT_START = (112, 170), (112, 54)

SERVE_SPEED, TOP_SPEED = 6.0, 12.0
BOUNCE, CARRY, DAMPING = 0.9, 0.35, 0.998

FULL_SCORE = 10
ORANGE, GREY, WHITE = (255, 140, 0), (180, 180, 180), (255, 255, 255)


class Paddle:
    """A round paddle: where it is and the speed it was told."""

    def __init__(self, start: Sequence[float]) -> None:
        self.x, self.y = start[0], start[1]
        self.vx = self.vy = 0.0

    def move(self, vx: float, vy: float, y_limits: tuple[int, int]) -> None:
        """One step; the speed is kept even where a limit stops the paddle."""
        self.vx, self.vy = vx, vy
        self.x = clip(self.x + vx, *PADDLE_X)
        self.y = clip(self.y + vy, *y_limits)


class AirHockey(Game):
    """Two paddles, one puck, two goals; +1 and -1 for a goal.

    Observation: puck x, y (/224), puck speed (/12), then position (/224) and speed (/7.5) of agent and opponent.
    """

    OBS_DIM: ClassVar[int] = 12
    ACTION_DIM: ClassVar[int] = 2
    KEYS = ALL_WAYS

    x: float
    y: float
    vx: float
    vy: float

    def start(self) -> None:
        """Both paddles in front of their goals, the puck served to either side."""
        self.goals = [0, 0]  # Of the agent, of the opponent.
        self.delay, self.engaged = 0, False
        self._place_paddles()
        self._serve(self.coin())

    def advance(self, action: list[float]) -> float:
        """Paddles, puck, contacts, walls, goals: in this order."""
        self.agent.move(PADDLE_SPEED * action[0], PADDLE_SPEED * action[1], AGENT_Y)
        self._move_opponent()
        self.x += self.vx
        self.y += self.vy
        self._hit(self.agent)
        self._hit(self.opponent)
        if not self.x - PUCK_RADIUS >= LEFT or self.x + PUCK_RADIUS > RIGHT:
            self.x = LEFT + PUCK_RADIUS if self.x < MIDDLE else RIGHT - PUCK_RADIUS
            self.vx *= -BOUNCE
        reward = self._ends()
        self.vx *= DAMPING
        self.vy *= DAMPING
        speed = math.hypot(self.vx, self.vy)
        if speed > TOP_SPEED:
            self.vx *= TOP_SPEED / speed
            self.vy *= TOP_SPEED / speed
        return reward

    def observe(self) -> list[float]:
        """See the class."""
        obs = [self.x / 224, self.y / 224, self.vx / TOP_SPEED, self.vy / TOP_SPEED]
        for paddle in (self.agent, self.opponent):
            obs += [paddle.x / 224, paddle.y / 224, paddle.vx / PADDLE_SPEED, paddle.vy / PADDLE_SPEED]
        return obs

    def score(self) -> float:
        """Goals ahead, of ten."""
        return self.total / FULL_SCORE

    def expert(self) -> list[float]:
        """Stays between puck and goal; strikes a puck that is in reach in front of it, off its middle."""
        agent = self.agent
        in_front = self.y < agent.y - 2
        if self.y > 108 and in_front and self.vy < 6:
            # Off the middle of the puck, so that it leaves toward the corner which the opponent is not in.
            aside = 3 if self.opponent.x > MIDDLE else -3
            target = (self.x + self.vx + aside, self.y + self.vy)
        elif in_front:
            target = (MIDDLE + 0.6 * (self.x - MIDDLE), 176)
        else:
            target = (self.x + (18 if self.x < MIDDLE else -18), 190)
        return [(target[0] - agent.x) / PADDLE_SPEED, (target[1] - agent.y) / PADDLE_SPEED]

    def draw(self, canvas: Canvas) -> None:
        """The table with the numbers of goals in its margins."""
        canvas.fill((0, 0, 0))
        canvas.rect(LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP, (200, 200, 200), outline=2)
        for y in (TOP - 2, BOTTOM - 2):
            canvas.rect(MOUTH[0], y, MOUTH[1] - MOUTH[0], 8, (0, 0, 0))
        canvas.line((LEFT, MIDDLE), (RIGHT, MIDDLE), (80, 80, 80), 2)
        canvas.disc(self.x, self.y, PUCK_RADIUS, WHITE)
        canvas.disc(self.agent.x, self.agent.y, PADDLE_RADIUS, ORANGE)
        canvas.disc(self.opponent.x, self.opponent.y, PADDLE_RADIUS, GREY)
        canvas.text(str(self.goals[1]), MIDDLE, 5, 20, GREY, "center")
        canvas.text(str(self.goals[0]), MIDDLE, 206, 20, ORANGE, "center")

    def _place_paddles(self) -> None:
        self.agent, self.opponent = Paddle(AGENT_START), Paddle(OPPONENT_START)

    def _serve(self, direction: int) -> None:
        angle = self.rng.uniform(-0.35, 0.35) * math.pi
        self.x, self.y = float(MIDDLE), float(MIDDLE)
        self.vx = SERVE_SPEED * math.cos(angle) * self.coin()
        self.vy = direction * SERVE_SPEED * abs(0.7 * math.sin(angle) + 0.3)

    def _move_opponent(self) -> None:
        threat = self.y < THREAT_Y and self.vy < 0
        if threat and not self.engaged:
            hurry = clip((math.hypot(self.vx, self.vy) - 2) / 8, 0, 1)
            self.delay = int(self.rng.integers(int(5 - 4 * hurry), int(10 - 6 * hurry) + 1))
        self.engaged = threat
        target: Sequence[float] = OPPONENT_HOME
        if threat and self.delay > 0:
            self.delay -= 1
        elif threat:
            target = (clip(self.x, *PADDLE_X), min(self.y + 12, OPPONENT_DEPTH))
        dx, dy = target[0] - self.opponent.x, target[1] - self.opponent.y
        distance = math.hypot(dx, dy)
        vx = vy = 0.0
        if distance > 1e-5:
            speed = min(OPPONENT_SPEED, distance) / distance
            noise = self.rng.normal(0.0, OPPONENT_NOISE, 2)
            vx, vy = dx * speed + float(noise[0]), dy * speed + float(noise[1])
        self.opponent.move(vx, vy, OPPONENT_Y)

    def _hit(self, paddle: Paddle) -> None:
        dx, dy = self.x - paddle.x, self.y - paddle.y
        distance = math.hypot(dx, dy)
        depth = PUCK_RADIUS + PADDLE_RADIUS - distance
        if depth <= 0:
            return
        nx, ny = dx / (distance + 1e-8), dy / (distance + 1e-8)
        self.x += nx * (depth + 0.5)
        self.y += ny * (depth + 0.5)
        closing = (self.vx - paddle.vx) * nx + (self.vy - paddle.vy) * ny
        if closing < 0:
            self.vx += CARRY * paddle.vx - (1 + BOUNCE) * closing * nx
            self.vy += CARRY * paddle.vy - (1 + BOUNCE) * closing * ny

    def _ends(self) -> float:
        """Bounces off the end walls, or a goal; returns the reward."""
        in_mouth = MOUTH[0] <= self.x <= MOUTH[1]
        reward = 0.0
        if in_mouth and self.y <= TOP - GOAL_DEPTH:
            reward, winner = 1.0, 0
        elif in_mouth and self.y >= BOTTOM + GOAL_DEPTH:
            reward, winner = -1.0, 1
        elif not in_mouth and self.y - PUCK_RADIUS < TOP:
            self.y, self.vy = TOP + PUCK_RADIUS, -BOUNCE * self.vy
        elif not in_mouth and self.y + PUCK_RADIUS > BOTTOM:
            self.y, self.vy = BOTTOM - PUCK_RADIUS, -BOUNCE * self.vy
        if reward:
            self.goals[winner] += 1
            self._place_paddles()  # The opponent's delay and attention stay: it may react at once.
            self._serve(-1 if reward > 0 else 1)
        return reward
