"""What the walker's world looks like: sky and ground have another colour in every episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from services.sim.domains.base import FRAME_SIZE
from services.sim.domains.box2d.drawing import Canvas, Color, Point, color, shifts
from services.sim.domains.box2d.terrain import COLUMNS, PIXELS_PER_METRE, SPACING, Terrain

_WIDTH = FRAME_SIZE / PIXELS_PER_METRE  # Of the window, metres.
_HULL_AT = _WIDTH / 5  # Metres from the left edge.

_BLACK: Color = (0, 0, 0)
_SKY = (215, 215, 252)
_CLOUD = (247, 247, 247)
_CLOUD_EDGE: Color = (255, 255, 255)
_RAY: Color = (255, 0, 0)
_OBSTACLE: tuple[Color, Color] = ((255, 255, 255), (153, 153, 153))
_LEGS: tuple[tuple[Color, Color], ...] = (((178, 101, 152), (127, 76, 101)), ((128, 51, 102), (77, 26, 51)))
_HULL: tuple[Color, Color] = ((127, 51, 229), (76, 76, 127))
_GROUNDS = (
    (102, 153, 76),
    (94, 163, 60),
    (80, 120, 58),
    (119, 125, 58),
    (181, 149, 101),
    (194, 160, 134),
    (181, 130, 91),
    (122, 176, 114),
    (128, 191, 128),
    (143, 194, 143),
    (155, 166, 123),
    (125, 87, 57),
    (133, 111, 94),
    (145, 120, 120),
    (184, 165, 128),
    (200, 180, 150),
    (96, 158, 102),
)


class WalkerPicture:
    """Draws one episode.

    Args:
        terrain: The ground.
        seed: The episode's; decides the colours and the clouds.
    """

    def __init__(self, terrain: Terrain, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])  # Not the episode's own: looks and physics are independent.
        change = shifts(rng, 7, 7)
        self._sky = color(_SKY, change)
        self._cloud = color(_CLOUD, shifts(rng, 4, 4) + np.trunc(change / 2))
        self._clouds = [_cloud(rng) for _ in range(COLUMNS // 20)]
        self._points = terrain.points()
        start = np.array(_GROUNDS[rng.integers(len(_GROUNDS))])
        darkening = np.cumsum(rng.integers(-1, 1, (COLUMNS, 3)), axis=0)
        self._ground = [color(start, np.maximum(channels - darkening[0], -15)) for channels in darkening]
        self._grass = [(max(r - 20, 0), int(rng.integers(g, 255)), b) for r, g, b in self._ground]

    def draw(
        self,
        hull: Any,
        legs: Sequence[Any],
        obstacles: Sequence[Any],
        ray: tuple[Point, Point] | None,
    ) -> npt.NDArray[np.uint8]:
        """uint8[224, 224, 3]; the parts are bodies of the simulation."""
        scroll = hull.position.x - _HULL_AT
        canvas = Canvas(FRAME_SIZE, PIXELS_PER_METRE, _BLACK)
        # Left of the world's end the picture stands still, and the strip that it does not reach stays black.
        canvas.left = max(scroll, 0.0)
        canvas.rectangle(scroll, 0, _WIDTH, _WIDTH, self._sky)
        for cloud in self._clouds:
            # Far away: they move half as fast.
            corners = [(x - scroll / 2 + canvas.left, y) for x, y in cloud]
            if any(canvas.left <= x <= canvas.left + _WIDTH for x, _ in corners):
                canvas.polygon(corners, self._cloud, _CLOUD_EDGE)
        # One more on either side, which shows in part.
        first = min(max(int(canvas.left / SPACING) - 1, 0), COLUMNS - 1)
        last = min(max(int((scroll + _WIDTH) / SPACING) + 2, 0), COLUMNS - 1)
        for column in range(first, last):
            (x1, y1), (x2, y2) = self._points[column : column + 2]
            canvas.polygon([(x1, y1), (x2, y2), (x2, 0), (x1, 0)], self._ground[column])
        if ray is not None:
            canvas.line(*ray, _RAY)
        for column in range(first, last):
            start, end = self._points[column : column + 2]
            canvas.line(start, end, self._grass[column], smooth=True)
        for obstacle in obstacles:
            canvas.body(obstacle, *_OBSTACLE)
        for index, leg in enumerate(legs):
            canvas.body(leg, *_LEGS[index // 2])
        canvas.body(hull, *_HULL)
        return canvas.pixels()


def _cloud(rng: np.random.Generator) -> list[Point]:
    """A pentagon, about 14 m wide and 5 m high."""
    x, y = rng.uniform(0, COLUMNS) * SPACING, 0.75 * _WIDTH
    angles = 2 * np.pi / 5 * np.arange(5)
    noise = rng.uniform(0, 5 * SPACING, (5, 2))
    corners = np.stack([x + 15 * SPACING * np.sin(angles), y + 5 * SPACING * np.cos(angles)], axis=1) + noise
    return [(float(px), float(py)) for px, py in corners]
