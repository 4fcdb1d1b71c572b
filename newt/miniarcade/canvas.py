"""Drawing without a screen. The only module besides `play` that imports pygame."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # Its greeting would go to the output of whoever draws.
import pygame

from newt.miniarcade.base import mixed

Color = Sequence[int]
"""Red, green, blue and, optionally, opacity: 0..255."""
Point = Sequence[float]

_OPAQUE = 255


class Canvas:
    """A square picture. Coordinates are truncated to whole pixels; nothing is smoothed but text.

    Every shape takes a colour with an optional fourth number, its opacity.

    Args:
        size: Height and width, pixels.

    Attributes:
        surface: What was drawn.
    """

    def __init__(self, size: int) -> None:
        self.surface = pygame.Surface((size, size), depth=32)
        # See-through shapes are drawn here first; clear wherever nothing is being drawn.
        self._layer = pygame.Surface((size, size), pygame.SRCALPHA)

    def pixels(self) -> npt.NDArray[np.uint8]:
        """A copy of the picture, uint8[H, W, 3]."""
        columns: npt.NDArray[np.uint8] = pygame.surfarray.array3d(self.surface)
        return np.ascontiguousarray(columns.transpose(1, 0, 2))

    def fill(self, color: Color) -> None:
        """The whole picture; a see-through colour tints it."""
        self.rect(0, 0, *self.surface.get_size(), color)

    def rect(self, x: float, y: float, w: float, h: float, color: Color, outline: int = 0, corner: int = 0) -> None:
        """A rectangle; filled unless an outline's width is given. `corner` rounds its corners."""
        box = pygame.Rect(int(x), int(y), int(w), int(h))
        self._draw(color, lambda surface, ink: pygame.draw.rect(surface, ink, box, outline, corner))

    def disc(self, x: float, y: float, radius: float, color: Color, outline: int = 0) -> None:
        """A disc, or a ring of an outline's width inside the radius."""
        center = (int(x), int(y))
        self._draw(color, lambda surface, ink: pygame.draw.circle(surface, ink, center, int(radius), outline))

    def ellipse(self, x: float, y: float, w: float, h: float, color: Color, outline: int = 0) -> None:
        """The ellipse that fills a box."""
        box = pygame.Rect(int(x), int(y), max(1, int(w)), max(1, int(h)))
        self._draw(color, lambda surface, ink: pygame.draw.ellipse(surface, ink, box, outline))

    def arc(self, x: float, y: float, w: float, h: float, start: float, stop: float, color: Color, width: int) -> None:
        """Part of the ellipse in a box, from one angle to another: radians, counter-clockwise from the right."""
        box = pygame.Rect(int(x), int(y), int(w), int(h))
        self._draw(color, lambda surface, ink: pygame.draw.arc(surface, ink, box, start, stop, width))

    def line(self, a: Point, b: Point, color: Color, width: int = 1) -> None:
        """From one point to another."""
        ends = _whole(a), _whole(b)
        self._draw(color, lambda surface, ink: pygame.draw.line(surface, ink, *ends, width))

    def path(self, points: Sequence[Point], color: Color, width: int = 1) -> None:
        """Lines from point to point."""
        corners = [_whole(point) for point in points]
        self._draw(color, lambda surface, ink: pygame.draw.lines(surface, ink, False, corners, width))

    def polygon(self, points: Sequence[Point], color: Color, outline: int = 0) -> None:
        """A closed shape; filled unless an outline's width is given."""
        corners = [_whole(point) for point in points]
        self._draw(color, lambda surface, ink: pygame.draw.polygon(surface, ink, corners, outline))

    def gradient(self, x: int, y: int, w: int, h: int, top: Color, bottom: Color, opacity: int = _OPAQUE) -> None:
        """A rectangle that changes from one colour at its top to another at its bottom."""
        band = pygame.Surface((1, h))
        for row in range(h):
            share = row / max(1, h - 1)
            band.set_at((0, row), mixed(top, bottom, share))
        band.set_alpha(opacity)
        self.surface.blit(pygame.transform.scale(band, (w, h)), (x, y))

    def glow(self, x: float, y: float, radius: int, color: Color, falloff: float) -> None:
        """A disc of light that fades outward: opacity x (1 - r/radius)^falloff."""
        light = pygame.Surface((2 * radius, 2 * radius), pygame.SRCALPHA)
        for r in range(radius, 0, -2):
            light_color = (*color[:3], int(color[3] * (1 - r / radius) ** falloff))
            pygame.draw.circle(light, light_color, (radius, radius), r)
        self.surface.blit(light, (int(x) - radius, int(y) - radius))

    def text(
        self,
        words: str,
        x: float,
        y: float,
        size: int,
        color: Color,
        align: Literal["left", "center", "right"] = "left",
        outline: Color | None = None,
    ) -> int:
        """Bold text whose top is y.

        Args:
            words: What to write.
            x: Its left edge, middle or right edge, as `align` says.
            y: Top, pixels.
            size: Size of the font.
            color: Color of the letters.
            align: Meaning of x.
            outline: Colour of a rim of one pixel, if any.

        Returns:
            The width in pixels.
        """
        font = _font(size)
        image = font.render(words, True, tuple(color[:3]))
        left = int(x) - {"left": 0, "center": image.get_width() // 2, "right": image.get_width()}[align]
        if outline is not None:
            rim = font.render(words, True, tuple(outline[:3]))
            for dx, dy in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
                self.surface.blit(rim, (left + dx, int(y) + dy))
        if len(color) == 4:
            image.set_alpha(color[3])
        self.surface.blit(image, (left, int(y)))
        return image.get_width()

    def shift(self, dx: int, dy: int, color: Color) -> None:
        """Moves the whole picture; what it uncovers gets a colour."""
        before = self.surface.copy()
        self.fill(color)
        self.surface.blit(before, (dx, dy))

    def _draw(self, color: Color, shape: Callable[[pygame.Surface, Color], pygame.Rect]) -> None:
        if len(color) < 4 or color[3] >= _OPAQUE:
            shape(self.surface, color[:3])
        elif color[3] > 0:
            touched = shape(self._layer, color)
            self.surface.blit(self._layer, touched, touched)
            self._layer.fill((0, 0, 0, 0), touched)


def _whole(point: Point) -> tuple[int, int]:
    return int(point[0]), int(point[1])


@cache
def _font(size: int) -> pygame.font.Font:
    pygame.font.init()
    return pygame.font.Font(None, size)  # The bold sans-serif that comes with pygame: the same on every machine.
