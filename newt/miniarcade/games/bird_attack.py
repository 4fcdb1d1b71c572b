"""Bird attack: a cannon against a flock of birds, and a late boss that nothing can hurt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import Game, Keys, clip

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

FIELD_LOW, FIELD_HIGH = 20, 204

AGENT_W, AGENT_H, AGENT_Y, AGENT_START = 14, 8, 184, 105
AGENT_SPEED, STUNNED_SPEED = 6.0, 1.2
RELOAD = 8
PENALTY_STEPS = 16  # Of stun and of reload, after a hit.
HIT_REWARD = -2.0

BIRD_W, BIRD_H, ROWS, COLUMNS, HIT_POINTS = 14, 12, 2, 8, 2
FLOCK_SPEED, FLOCK_DROP = 1, 4
FIRE_PROBABILITY = 0.0075
SHOT_SPEED = 7
SHOT_W, SHOT_H = 4, 6

BOSS_ARRIVES, BOSS_X, BOSS_Y = 250, 112, 40
BOSS_JITTER = (5.52, 1.84)
BOSS_FADE, BOSS_INTERVAL = 5, 50
BOSS_SHOT_SPEED, BOSS_SHOT_RADIUS = 5.0, 10

BIRDS = ROWS * COLUMNS
SEEN_SHOTS, SEEN_BIRD_SHOTS = 5, 10
WHITE, ORANGE, GREY, GREEN = (255, 255, 255), (255, 140, 0), (200, 200, 200), (80, 200, 110)


@dataclass(slots=True)
class Bird:
    """Top-left corner and hits it still takes."""

    x: float
    y: float
    points: int = HIT_POINTS


class BirdAttack(Game):
    """+1 for a bird, -2 for being hit, +1 for every step after the last bird.

    Observation: agent's left edge, reload counter (/5), living birds (/16), the left edges of 16 birds, the height of
    the lowest, x and y of 5 own and 10 enemy shots, stun counter (/10), the boss's shot and its speed (/5). Positions
    are divided by 224; what does not exist is zero.
    """

    OBS_DIM: ClassVar[int] = 55
    ACTION_DIM: ClassVar[int] = 2
    KEYS: ClassVar[Keys] = {"left": (-1, 0), "right": (1, 0), "space": (0, 2)}
    IDLE = (0, -1)

    def start(self) -> None:
        """The same formation every time."""
        self.x = float(AGENT_START)
        self.reload = self.stun = self.kills = 0
        self.shots: list[list[float]] = []
        self.bird_shots: list[list[float]] = []
        self.birds = [Bird(40 + 20 * column, 40 + 20 * row) for row in range(ROWS) for column in range(COLUMNS)]
        self.heading = 1
        self.boss: tuple[float, float] | None = None
        self.boss_fade = self.boss_timer = 0
        self.boss_shot: list[float] | None = None  # x, y, vx, vy

    def advance(self, action: list[float]) -> float:
        """Agent, its shots, flock, the flock's shots, hits, boss: in this order."""
        self.x = clip(self.x + action[0] * (STUNNED_SPEED if self.stun else AGENT_SPEED), FIELD_LOW, 190)
        self.stun = max(0, self.stun - 1)
        if action[1] > 0 and self.reload == 0:
            self.shots.append([self.x + AGENT_W / 2, AGENT_Y - SHOT_H])
            self.reload = RELOAD
        self.reload = max(0, self.reload - 1)
        for shot in self.shots:
            shot[1] -= SHOT_SPEED
        self.shots = [shot for shot in self.shots if shot[1] > FIELD_LOW]
        self._move_flock()
        for shot in self.bird_shots:
            shot[1] += SHOT_SPEED
        self.bird_shots = [shot for shot in self.bird_shots if shot[1] < FIELD_HIGH]
        reward = self._hit_birds() + self._hit_agent()
        if self.steps >= BOSS_ARRIVES:
            self._move_boss()
        if self.boss_shot is not None:
            reward += self._move_boss_shot(self.boss_shot)
        return reward if self.birds else reward + 1.0

    def observe(self) -> list[float]:
        """See the class."""
        obs = [self.x / 224, self.reload / 5, len(self.birds) / BIRDS]
        obs += [bird.x / 224 for bird in self.birds] + [0.0] * (BIRDS - len(self.birds))
        obs.append(max((bird.y for bird in self.birds), default=FIELD_LOW) / 224)
        for shots, seen in ((self.shots, SEEN_SHOTS), (self.bird_shots, SEEN_BIRD_SHOTS)):
            shown = [entry / 224 for shot in shots[:seen] for entry in shot]
            obs += shown + [0.0] * (2 * seen - len(shown))
        obs.append(self.stun / 10)
        if self.boss_shot is None:
            return [*obs, 0.0, 0.0, 0.0, 0.0]
        x, y, vx, vy = self.boss_shot
        obs += [clip(x / 224, 0, 1), clip(y / 224, 0, 1)]
        return [*obs, clip(vx / BOSS_SHOT_SPEED, -1, 1), clip(vy / BOSS_SHOT_SPEED, -1, 1)]

    def score(self) -> float:
        """Birds, less hits, of sixteen."""
        return self.total / BIRDS

    def expert(self) -> list[float]:
        """Fires always; goes below the nearest place from which a shot will meet a bird, unless a shot is coming."""
        middle = self.x + AGENT_W / 2
        targets = [bird.x + BIRD_W / 2 + self.heading * (AGENT_Y - bird.y) / SHOT_SPEED for bird in self.birds]
        target = min((clip(x, 27, 197) for x in targets), key=lambda x: abs(x - middle), default=112.0)
        moves = (0.0, -1.0, 1.0, -0.5, 0.5, clip((target - middle) / AGENT_SPEED, -1, 1))
        return [min(moves, key=lambda move: (self._danger(move), abs(middle + AGENT_SPEED * move - target))), 1.0]

    def draw(self, canvas: Canvas) -> None:
        """The field; birds that were hit once are hollow; red while stunned."""
        canvas.fill((0, 0, 0))
        canvas.rect(FIELD_LOW, FIELD_LOW, 184, 184, WHITE, outline=2)
        middle = self.x + AGENT_W / 2
        canvas.rect(self.x, AGENT_Y, AGENT_W, AGENT_H, ORANGE)
        canvas.polygon([(middle - 4, AGENT_Y), (middle + 4, AGENT_Y), (middle, AGENT_Y - 6)], ORANGE)
        for bird in self.birds:
            corners = [(bird.x, bird.y), (bird.x + BIRD_W / 2, bird.y + BIRD_H), (bird.x + BIRD_W, bird.y)]
            canvas.polygon(corners, GREY, outline=0 if bird.points == HIT_POINTS else 2)
        for x, y in self.shots:
            canvas.rect(x - 2, y - SHOT_H, SHOT_W, SHOT_H, ORANGE)
        for x, y in self.bird_shots:
            canvas.rect(x - 2, y, SHOT_W, SHOT_H, GREY)
        if self.boss is not None:
            x, y = self.boss
            wings = [(x - 32, y + 8), (x - 16, y - 8), (x, y + 8), (x + 16, y - 8), (x + 32, y + 8)]
            canvas.path(wings, (*GREY, int(255 * (1 - self.boss_fade / BOSS_FADE))), 3)
        if self.boss_shot is not None:
            canvas.disc(self.boss_shot[0], self.boss_shot[1], BOSS_SHOT_RADIUS, GREY)
        canvas.text(str(self.kills), 24, 3, 18, GREEN if self.kills >= BIRDS else WHITE)
        if self.stun:
            canvas.rect(FIELD_LOW, FIELD_LOW, 184, 184, (220, 30, 10, 140 * self.stun // PENALTY_STEPS))

    def _move_flock(self) -> None:
        if not self.birds:
            return
        step = self.heading * FLOCK_SPEED
        xs = [bird.x for bird in self.birds]
        if max(xs) + BIRD_W + step > FIELD_HIGH or min(xs) + step < FIELD_LOW:
            self.heading = -self.heading
            for bird in self.birds:
                bird.y += FLOCK_DROP
        else:
            for bird in self.birds:
                bird.x += step
        for bird, draw in zip(self.birds, self.rng.random(len(self.birds)).tolist(), strict=True):
            if draw < FIRE_PROBABILITY:
                self.bird_shots.append([bird.x + BIRD_W / 2, bird.y + BIRD_H])

    def _hit_birds(self) -> float:
        """At most one hit per bird, by the oldest shot; returns the birds that fell."""
        for bird in self.birds:
            x, y = bird.x + BIRD_W / 2, bird.y + BIRD_H / 2
            for shot in self.shots:
                if abs(shot[0] - x) < BIRD_W / 2 and abs(shot[1] - y) < BIRD_H / 2:
                    self.shots.remove(shot)
                    bird.points -= 1
                    break
        living = [bird for bird in self.birds if bird.points > 0]
        fallen = len(self.birds) - len(living)
        self.birds, self.kills = living, self.kills + fallen
        return float(fallen)

    def _hit_agent(self) -> float:
        x, y = self.x + AGENT_W / 2, AGENT_Y + AGENT_H / 2
        missed = [s for s in self.bird_shots if not (abs(s[0] - x) < AGENT_W / 2 and abs(s[1] - y) < AGENT_H / 2)]
        hits = len(self.bird_shots) - len(missed)
        self.bird_shots = missed
        return self._stunned() * hits if hits else 0.0

    def _stunned(self) -> float:
        self.stun = self.reload = PENALTY_STEPS
        return HIT_REWARD

    def _move_boss(self) -> None:
        """Shakes about its place, and fires at the agent whenever its last shot is gone and its time has come."""
        if self.boss is None:
            self.boss, self.boss_fade, self.boss_timer = (BOSS_X, BOSS_Y), BOSS_FADE, BOSS_INTERVAL
        if self.boss_fade > 0:
            self.boss_fade -= 1
            return
        jitter = self.rng.uniform(-1, 1, 2)
        x, y = BOSS_X + BOSS_JITTER[0] * float(jitter[0]), BOSS_Y + BOSS_JITTER[1] * float(jitter[1])
        self.boss = (x, y)
        self.boss_timer -= 1
        if self.boss_timer <= 0 and self.boss_shot is None:
            y += 8
            dx, dy = self.x + AGENT_W / 2 - x, AGENT_Y + AGENT_H / 2 - y
            pace = BOSS_SHOT_SPEED / math.hypot(dx, dy)
            self.boss_shot, self.boss_timer = [x, y, dx * pace, dy * pace], BOSS_INTERVAL

    def _move_boss_shot(self, shot: list[float]) -> float:
        shot[0] += shot[2]
        shot[1] += shot[3]
        if shot[0] - BOSS_SHOT_RADIUS < FIELD_LOW or shot[0] + BOSS_SHOT_RADIUS > FIELD_HIGH:
            shot[2] = -shot[2]
        if shot[1] - BOSS_SHOT_RADIUS >= FIELD_HIGH:
            self.boss_shot = None
        elif (
            abs(shot[0] - (self.x + AGENT_W / 2)) < BOSS_SHOT_RADIUS + AGENT_W / 2
            and abs(shot[1] - (AGENT_Y + AGENT_H / 2)) < BOSS_SHOT_RADIUS + AGENT_H / 2
        ):
            self.boss_shot = None
            return self._stunned()
        return 0.0

    def _danger(self, move: float) -> int:
        """How many shots would hit if the agent made this move for the next ten steps."""
        speed = STUNNED_SPEED if self.stun else AGENT_SPEED
        threats = [(x, y, 0.0, float(SHOT_SPEED), 8.0, 5.0) for x, y in self.bird_shots if y > 100]
        if self.boss_shot is not None:
            x, y, vx, vy = self.boss_shot
            threats.append((x, y, vx, vy, 18.0, 15.0))
        hits = 0
        for x, y, vx, vy, reach_x, reach_y in threats:
            for step in range(1, 11):
                at = clip(self.x + move * speed * step, FIELD_LOW, 190) + AGENT_W / 2
                if abs(y + vy * step - 188) < reach_y and abs(x + vx * step - at) < reach_x:
                    hits += 1
                    break
        return hits
