"""A canvas in metres, with y upwards, and random colours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pygame
from pygame import gfxdraw

Color = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """A square picture of a piece of the world. Drawing is done in memory: no display, no driver.

    Args:
        pixels: Height and width of the picture.
        scale: Pixels per metre.
        background: Colour of what is not drawn over.
    """

    def __init__(self, pixels: int, scale: float, background: Color) -> None:
        # Not 24 bits per pixel: smooth lines then mix in what they read beyond the pixel.
        self._surface = pygame.Surface((pixels, pixels), depth=32)
        self._surface.fill(background)
        self._pixels, self._scale = pixels, scale
        self.left = 0.0
        """World coordinate of the left edge, metres; the lower edge is at 0."""

    def polygon(self, corners: Iterable[Point], fill: Color, outline: Color | None = None) -> None:
        """A filled polygon with a smooth edge; `outline` is the colour of a second, one pixel wide edge."""
        points = [self._to_pixels(corner) for corner in corners]
        pygame.draw.polygon(self._surface, fill, points)
        gfxdraw.aapolygon(self._surface, points, fill)
        if outline is not None:
            pygame.draw.polygon(self._surface, outline, points, width=1)
            gfxdraw.aapolygon(self._surface, points, outline)

    def body(self, body: Any, fill: Color, outline: Color) -> None:
        """A rigid body made of polygons, where it is now."""
        for fixture in body.fixtures:
            self.polygon([body.transform * vertex for vertex in fixture.shape.vertices], fill, outline)

    def line(self, start: Point, end: Point, color: Color, smooth: bool = False) -> None:
        """One pixel wide."""
        draw = pygame.draw.aaline if smooth else pygame.draw.line
        draw(self._surface, color, self._to_pixels(start), self._to_pixels(end))

    def disc(self, center: Point, radius: float, color: Color, opacity: int = 255) -> None:
        """A filled disc; its opacity goes from 0 to 255."""
        x, y = self._to_pixels(center)
        gfxdraw.filled_circle(self._surface, int(x), int(y), int(radius * self._scale), (*color, opacity))

    def rectangle(self, left: float, bottom: float, width: float, height: float, color: Color) -> None:
        """With sides along the axes."""
        x, y = self._to_pixels((left, bottom + height))
        pygame.draw.rect(self._surface, color, pygame.Rect(x, y, width * self._scale, height * self._scale))

    def pixels(self) -> npt.NDArray[np.uint8]:
        """uint8[pixels, pixels, 3], top row first."""
        columns = pygame.surfarray.array3d(self._surface)
        return np.ascontiguousarray(columns.transpose(1, 0, 2))

    def _to_pixels(self, point: Point) -> Point:
        # Far off the picture is as good as very far, which the drawing functions cannot represent.
        x, y = (point[0] - self.left) * self._scale, self._pixels - point[1] * self._scale
        return min(max(x, -10_000.0), 10_000.0), min(max(y, -10_000.0), 10_000.0)


def shifts(rng: np.random.Generator, common: int, each: int) -> npt.NDArray[np.int64]:
    """int64[3], a random change of a colour: the same in [-common, common) plus one per channel in [-each, each)."""
    return rng.integers(-common, common) + rng.integers(-each, each, 3)


def color(base: npt.ArrayLike, change: npt.ArrayLike = 0) -> Color:
    """The colour of these channels, limited to 0..255."""
    return cast(Color, tuple(np.clip(np.add(base, change), 0, 255).astype(int).tolist()))
