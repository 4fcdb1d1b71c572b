"""Pong against a slowed opponent that always moves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import Game, Keys, clip, overlap

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

LOW, HIGH = 20, 204
PADDLE_W, PADDLE_H, PADDLE_SPEED = 6, 40, 8.5
PADDLE_LIMITS, PADDLE_START = (LOW, HIGH - PADDLE_H), 92.0
PLAYER_X, OPPONENT_X = 30, 188
BALL, BALL_SPEED = 7, 8.0
MIDDLE = 112.0

WAKE_SHARE = 0.3  # Of the field's width: the opponent sleeps while the ball is nearer to the player.
REACTION = (2, 6)
SLOWEST, GAIN, GAIN_SPAN = 0.5, 0.35, 0.65

SCORE_REACH = 3
WHITE, ORANGE, GREY = (255, 255, 255), (255, 140, 0), (180, 180, 180)


class Pong(Game):
    """+1 and -1 for a point. The ball is never slowed, sped up or given spin.

    Observation: ball (/224) and its speed (/8), upper edges of the player's and the opponent's paddle (/224).
    """

    OBS_DIM: ClassVar[int] = 6
    ACTION_DIM: ClassVar[int] = 1
    KEYS: ClassVar[Keys] = {"up": (-1,), "down": (1,)}

    x: float
    y: float
    vx: float
    vy: float

    def start(self) -> None:
        """Paddles in the middle, the ball served to either side."""
        self.player = self.opponent = PADDLE_START
        self.points = [0, 0]
        # Within an episode the opponent's attention outlives points, as in the original.
        self.awake, self.delay = False, 0
        self._serve()

    def advance(self, action: list[float]) -> float:
        """Player, opponent, ball, walls, paddles, points: in this order."""
        self.player = clip(self.player + PADDLE_SPEED * action[0], *PADDLE_LIMITS)
        self._move_opponent()
        self.x += self.vx
        self.y += self.vy
        if self.y - BALL < LOW or self.y + BALL > HIGH:
            self.vy = -self.vy
        ball = (self.x - BALL / 2, self.y - BALL / 2, BALL, BALL)
        if self.vx < 0 and overlap(ball, (PLAYER_X, self.player, PADDLE_W, PADDLE_H)):
            self.vx = -self.vx
        if self.vx > 0 and overlap(ball, (OPPONENT_X, self.opponent, PADDLE_W, PADDLE_H)):
            self.vx = -self.vx
        if LOW <= self.x <= HIGH:
            return 0.0
        won = self.x > HIGH
        self.points[0 if won else 1] += 1
        self._serve()
        return 1.0 if won else -1.0

    def observe(self) -> list[float]:
        """See the class."""
        ball = [self.x / 224, self.y / 224, self.vx / BALL_SPEED, self.vy / BALL_SPEED]
        return [*ball, self.player / 224, self.opponent / 224]

    def score(self) -> float:
        """0 for three points behind, 1 for three ahead."""
        return (self.total + SCORE_REACH) / (2 * SCORE_REACH)

    def expert(self) -> list[float]:
        """Is where the ball will come; waits in the middle while it goes away."""
        target = MIDDLE
        if self.vx < 0:
            steps = max(0.0, (self.x - PLAYER_X - PADDLE_W) / -self.vx)
            # The way of the ball's centre, folded at both walls.
            low, span = LOW + BALL, HIGH - LOW - 2 * BALL
            folded = (self.y + self.vy * steps - low) % (2 * span)
            target = low + (folded if folded < span else 2 * span - folded)
        return [(target - PADDLE_H / 2 - self.player) / PADDLE_SPEED]

    def draw(self, canvas: Canvas) -> None:
        """The field, with the points above."""
        canvas.fill((0, 0, 0))
        canvas.rect(LOW, LOW, HIGH - LOW, HIGH - LOW, WHITE, outline=2)
        canvas.rect(PLAYER_X, self.player, PADDLE_W, PADDLE_H, ORANGE)
        canvas.rect(OPPONENT_X, self.opponent, PADDLE_W, PADDLE_H, GREY)
        canvas.rect(self.x - BALL / 2, self.y - BALL / 2, BALL, BALL, WHITE)
        canvas.text(str(self.points[0]), 36, 3, 22, ORANGE)
        canvas.text(str(self.points[1]), 188, 3, 22, GREY, "right")

    def _serve(self) -> None:
        angle = self.rng.uniform(-math.pi / 2, math.pi / 2)
        self.x = self.y = MIDDLE
        self.vx, self.vy = self.coin() * BALL_SPEED * math.cos(angle), BALL_SPEED * math.sin(angle)

    def _move_opponent(self) -> None:
        """Faster the nearer the ball is; has no dead band, so it trembles."""
        share = (self.x - LOW) / (HIGH - LOW)
        if share <= WAKE_SHARE:
            self.awake = False
            return
        if not self.awake:
            self.awake, self.delay = True, int(self.rng.integers(REACTION[0], REACTION[1] + 1))
        if self.delay > 0:
            self.delay -= 1
            return
        speed = PADDLE_SPEED * (SLOWEST + GAIN * clip((share - WAKE_SHARE) / GAIN_SPAN, 0, 1))
        down = self.y - PADDLE_H / 2 > self.opponent
        self.opponent = clip(self.opponent + (speed if down else -speed), *PADDLE_LIMITS)
