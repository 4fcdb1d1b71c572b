"""Landing: set a helicopter down softly on a ship that moves, and stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import ALL_WAYS, Game, clip, overlap

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

WIDTH, HEIGHT = 28, 18  # Of the helicopter.
THRUST, GRAVITY, DAMPING = 0.6, 0.20, 0.96
START = (12, 36)

DECK_WIDTH, DECK_HEIGHT, DECK_Y = 70, 12, 189
DECK_TOP, DECK_BOTTOM = DECK_Y - DECK_HEIGHT // 2, DECK_Y + DECK_HEIGHT // 2
SHIP_START, SHIP_RANGE = 74, (35, 189)
SHIP_SPEED, SHIP_SPREAD = 1.4, 0.3
WATER = 179

CONTACT_MARGIN, CONTACT_HEIGHTS = 4, (180, 186)
LOCK_SPEED = 0.20  # Slower than this, relative to the deck, the helicopter sticks to it.
CONTACT_REWARD, CENTER_REWARD = 0.1, 0.9
TOUCHDOWN_COST, TOUCHDOWN_MOST = 2, 10
DESCENT_COST, BELOW_COST = 0.001, 0.5
NEAR_X_REWARD, NEAR_Y_REWARD = 0.025, 0.1
FULL_SCORE = 200

_STARS = 1


class Landing(Game):
    """Pays for being near the deck, far more for standing on its middle; hitting it hard costs up to 10.

    Observation: helicopter's left and top edge (/224), its speed (/10), the deck's centre (/224), the ship's speed
    (/5).
    """

    OBS_DIM: ClassVar[int] = 7
    ACTION_DIM: ClassVar[int] = 2
    LENGTH: ClassVar[int] = 200
    KEYS = ALL_WAYS

    x: float
    y: float
    vx: float
    vy: float

    def start(self) -> None:
        """In the upper left, the ship somewhere below and going either way."""
        rng = self.rng
        self.x, self.y = rng.uniform(*START, 2).tolist()
        self.vx, self.vy = rng.uniform(-0.3, 0.3, 2).tolist()
        self.ship_x = float(SHIP_START)
        self.direction = self.coin()
        self.ship_speed = SHIP_SPEED + rng.uniform(-SHIP_SPREAD, SHIP_SPREAD)
        self.contact = self.locked = False

    def advance(self, action: list[float]) -> float:
        """Helicopter, ship, collision, contact, rewards: in this order."""
        self.vx += THRUST * action[0]
        self.vy += THRUST * action[1] + GRAVITY
        self.x = clip(self.x + self.vx, 0, 224 - WIDTH)
        self.y = clip(self.y + self.vy, 0, 224 - HEIGHT)
        self.vx *= DAMPING
        self.vy *= DAMPING
        self._move_ship()
        falling = self.vy
        deck_x = int(self.ship_x - DECK_WIDTH / 2)
        self._collide(deck_x)
        left, top = int(self.x), int(self.y)
        had_contact = self.contact
        over_deck = left + WIDTH > deck_x + CONTACT_MARGIN and left < deck_x + DECK_WIDTH - CONTACT_MARGIN
        self.contact = over_deck and CONTACT_HEIGHTS[0] <= top + HEIGHT <= CONTACT_HEIGHTS[1]
        self._stick()
        beside = clip(abs(left + WIDTH // 2 - (deck_x + DECK_WIDTH // 2)) / (DECK_WIDTH / 2), 0, 1)
        center_y = top + HEIGHT // 2
        reward = 0.0
        if self.contact:
            reward += CONTACT_REWARD + CENTER_REWARD * (1 - beside)
            if not had_contact:
                reward -= min(TOUCHDOWN_MOST, TOUCHDOWN_COST * max(0.0, falling))
        reward -= DESCENT_COST * max(0.0, self.vy)
        if center_y > DECK_TOP:
            return reward - BELOW_COST
        return reward + NEAR_X_REWARD * (1 - beside) + NEAR_Y_REWARD * (1 - abs(center_y - DECK_Y) / 224)

    def observe(self) -> list[float]:
        """See the class."""
        place = [self.x / 224, self.y / 224, self.vx / 10, self.vy / 10]
        return [*place, self.ship_x / 224, DECK_Y / 224, self.direction * self.ship_speed / 5]

    def score(self) -> float:
        """Return, of two hundred; standing on the middle of the deck pays 1.1 per step."""
        return self.total / FULL_SCORE

    def expert(self) -> list[float]:
        """Flies over the deck at its speed, comes down slower the nearer it is."""
        deck_speed = self.direction * self.ship_speed
        offset = self.ship_x - (self.x + WIDTH / 2)
        height = DECK_TOP - HEIGHT - self.y
        # Turning the ship's way ahead of time is not worth it: it turns twice an episode.
        vx = clip(0.12 * offset, -5, 5) + deck_speed
        vy = clip(0.08 * height, 0.15, 5) if abs(offset) < 25 or height > 45 else clip(0.1 * (height - 30), -3, 3)
        return [(1.05 * vx - self.vx) / THRUST, (1.04 * vy - self.vy - GRAVITY) / THRUST]

    def draw(self, canvas: Canvas) -> None:
        """Sea, ship and helicopter; greenish while it stands on the deck."""
        canvas.fill((150, 190, 255))
        stars = self.decoration(_STARS)
        for x, y in zip(stars.uniform(0, 224, 40).tolist(), stars.uniform(0, WATER - 2, 40).tolist(), strict=True):
            canvas.disc(x, y, 1, (240, 240, 255))
        canvas.rect(0, WATER, 224, 224 - WATER, (50, 120, 200))
        self._draw_ship(canvas)
        self._draw_helicopter(canvas)
        if self.contact:
            canvas.fill((80, 220, 120, 40))

    def _move_ship(self) -> None:
        self.ship_x += self.direction * self.ship_speed
        if self.ship_x <= SHIP_RANGE[0]:
            self.ship_x, self.direction = float(SHIP_RANGE[0]), 1
        elif self.ship_x >= SHIP_RANGE[1]:
            self.ship_x, self.direction = float(SHIP_RANGE[1]), -1

    def _collide(self, deck_x: int) -> None:
        """Pushes the helicopter out of the deck, the shorter way."""
        if not overlap((self.x, self.y, WIDTH, HEIGHT), (deck_x, DECK_TOP, DECK_WIDTH, DECK_HEIGHT)):
            return
        left, top = int(self.x), int(self.y)
        into_x = min(left + WIDTH - deck_x, deck_x + DECK_WIDTH - left)
        into_y = min(top + HEIGHT - DECK_TOP, DECK_BOTTOM - top)
        if into_y <= into_x:
            if top + HEIGHT // 2 < DECK_Y:
                self.y, self.vy = float(DECK_TOP - HEIGHT), min(0.0, self.vy)
                self.vx *= 0.90
            else:
                self.y, self.vy = float(DECK_BOTTOM), max(0.0, self.vy)
        elif left + WIDTH // 2 < deck_x + DECK_WIDTH // 2:
            self.x, self.vx = float(deck_x - WIDTH), min(0.0, self.vx)
        else:
            self.x, self.vx = float(deck_x + DECK_WIDTH), max(0.0, self.vx)

    def _stick(self) -> None:
        """The deck drags what touches it along, and holds what is slow enough until contact is lost."""
        deck_speed = self.direction * self.ship_speed
        if not self.contact:
            self.locked = False
            return
        self.vx = 0.7 * self.vx + 0.3 * deck_speed
        if abs(self.vy) < LOCK_SPEED and abs(self.vx - deck_speed) < LOCK_SPEED:
            self.locked = True
        if self.locked:
            self.vx, self.vy, self.y = deck_speed, min(0.0, self.vy), float(DECK_TOP - HEIGHT)

    def _draw_ship(self, canvas: Canvas) -> None:
        left, right = self.ship_x - DECK_WIDTH / 2, self.ship_x + DECK_WIDTH / 2
        hull = [(left, DECK_BOTTOM), (right, DECK_BOTTOM), (right - 10, 211), (left + 10, 211)]
        canvas.polygon(hull, (120, 120, 140))
        canvas.polygon(hull, (80, 80, 100), outline=1)
        bow, ahead = (right, 1) if self.direction > 0 else (left, -1)
        canvas.polygon([(bow, DECK_TOP), (bow + 10 * ahead, DECK_Y), (bow, DECK_BOTTOM)], (255, 255, 255))
        canvas.rect(left, DECK_TOP, DECK_WIDTH, DECK_HEIGHT, (240, 240, 240))
        canvas.rect(left, DECK_TOP, DECK_WIDTH, DECK_HEIGHT, (180, 180, 180), outline=1)
        canvas.line((left + 4, DECK_Y), (right - 5, DECK_Y), (180, 180, 180))
        cabin = left + 6 if self.direction > 0 else right - 6 - 18
        canvas.rect(cabin, DECK_TOP - 12, 18, 12, (230, 230, 235))
        for window in range(3):
            canvas.rect(cabin + 2 + 5 * window, DECK_TOP - 9, 4, 5, (180, 210, 240))
        canvas.line((self.ship_x, DECK_TOP), (self.ship_x, DECK_TOP - 10), (70, 70, 70))
        top = DECK_TOP - 10
        canvas.polygon([(self.ship_x, top), (self.ship_x + 8, top + 3), (self.ship_x, top + 6)], (220, 40, 40))

    def _draw_helicopter(self, canvas: Canvas) -> None:
        x, y, right = self.x, self.y, self.x + WIDTH
        rim, dark = (90, 120, 180), (60, 60, 70)
        canvas.line((x - 8, y + 9), (x, y + 9), rim, 3)
        canvas.line((x - 8, y + 5), (x - 8, y + 12), dark, 2)
        body = [(x, y + 9), (right - 6, y + 1), (right, y + 9), (right - 6, y + 15)]
        canvas.polygon(body, (180, 200, 220))
        canvas.polygon(body, rim, outline=1)
        canvas.line((x + 4, y + 17), (right - 2, y + 17), dark, 2)
        for leg in (x + 9, right - 8):
            canvas.line((leg, y + 13), (leg, y + 17), dark)
        canvas.line((x + 14, y - 3), (x + 14, y + 4), dark, 2)
        canvas.rect(x - 2, y - 4, 32, 2, dark)
