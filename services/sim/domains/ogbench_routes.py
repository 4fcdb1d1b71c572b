"""Shortest ways through a maze for a disc that moves along x and y independently, equally fast.

Such ways bend only around the corners of walls, so they are searched among points close to these corners.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from services.sim.domains.ogbench_mazes import CELL_SIZE, Maze

_CLEARANCE = 0.75  # Between walls and the disc's middle: its radius and a little more, metres.
_AROUND_CORNER = _CLEARANCE + 0.05  # How far from a corner, along both axes, ways go around it.


class Route:
    """Ways to one goal.

    Args:
        maze: The maze.
        goal: float64[2], metres, in a free cell and not against a wall.
    """

    def __init__(self, maze: Maze, goal: npt.NDArray[np.float64]) -> None:
        self._maze, self._goal = maze, goal
        self._points, times = _network(maze)
        self._to_go = (times + _times(maze, self._points, goal)).min(1)

    def next_point(self, place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Where to head for from float64[2]: the goal itself or a point on the way to it."""
        if np.isfinite(_times(self._maze, place[None], self._goal)[0]):
            return self._goal
        total = _times(self._maze, self._points, place) + self._to_go
        if np.isinf(total).all():  # Pressed against a wall: away from it first.
            middle: npt.NDArray[np.float64] = np.round(place / CELL_SIZE) * CELL_SIZE
            return middle
        # All points of a shortest way take equally long: the one closest to the goal, so that none is a place to stay.
        to_go = np.where(total < total.min() + 1e-6, self._to_go, np.inf)
        best: npt.NDArray[np.float64] = self._points[to_go.argmin()]
        return best


def _times(maze: Maze, points: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How long it takes from each of float64[N, 2] straight to a point.

    Returns:
        float64[N], in metres of the axis with the larger distance; infinite where a wall is in the way.
    """
    ways = target - points
    # From where to where, as parts of the way, it is inside of a wall: first per axis, then of both.
    slopes = np.where(ways == 0, 1e-12, ways)[:, None]
    walls = Maze.centre(np.argwhere(maze.walls))
    reach = CELL_SIZE / 2 + _CLEARANCE
    first, second = (walls - reach - points[:, None]) / slopes, (walls + reach - points[:, None]) / slopes
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    blocked = ((enter < leave) & (enter < 1) & (leave > 0)).any(1)
    result: npt.NDArray[np.float64] = np.where(blocked, np.inf, np.abs(ways).max(-1))
    return result


@cache
def _network(maze: Maze) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The points at corners, float64[N, 2], and the times between any two, float64[N, N]."""
    walls = np.pad(maze.walls, 1)  # Outside there are none.
    points = []
    for i, j in np.ndindex(walls.shape[0] - 1, walls.shape[1] - 1):
        around = np.argwhere(walls[i : i + 2, j : j + 2])
        if len(around) == 1:  # The corner of the wall at `around`, away from which the way goes.
            away = (1 - 2 * around[0])[::-1]
            points.append(Maze.centre(np.array([i - 0.5, j - 0.5])) + _AROUND_CORNER * away)
    nodes = np.array(points)
    times = np.stack([_times(maze, nodes, node) for node in nodes])
    for via in range(len(nodes)):
        times = np.minimum(times, times[:, via, None] + times[None, via])
    return nodes, times
