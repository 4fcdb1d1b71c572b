"""The mazes of the OGBench tasks: walls, and where an episode may start and end.

A maze is a grid of cells of 4 x 4 m. Cell (i, j) is row i (along y) and column j (along x); see `Maze.centre`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

CELL_SIZE = 4.0
"""Edge of a cell, metres."""

Cell = tuple[int, int]

# Row 0 first: that is the lowest row of the picture, where y points up. "#" is a wall.
_WALLS = {
    "arena": "######## #......# #......# #......# #......# #......# #......# ########",
    "maze": "######## #..##..# #..#...# ##...### #..#...# #.#..#.# #...#..# ########",
    "bottleneck": "######## #..##..# #..##..# #......# #......# #..##..# #..##..# ########",
    "circle": "######## ##....## #..##..# #.####.# #.####.# #..##..# ##....## ########",
    "spiral": "######## #......# #.#.##.# #.#....# #....#.# #.##.#.# #......# ########",
    # These two have gaps in the outer wall: one can walk out of them.
    "var1": "####..## ##....## #....... #.##.#.. ..#..#.# #....... ##....## ##.#####",
    "var2": "..##..## #......# #..##... #......# .......# ...##... #..#...# ##.#..##",
}


def _block(rows: Iterable[int], columns: Iterable[int]) -> list[Cell]:
    return list(product(rows, columns))


_ENDS = (1, 2), (5, 6)
_ROOMS = [cell for rows, columns in product(_ENDS, _ENDS) for cell in _block(rows, columns)] + _block((3, 4), (3, 4))
_RING = [
    *((2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (4, 1), (5, 1), (5, 2), (6, 2), (6, 3)),
    *((6, 4), (6, 5), (5, 5), (5, 6), (4, 6), (1, 4), (1, 5), (2, 5), (2, 6), (3, 6)),
]
_CORNERS_AND_CORE = [
    *((1, 1), (1, 2), (2, 1), (1, 6), (2, 6), (1, 5), (6, 1), (6, 2), (5, 1), (6, 6), (5, 6), (6, 5)),
    *_block((3, 4), (3, 4)),
]
# Cells that may be start and goal, and the least number of rows plus columns between the two.
_ENDPOINTS = {
    "arena": (_block((2, 3, 4), (2, 3, 4)), 2),
    "bottleneck": (_ROOMS, 3),
    "circle": (_RING, 3),
    "spiral": (_CORNERS_AND_CORE, 3),
    "var1": (_RING, 3),
    "var2": (_ROOMS, 3),
}
# The stock maze has ten chosen pairs instead.
_MAZE_PAIRS: list[tuple[Cell, Cell]] = [
    ((1, 1), (6, 6)),
    ((6, 1), (1, 6)),
    ((5, 3), (2, 4)),
    ((2, 2), (6, 1)),
    ((2, 6), (1, 1)),
    ((2, 1), (4, 5)),
    ((6, 5), (4, 6)),
    ((2, 2), (4, 4)),
    ((6, 1), (2, 1)),
    ((6, 3), (3, 3)),
]


@dataclass(frozen=True, eq=False)
class Maze:
    """One maze.

    Attributes:
        walls: bool[8, 8], row 0 first.
        pairs: Start and goal cells of an episode, one pair of which is drawn.
    """

    walls: npt.NDArray[np.bool_]
    pairs: list[tuple[Cell, Cell]]

    @staticmethod
    def centre(cells: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """float64[..., 2], x and y of the centres of cells [..., 2], metres; cell (1, 1) is at the origin."""
        return (np.asarray(cells, np.float64)[..., ::-1] - 1) * CELL_SIZE


@cache
def get_maze(name: str) -> Maze:
    """The maze of this name, the last part of its tasks' names."""
    walls = np.array([[sign == "#" for sign in row] for row in _WALLS[name].split()])
    if name == "maze":
        return Maze(walls, _MAZE_PAIRS)
    cells, least = _ENDPOINTS[name]
    return Maze(walls, [(a, b) for a, b in product(cells, cells) if abs(a[0] - b[0]) + abs(a[1] - b[1]) >= least])
