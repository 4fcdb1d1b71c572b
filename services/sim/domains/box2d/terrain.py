"""The ground that the walkers walk on: 200 columns, drawn anew each episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

COLUMNS = 200
SPACING = 14 / 30
"""Width of a column, metres."""

LEVEL = 400 / 30 / 4
"""Height of flat ground, metres."""

START_COLUMN = 10
"""Above which the walker starts."""

PIXELS_PER_METRE = 15
"""Scale of the pictures; heights are perturbed in pixels."""

_LAST_FLAT_COLUMN = 20
_HIGHEST = 5.5

Polygon = list[tuple[float, float]]


@dataclass(frozen=True)
class Terrain:
    """The ground of one episode.

    Attributes:
        heights: Heights of the surface at x = 0, SPACING, 2 SPACING, ..., metres; straight lines in between.
        boxes: Corners of solid obstacles, left to right.
    """

    heights: list[float]
    boxes: list[Polygon] = field(default_factory=list)

    def points(self) -> Polygon:
        """The corners of the surface."""
        return [(column * SPACING, height) for column, height in enumerate(self.heights)]


@dataclass(frozen=True)
class _Grass:
    """A random walk that is pulled back to the level.

    Attributes:
        damping: Damping of the slope, per column.
        pull: Towards the level, metres per column and column.
        noise: Largest random change of the slope, pixels.
        lowest: Metres.
    """

    damping: float
    pull: float
    noise: float
    lowest: float = 1.0

    def grow(self, heights: list[float], slope: float, count: int, rng: np.random.Generator) -> float:
        """Appends `count` heights; returns the last slope."""
        height = heights[-1] if heights else LEVEL
        for _ in range(count):
            slope = self.damping * slope + self.pull * float(np.sign(LEVEL - height))
            if len(heights) > _LAST_FLAT_COLUMN:
                slope += self.noise * rng.uniform(-1, 1) / PIXELS_PER_METRE
            height = min(max(height + slope, self.lowest), _HIGHEST)
            heights.append(height)
        return slope


def _flat(rng: np.random.Generator) -> Terrain:
    return Terrain([LEVEL] * COLUMNS)


def _rough(grass: _Grass, rng: np.random.Generator) -> Terrain:
    heights: list[float] = []
    grass.grow(heights, 0.0, COLUMNS, rng)
    return Terrain(heights)


def _hills(rng: np.random.Generator) -> Terrain:
    """A sine wave below the level: the walker starts with a drop."""
    base, amplitude, wavelength = LEVEL + rng.uniform(-1, -0.8), rng.uniform(0.4, 0.8), rng.uniform(7, 14)
    x = np.arange(COLUMNS) * SPACING
    return Terrain(np.clip(base + amplitude * np.sin(2 * np.pi * x / wavelength), 1.0, _HIGHEST).tolist())


def _obstacles(rng: np.random.Generator) -> Terrain:
    """Stumps to climb and pits to cross, with grass in between."""
    grass = _Grass(damping=0.8, pull=0.01, noise=1.0, lowest=1.5)
    heights: list[float] = []
    boxes: list[Polygon] = []
    slope = grass.grow(heights, 0.0, _LAST_FLAT_COLUMN, rng)
    while len(heights) < COLUMNS:
        x, y, width = len(heights) * SPACING, heights[-1], int(rng.integers(2, 4))
        if rng.random() < 0.5:
            boxes.append(_box(x, y, width * SPACING, 0.75 * width * SPACING))
            heights += [y] * width
        else:
            depth = 3 * SPACING
            boxes.append(_box(x, y - depth, SPACING, depth))
            boxes.append(_box(x + width * SPACING, y - depth, SPACING, depth))
            heights += [y, *[y - depth] * width, y]
        heights.append(y)
        slope = grass.grow(heights, slope, int(rng.integers(5, 10)) - 1, rng)
    return Terrain(heights[:COLUMNS], boxes)


def _box(left: float, bottom: float, width: float, height: float) -> Polygon:
    right, top = left + width, bottom + height
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


GENERATORS: Mapping[str, Callable[[np.random.Generator], Terrain]] = MappingProxyType(
    {
        "flat": _flat,
        "uneven": lambda rng: _rough(_Grass(damping=0.8, pull=0.011, noise=1.0), rng),
        "rugged": lambda rng: _rough(_Grass(damping=0.75, pull=0.015, noise=2.25), rng),
        "hills": _hills,
        "obstacles": _obstacles,
    }
)
"""From the name of a terrain and the episode's generator to the ground."""
