"""What the lander's world looks like: a dark sky over pale ground, coloured anew in every episode."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import Box2D
import numpy as np
import numpy.typing as npt

from services.sim.domains.box2d.drawing import Canvas, Color, Point, color, shifts
from services.sim.domains.box2d.episode import GROUND, advance
from services.sim.domains.box2d.lander import PAD_HEIGHT, WIDTH, Puff, add_ground
from services.sim.domains.frames import resize

_PIXELS = 400  # Drawn at this size, then resized.
_PIXELS_PER_METRE = 30

_SURFACE, _SKY, _FLAG, _CRAFT = (230, 215, 220), (20, 10, 15), (204, 204, 0), (128, 102, 230)
_OUTLINE: Color = (77, 77, 128)
_GOAL_RADIUS = 1.0
_GOAL_OPACITY = 104

_PUFF_RADIUS = 0.1
_MAIN_PUFF, _SIDE_PUFF = (
    Box2D.b2FixtureDef(
        shape=Box2D.b2CircleShape(radius=_PUFF_RADIUS),
        density=density,
        friction=0.1,
        restitution=0.3,
        categoryBits=0x0100,
        maskBits=GROUND,
    )
    for density in (3.5, 0.7)
)
_FADING = 0.15  # Life lost per agent step.


class LanderPicture:
    """Draws one episode.

    Args:
        surface: Corners of the ground, metres.
        goal: Place to hover, or None if the goal is the pad.
        seed: The episode's; decides the colours.
    """

    def __init__(self, surface: list[Point], goal: Point | None, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])  # Not the episode's own: looks and physics are independent.
        self._surface_color = color(_SURFACE, shifts(rng, 15, 10))
        self._sky = color(_SKY, shifts(rng, 10, 5))
        self._flag = color(_FLAG, shifts(rng, 15, 5))
        self._craft = color(_CRAFT, shifts(rng, 10, 5))
        self._surface, self._goal = surface, goal

    def draw(
        self, hull: Any, legs: Sequence[Any], puffs: Sequence[Puff], steps: int, agent_steps: int
    ) -> npt.NDArray[np.uint8]:
        """uint8[224, 224, 3].

        Args:
            hull: Body of the simulation.
            legs: Likewise.
            puffs: The latest firings, oldest first.
            steps: Physics steps taken.
            agent_steps: Agent steps taken.
        """
        canvas = Canvas(_PIXELS, _PIXELS_PER_METRE, self._surface_color)
        for left, right in pairwise(self._surface):
            canvas.polygon([left, right, (right[0], WIDTH), (left[0], WIDTH)], self._sky)
        for center, life in self._exhaust(puffs, steps, agent_steps):
            red, rest = max(0.2, 0.15 + life), max(0.2, 0.5 * life)
            canvas.disc(center, _PUFF_RADIUS, color([255 * red, 255 * rest, 255 * rest]))
        for part in (hull, *legs):
            canvas.body(part, self._craft, _OUTLINE)
        if self._goal is None:
            for post in (len(self._surface) // 2 - 1, len(self._surface) // 2 + 1):
                self._draw_flag(canvas, self._surface[post][0])
        else:
            canvas.disc(self._goal, _GOAL_RADIUS, self._flag, _GOAL_OPACITY)
        return resize(canvas.pixels())

    def _draw_flag(self, canvas: Canvas, x: float) -> None:
        pixel = 1 / _PIXELS_PER_METRE
        canvas.rectangle(x, PAD_HEIGHT, 2 * pixel, 50 * pixel, self._surface_color)
        pennant = [(0, 50), (0, 40), (25, 45)]
        canvas.polygon([(x + px * pixel, PAD_HEIGHT + py * pixel) for px, py in pennant], self._flag)

    def _exhaust(self, puffs: Sequence[Puff], steps: int, agent_steps: int) -> list[tuple[Point, float]]:
        """Where the gas of the latest firings is, and how much life it has left.

        Its flight is simulated here, from the firings on and in a world of its own: it costs nothing where no
        pictures are drawn, and the craft's flight does not depend on it.
        """
        lives = [puff.life - _FADING * (agent_steps - puff.agent_step) for puff in puffs]
        alive = [(puff, life) for puff, life in zip(puffs, lives, strict=True) if life >= 0]
        if not alive:
            return []
        world = Box2D.b2World(gravity=(0, -10))
        add_ground(world, self._surface)
        bodies: list[Any] = []
        for step in range(alive[0][0].step, steps):
            for puff, _ in alive[len(bodies) :]:
                if puff.step == step:
                    bodies.append(_release(world, puff))
            advance(world)
        return [(tuple(body.position), life) for body, (_, life) in zip(bodies, alive, strict=True)]


def _release(world: Any, puff: Puff) -> Any:
    body = world.CreateDynamicBody(position=puff.position, fixtures=_MAIN_PUFF if puff.main else _SIDE_PUFF)
    body.ApplyLinearImpulse(puff.impulse, puff.position, True)
    return body
