"""Point maze: bring a disc to the goal and keep it there; one cell of the maze is windy."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, ClassVar

from newt.miniarcade.base import ALL_WAYS, Game, clip

if TYPE_CHECKING:
    from newt.miniarcade.canvas import Canvas

# Rows from the top; # is a wall. The outer border is closed.
LAYOUTS = {
    1: ("#.##.", "..#..", "#...#", "..#..", ".##.#"),
    2: (".##..", "....#", ".##..", "..##.", "#...."),
    3: (".###.", "..#..", "..#..", "#...#", "#####"),
    4: ("##.##", "#...#", ".....", "#...#", "##.##"),
}
CELLS = 5
LOW, SIDE = 20, 184
CELL_EDGES, CELL_SIZE = (20, 57, 94, 130, 167), 37
RADIUS, GOAL_REACH = 6, 12
LIMITS = (27, 197)
SPEED, WIND = 5.0, 2.0
START_RANGE, START_TRIES, FALLBACK = (28, 196), 4000, 112.0
GOAL_DISTANCE = (36.8, 128.8)
WINDS = ((0, -1), (1, 0), (0, 1), (-1, 0))  # Up, right, down, left.

TRAIL = 24
WALL, GOAL, AGENT = (180, 180, 190), (80, 220, 120), (255, 180, 80)
_GLOW, _FLICKER = 1, 2


class PointMaze(Game):
    """Pays 1 at the goal, less with the distance; success is being in the goal now.

    Observation: agent and goal (/224), commanded velocity (/5), 25 cells (1 wall, 0 free, -1 windy), the wind's
    direction (one of four), way to the goal (/184) and its length, whether in the goal, whether in the wind, the wind
    felt (/5), row and column (/4).

    Args:
        layout: Number of the maze.
    """

    OBS_DIM: ClassVar[int] = 44
    ACTION_DIM: ClassVar[int] = 2
    LENGTH: ClassVar[int] = 200
    KEYS = ALL_WAYS

    def __init__(self, *, layout: int) -> None:
        super().__init__()
        self.walls = [[cell == "#" for cell in row] for row in LAYOUTS[layout]]
        self._free = [(r, c) for r in range(CELLS) for c in range(CELLS) if not self.walls[r][c]]
        # Cells whose walls, grown by the disc's radius, reach a pixel, by its x or y.
        self._near = [
            [i for i, edge in enumerate(CELL_EDGES) if edge - RADIUS <= pixel < edge + CELL_SIZE + RADIUS]
            for pixel in range(225)
        ]

    x: float
    y: float

    def start(self) -> None:
        """Wind, agent and goal anywhere; the goal neither next to the agent nor at the other end."""
        self.wind_cell = self._free[int(self.rng.integers(len(self._free)))]
        self.wind = int(self.rng.integers(len(WINDS)))
        self.x, self.y = self._free_place(None)
        self.goal_x, self.goal_y = self._free_place((self.x, self.y))
        self.vx = self.vy = 0.0
        self.trail: deque[tuple[float, float]] = deque(maxlen=TRAIL)

    def advance(self, action: list[float]) -> float:
        """First along x, then along y; a way that is blocked is not gone at all."""
        self.trail.append((self.x, self.y))
        wind = self._wind_here()
        self.vx, self.vy = SPEED * action[0] + wind[0], SPEED * action[1] + wind[1]
        x, y = clip(self.x + self.vx, *LIMITS), clip(self.y, *LIMITS)
        if not self._blocked(x, y):
            self.x = x
        x, y = clip(self.x, *LIMITS), clip(self.y + self.vy, *LIMITS)
        if not self._blocked(x, y):
            self.y = y
        return 1 - clip(self._distance() / SIDE, 0, 1)

    def observe(self) -> list[float]:
        """See the class."""
        obs = [self.x / 224, self.y / 224, self.goal_x / 224, self.goal_y / 224, self.vx / SPEED, self.vy / SPEED]
        for r, row in enumerate(self.walls):
            obs += [-1.0 if (r, c) == self.wind_cell else float(wall) for c, wall in enumerate(row)]
        obs += [float(direction == self.wind) for direction in range(len(WINDS))]
        obs += [(self.goal_x - self.x) / SIDE, (self.goal_y - self.y) / SIDE, self._distance() / SIDE]
        wind = self._wind_here()
        obs += [self.success(), float(wind != (0, 0)), wind[0] / SPEED, wind[1] / SPEED]
        here = self._cell(self.x, self.y)
        return [*obs, here[0] / 4, here[1] / 4]

    def success(self) -> float:
        """Whether the agent is in the goal now."""
        return float(self._distance() <= GOAL_REACH)

    def score(self) -> float:
        """Success now: whoever leaves the goal loses it."""
        return self.success() if self.steps else 0.0

    def expert(self) -> list[float]:
        """From cell to cell on the shortest way, then to the goal; steers against the wind."""
        target = self._waypoint()
        wind = self._wind_here()
        return [(target[0] - self.x - wind[0]) / SPEED, (target[1] - self.y - wind[1]) / SPEED]

    def draw(self, canvas: Canvas) -> None:
        """The maze from above, a glowing goal, arrows in the windy cell."""
        canvas.fill((6, 8, 10))
        canvas.gradient(LOW, LOW, SIDE, SIDE, (30, 36, 42), (20, 28, 36))
        canvas.rect(LOW, LOW, SIDE, SIDE, WALL, outline=2)
        self._draw_wind(canvas)
        phase = self.decoration(_GLOW).uniform(0, 2 * math.pi)
        noise = self.decoration(_FLICKER, self.steps + 1).normal(0, 0.02)
        flicker = clip(1 + 0.08 * math.sin(2 * math.pi * self.steps / 40 + phase) + noise, 0.85, 1.15)
        canvas.glow(self.goal_x, self.goal_y, int(38 * flicker), (80, 220, 130, int(95 * flicker)), 2.2)
        canvas.disc(self.goal_x, self.goal_y, RADIUS, GOAL)
        for age, (x, y) in enumerate(self.trail, start=TRAIL - len(self.trail)):
            share = (age + 1) / TRAIL
            radius = 0.6 * RADIUS + 0.4 * RADIUS * share
            canvas.disc(x, y, radius + 2, (255, 140, 0, int(25 * share)))
            canvas.disc(x, y, radius, (255, 140, 0, int(80 * share)))
        for r, row in enumerate(self.walls):
            for c, wall in enumerate(row):
                if wall:
                    x, y = CELL_EDGES[c], CELL_EDGES[r]
                    canvas.rect(x + 1, y + 1, CELL_SIZE, CELL_SIZE, (30, 30, 35), corner=4)
                    canvas.rect(x, y, CELL_SIZE, CELL_SIZE, WALL, corner=4)
                    canvas.rect(x, y, CELL_SIZE, CELL_SIZE, (120, 120, 130), outline=1, corner=4)
        canvas.disc(self.x, self.y, RADIUS, AGENT)
        canvas.disc(self.x, self.y, RADIUS, (255, 120, 0), outline=1)

    def _distance(self) -> float:
        return math.hypot(self.goal_x - self.x, self.goal_y - self.y)

    def _blocked(self, x: float, y: float) -> bool:
        return any(self.walls[r][c] for r in self._near[int(y)] for c in self._near[int(x)])

    def _free_place(self, agent: tuple[float, float] | None) -> tuple[float, float]:
        for _ in range(START_TRIES):
            x, y = self.rng.uniform(*START_RANGE, 2).tolist()
            if not self._blocked(x, y) and (
                agent is None or GOAL_DISTANCE[0] <= math.hypot(x - agent[0], y - agent[1]) <= GOAL_DISTANCE[1]
            ):
                return x, y
        return FALLBACK, FALLBACK

    def _wind_here(self) -> tuple[float, float]:
        """Pixels per step; nothing outside the windy cell."""
        row, column = self.wind_cell
        inside_x = CELL_EDGES[column] <= int(self.x) < CELL_EDGES[column] + CELL_SIZE
        if inside_x and CELL_EDGES[row] <= int(self.y) < CELL_EDGES[row] + CELL_SIZE:
            dx, dy = WINDS[self.wind]
            return WIND * dx, WIND * dy
        return 0, 0

    def _cell(self, x: float, y: float) -> tuple[int, int]:
        """Row and column, of equal cells."""
        row, column = (int(clip(CELLS * (value - LOW) // SIDE, 0, CELLS - 1)) for value in (y, x))
        return row, column

    def _waypoint(self) -> tuple[float, float]:
        """The goal if it is in the agent's cell, else the middle of the next cell on the way to it."""
        here, goal = self._cell(self.x, self.y), self._cell(self.goal_x, self.goal_y)
        if here == goal:
            return self.goal_x, self.goal_y
        # Backward from the goal, so that the first way found to the agent tells its next cell.
        came: dict[tuple[int, int], tuple[int, int]] = {goal: goal}
        queue = deque([goal])
        while queue and here not in came:
            row, column = queue.popleft()
            for dx, dy in WINDS:
                cell = (row + dy, column + dx)
                if cell in self._free and cell not in came:
                    came[cell] = (row, column)
                    queue.append(cell)
        row, column = came[here]
        return CELL_EDGES[column] + CELL_SIZE / 2, CELL_EDGES[row] + CELL_SIZE / 2

    def _draw_wind(self, canvas: Canvas) -> None:
        x, y = CELL_EDGES[self.wind_cell[1]], CELL_EDGES[self.wind_cell[0]]
        canvas.rect(x, y, CELL_SIZE, CELL_SIZE, (90, 150, 210, 55))
        dx, dy = WINDS[self.wind]
        middle = CELL_SIZE / 2
        for start in range(-32, 64, 16):
            along = start + 1.2 * self.steps % 16
            if 4 <= along <= CELL_SIZE - 12:
                # Distances along the flow, measured from where the wind enters the cell.
                tail, tip = along - middle, along + 8 - middle
                corners = [(tail, -10), (tip, 0), (tail, 10), (tail + 3, 0)]
                points = [(x + middle + a * dx - b * dy, y + middle + a * dy + b * dx) for a, b in corners]
                canvas.polygon(points, (120, 230, 255, 150))
