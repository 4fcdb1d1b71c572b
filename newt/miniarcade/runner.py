"""What the two running games share: somebody at a fixed place who can jump while the ground moves along below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from newt.miniarcade.base import Keys

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

GROUND = 184
LEFT, WIDTH, HEIGHT = 40, 18, 30
RESTING_TOP = GROUND - HEIGHT
GRAVITY, IMPULSE = 1, 12
SCROLL = 10
JUMP: Keys = {"up": (1,), "space": (1,), "down": (0.6,)}

BLACK = (0, 0, 0)


class Runner:
    """Top edge and vertical speed, positive when falling."""

    def __init__(self) -> None:
        self.y, self.speed = float(RESTING_TOP), 0.0

    @property
    def grounded(self) -> bool:
        """Whether a jump is possible."""
        return self.y >= RESTING_TOP - 0.001

    @property
    def box(self) -> tuple[float, float, int, int]:
        """Left, top, width, height."""
        return (LEFT, self.y, WIDTH, HEIGHT)

    def advance(self, jump: float) -> None:
        """One step; a jump of this strength if it is positive and the runner stands.

        Coming down exactly onto the ground keeps the speed for one more step, as in the original games.
        """
        if jump > 0 and self.grounded:
            self.speed = -IMPULSE * jump
        self.speed += GRAVITY
        self.y += self.speed
        if self.y > RESTING_TOP:
            self.y, self.speed = float(RESTING_TOP), 0.0

    def observe(self) -> list[float]:
        """Height above the ground (negative is up, /224) and speed (/10)."""
        return [(self.y - RESTING_TOP) / 224, self.speed / 10]


def draw_limbs(canvas: Canvas, y: float, hands: tuple[int, int, int], feet: tuple[int, int], shoulder: int) -> None:
    """Black arms and legs of a figure whose top is y.

    Args:
        canvas: Canvas to draw on.
        y: Top of the figure.
        hands: x of both hands, and how far below the top they are.
        feet: x of both feet.
        shoulder: Arms and legs begin this far to either side of the figure's middle, x = 49.
    """
    for side, hand, foot in ((-1, hands[0], feet[0]), (1, hands[1], feet[1])):
        canvas.line((49 + 3 * side, y + 12), (hand, y + hands[2]), BLACK, 2)
        canvas.line((49 + shoulder * side, y + 25), (foot, y + 35), BLACK, 2)
