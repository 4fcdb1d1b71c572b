"""Highway: dodge the traffic of a five-lane road that scrolls by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import ALL_WAYS, Game, clip, overlap

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

ROAD_TOP, ROAD_BOTTOM, LANES = 18, 206, 5
LANE_HEIGHT = (ROAD_BOTTOM - ROAD_TOP) / LANES
LANE_CENTERS = tuple(ROAD_TOP + LANE_HEIGHT * (lane + 0.5) for lane in range(LANES))

PLAYER_LENGTH, PLAYER_HEIGHT = 28, 18
THRUST, DAMPING = 0.65, 0.95

TRUCK, YELLOW = "truck", "yellow"
# Of each kind length, pixels per step and colour.
KINDS = {
    "blue": (28, 6.0, (95, 135, 212)),
    YELLOW: (28, 7.2, (227, 188, 34)),
    TRUCK: (56, 6.0, (82, 140, 66)),
}
KIND_NAMES = tuple(KINDS)
BASE_SPEED = 6.0
SLOTS, SPAWN_TRIES, SPAWN_GAP, FIRST_X = 4, 8, 18, 264
FIRST_WAIT, NEXT_WAIT = (0, 6), (4, 10)
DRAG_STEPS, FLASH_STEPS = 5, 3

CLEAR_WINDOW, TOO_CLOSE = 70, 84
CRASH_REWARD, LANE_REWARD, FREE_REWARD, FAR_REWARD, CLOSE_PENALTY = -1.0, 0.01, 0.01, 0.005, 0.02
EFFORT_COST = 0.0005
FULL_SCORE = 10


@dataclass(slots=True)
class Slot:
    """A place for a vehicle; `wait` steps pass before an empty one may be filled.

    `x` is the left edge, in pixels.
    """

    wait: int
    active: bool = False
    kind: str = "blue"
    lane: int = 0
    x: float = 0.0

    @property
    def length(self) -> int:
        """Pixels."""
        return KINDS[self.kind][0]

    @property
    def top(self) -> float:
        """Upper edge, pixels."""
        return LANE_CENTERS[self.lane] - PLAYER_HEIGHT / 2


class Highway(Game):
    """Up to +0.02 per step for the middle of a free lane and little thrust, -1 for a crash.

    Observation: player's left edge and centre height (/224), speed (/10), whether there ever was a crash, clearance
    in its lane (/224, -1 for nothing ahead), whether the lanes above and below are clear, their clearances, offset
    from the lane's middle, lane (/4), then left edge, centre height and whether it is a truck for four vehicles.
    """

    OBS_DIM: ClassVar[int] = 24
    ACTION_DIM: ClassVar[int] = 2
    KEYS = ALL_WAYS

    def start(self) -> None:
        """In one of the middle lanes, one vehicle coming."""
        rng = self.rng
        self.x = rng.uniform(20, 60)
        self.y = LANE_CENTERS[int(rng.integers(1, 4))] - PLAYER_HEIGHT / 2
        self.vx, self.vy = rng.uniform(-0.2, 0.2, 2).tolist()
        # The original counts its crash signal down with every frame drawn, so that it stays where none are; an episode
        # must not depend on being watched, so here it always stays.
        self.crashed_at: int | None = None
        self.drag: Slot | None = None
        self.drag_left = 0
        self.slots = [Slot(wait=int(rng.integers(FIRST_WAIT[0], FIRST_WAIT[1] + 1))) for _ in range(SLOTS)]
        self._spawn(self.slots[0], FIRST_X)

    def advance(self, action: list[float]) -> float:
        """Player, the vehicle it hangs on to, traffic, rewards."""
        self.vx += THRUST * action[0]
        self.vy += THRUST * action[1]
        self.x = clip(self.x + self.vx, 0, 224 - PLAYER_LENGTH)
        self.y = clip(self.y + self.vy, ROAD_TOP, ROAD_BOTTOM - PLAYER_HEIGHT)
        self.vx *= DAMPING
        self.vy *= DAMPING
        if self.drag is not None:
            self._be_dragged(self.drag)
        reward = self._move_traffic()
        lane, offset = self._own_lane()
        reward += LANE_REWARD * math.exp(-((offset / (LANE_HEIGHT / 2)) ** 2))
        gap = self._gap(lane)
        if gap is None:
            reward += FREE_REWARD
        elif gap < TOO_CLOSE:
            reward -= CLOSE_PENALTY * (1 - gap / TOO_CLOSE)
        else:
            reward += FAR_REWARD
        return reward - EFFORT_COST * (action[0] ** 2 + action[1] ** 2)

    def observe(self) -> list[float]:
        """See the class."""
        lane, offset = self._own_lane()
        obs = [self.x / 224, (self.y + 9) / 224, self.vx / 10, self.vy / 10, float(self.crashed_at is not None)]
        own, above, below = self._gap(lane), self._gap(lane - 1), self._gap(lane + 1)
        obs += [
            _clearance(own),
            float(lane > 0 and (above is None or above > CLEAR_WINDOW)),
            float(lane < LANES - 1 and (below is None or below > CLEAR_WINDOW)),
            _clearance(above),
            _clearance(below),
            clip(offset / (LANE_HEIGHT / 2), -1, 1),
            lane / (LANES - 1),
        ]
        for slot in self.slots:
            if slot.active:
                obs += [slot.x / 224, LANE_CENTERS[slot.lane] / 224, float(slot.kind == TRUCK)]
            else:
                obs += [-1.0, -1.0, -1.0]
        return obs

    def score(self) -> float:
        """Return, of ten: every step in the middle of a free lane, without thrust."""
        return self.total / FULL_SCORE

    def expert(self) -> list[float]:
        """Drives at the back, goes to the lane with most room; never into a vehicle beside."""
        lane, _ = self._own_lane()
        rooms = [self._room(other) for other in range(LANES)]
        best = lane
        for step in (-1, 1):
            other = lane + step
            while 0 <= other < LANES and rooms[other] > 30:
                if rooms[other] - 12 * abs(other - lane) > rooms[best] - 12 * abs(best - lane) + 5:
                    best = other
                other += step
        error = LANE_CENTERS[best] - PLAYER_HEIGHT / 2 - self.y
        return [0.03 * (2 - self.x) - 0.3 * self.vx, 0.12 * error - 0.8 * self.vy]

    def draw(self, canvas: Canvas) -> None:
        """The road from above; a red veil after a crash."""
        canvas.fill((97, 133, 80))
        canvas.rect(0, ROAD_TOP, 224, ROAD_BOTTOM - ROAD_TOP, (60, 60, 60))
        for y in (55, 93, 130, 168):
            for x in range(-24, 248, 24):
                canvas.rect(x - (6 * self.steps) % 24, y, 14, 2, (220, 220, 220))
        for y in (ROAD_TOP, ROAD_BOTTOM - 2):
            canvas.rect(0, y, 224, 2, (200, 200, 200))
        for slot in self.slots:
            if slot.active:
                _draw_vehicle(canvas, slot.x, slot.top, slot.length, KINDS[slot.kind][2], (40, 40, 40))
        red = (220, 60, 60)
        _draw_vehicle(canvas, self.x, self.y, PLAYER_LENGTH, red, (120, 20, 20))
        nose, middle = self.x + PLAYER_LENGTH + 4, self.y + PLAYER_HEIGHT / 2
        canvas.polygon([(nose, middle - 4), (nose, middle + 4), (nose + 8, middle)], (*red, 128))
        if self.crashed_at is not None and self.steps - self.crashed_at <= FLASH_STEPS:
            canvas.fill((*red, 50))

    def _own_lane(self) -> tuple[int, float]:
        """The lane whose middle is nearest, and the offset from it, pixels."""
        center = self.y + PLAYER_HEIGHT / 2
        lane = min(range(LANES), key=lambda i: abs(center - LANE_CENTERS[i]))
        return lane, center - LANE_CENTERS[lane]

    def _gap(self, lane: int) -> float | None:
        """From the player's front to the nearest vehicle ahead in a lane, pixels; None if there is none."""
        front = self.x + PLAYER_LENGTH
        gaps = [slot.x - front for slot in self.slots if slot.active and slot.lane == lane and slot.x >= front]
        return min(gaps, default=None)

    def _room(self, lane: int) -> float:
        """How far ahead a lane is free, at most 200 pixels; 0 beside a vehicle."""
        room = 200.0
        for slot in self.slots:
            if slot.active and slot.lane == lane and slot.x + slot.length > self.x - 6:
                room = min(room, max(0.0, slot.x - self.x - PLAYER_LENGTH))
        return room

    def _ahead(self, slot: Slot) -> tuple[float, Slot] | None:
        """The nearest vehicle in front of a vehicle in its lane, and the gap to it."""
        gaps = [
            (slot.x - (other.x + other.length), other)
            for other in self.slots
            if other.active and other is not slot and other.lane == slot.lane and other.x < slot.x
        ]
        return min((pair for pair in gaps if pair[0] >= 0), key=lambda pair: pair[0], default=None)

    def _speed(self, slot: Slot) -> float:
        """Yellow cars are faster, but slow down behind others."""
        speed = KINDS[slot.kind][1]
        if slot.kind == YELLOW:
            ahead = self._ahead(slot)
            if ahead is not None and ahead[0] <= max(slot.length, ahead[1].length):
                return BASE_SPEED
        return speed

    def _kept_behind(self, slot: Slot, x: float) -> float:
        """Where a vehicle gets that wants to x: a yellow car never runs into the one ahead."""
        ahead = self._ahead(slot) if slot.kind == YELLOW else None
        return x if ahead is None else max(x, ahead[1].x + ahead[1].length + 1)

    def _release(self, slot: Slot) -> None:
        slot.active, slot.wait = False, int(self.rng.integers(NEXT_WAIT[0], NEXT_WAIT[1] + 1))

    def _end_drag(self, slot: Slot) -> None:
        self._release(slot)
        self.drag, self.drag_left = None, 0
        self.vx = self.vy = 0.0

    def _be_dragged(self, slot: Slot) -> None:
        """The vehicle that was hit pushes the player back for a few steps, then is gone."""
        speed = self._speed(slot)
        x = slot.x - speed
        in_front = x - PLAYER_LENGTH + 1
        if self.x - speed < 0 or in_front < 0:
            self._end_drag(slot)
            return
        slot.x = self._kept_behind(slot, x)
        self.drag_left -= 1
        self.x = min(self.x - speed, in_front)
        if slot.x + slot.length < 0 or self.drag_left <= 0:
            self._end_drag(slot)

    def _move_traffic(self) -> float:
        """Moves and fills the slots in order; returns the reward of a crash."""
        reward = 0.0
        limit = int(1 + 3 * self.steps / (self.LENGTH - 1) + 1e-9)
        # Only slots before the current one are counted, so there can be more vehicles than the limit.
        count = 0
        player = (self.x, self.y, PLAYER_LENGTH, PLAYER_HEIGHT)
        for slot in self.slots:
            if not slot.active:
                slot.wait = max(0, slot.wait - 1)
                if slot.wait == 0 and count < limit:
                    if self._spawn(slot):
                        count += 1
                    else:
                        slot.wait = 1
                continue
            count += 1
            if slot is self.drag:
                continue
            slot.x = self._kept_behind(slot, slot.x - self._speed(slot))
            box = (slot.x, slot.top, slot.length, PLAYER_HEIGHT)
            if self.drag is None and overlap(box, player):
                self.drag, self.drag_left, self.crashed_at = slot, DRAG_STEPS, self.steps + 1
                reward = CRASH_REWARD
            elif slot.x + slot.length < 0:
                self._release(slot)
        return reward

    def _spawn(self, slot: Slot, x: float | None = None) -> bool:
        """Tries to put a vehicle behind the right edge; fails where others are too near."""
        kind = KIND_NAMES[int(self.rng.integers(len(KIND_NAMES)))]
        length = KINDS[kind][0]
        for _ in range(SPAWN_TRIES):
            lane = int(self.rng.integers(LANES))
            left = 224 + self.rng.uniform(20, 60) if x is None else x
            others = [other for other in self.slots if other.active and other.lane == lane]
            if all(abs(other.x - left) >= max(other.length, length) + SPAWN_GAP for other in others):
                slot.active, slot.kind, slot.lane, slot.x, slot.wait = True, kind, lane, left, 0
                return True
        return False


def _clearance(gap: float | None) -> float:
    return -1.0 if gap is None else clip(gap / 224, 0, 1)


def _draw_vehicle(
    canvas: Canvas, x: float, y: float, length: int, color: tuple[int, int, int], rim: tuple[int, int, int]
) -> None:
    canvas.rect(x, y, length, PLAYER_HEIGHT, color)
    canvas.rect(x, y, length, PLAYER_HEIGHT, rim, outline=2)
    for share in (0.22, 0.78):
        for wheel_y in (y + 2, y + PLAYER_HEIGHT - 2):
            canvas.disc(x + share * length, wheel_y, 2, (20, 20, 20))
