"""The demos of a run: the episodes of its tasks in the demo sets that it names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.replay.checks import encoders_differ
from services.replay.mirror import Mirror
from services.replay.sampler import Source
from services.replay.space import Space
from services.replay.task_episodes import Ints, TaskEpisodes


class DemoPool:
    """Demo sets as one run sees them. Not thread-safe: the catalog's lock guards it.

    Args:
        spaces: The demo sets, in the run's order.
        dims: Dimensions by task of the run: index, obs_dim, action_dim.
        image_dim: Feature columns of the run; with images, demos without the same features are left out.
        image_encoder: Encoder of the run; empty if unknown.
    """

    def __init__(
        self, spaces: Sequence[Space], dims: dict[str, tuple[int, int, int]], image_dim: int, image_encoder: str = ""
    ) -> None:
        self.spaces = spaces
        self._dims, self._image_dim, self._image_encoder = dims, image_dim, image_encoder
        self._ranked: tuple[tuple[tuple[Mirror, int], ...], dict[TaskEpisodes, Ints]] | None = None

    @property
    def version(self) -> tuple[tuple[Mirror, int], ...]:
        """Changes with the contents."""
        return tuple((space.mirror, space.mirror.next) for space in self.spaces)

    @property
    def rows(self) -> int:
        """Rows of all usable demos."""
        return sum(held.held_rows for _, held in self._held())

    def episodes(self, task: str) -> int:
        """Usable demos of a task."""
        return sum(len(held) for name, held in self._held() if name == task)

    def sources(self, horizon: int, max_rows: int | None = None) -> list[Source]:
        """What can be drawn.

        Args:
            horizon: H.
            max_rows: Keep only the newest demos that fit into so many rows together; None keeps all.
        """
        result = []
        for task, held in self._held():
            windows = held.windows(horizon)
            first = 0
            if max_rows is not None:
                # Rows decrease along the episodes; the first episode whose tail fits is the oldest one kept.
                dropped = np.searchsorted(-self._rows_from()[held], -max_rows)
                first = int(np.searchsorted(windows.ordinals, dropped))
            if first < len(windows):
                result.append(Source(self._dims[task][0], windows, first, demo=True))
        return result

    def _held(self) -> list[tuple[str, TaskEpisodes]]:
        return [
            (task, held)
            for space in self.spaces
            for task, held in space.mirror.tasks.items()
            if self._usable(task, held)
        ]

    def _usable(self, task: str, held: TaskEpisodes) -> bool:
        dims = self._dims.get(task)
        fits = dims is not None and dims[1:] == (held.obs_dim, held.action_dim)
        if not fits or not self._image_dim:
            return fits
        return self._image_dim == held.image_dim and not encoders_differ(self._image_encoder, held.image_encoder)

    def _rows_from(self) -> dict[TaskEpisodes, Ints]:
        """For each episode, the rows from it to the end of the last demo set, over the run's tasks only."""
        version = self.version
        if self._ranked is None or self._ranked[0] != version:
            below = 0
            table: dict[TaskEpisodes, Ints] = {}
            for space in reversed(self.spaces):
                tasks, rows = space.mirror.order()
                held_tasks = space.mirror.tasks
                usable = np.array([self._usable(task, held_tasks[task]) for task in tasks], np.bool_)
                tail = np.cumsum((rows * usable)[::-1])[::-1] + below
                names = np.array(tasks)
                table.update({held: tail[names == task] for task, held in held_tasks.items()})
                below = int(tail[0]) if len(tail) else below
            self._ranked = (version, table)
        return self._ranked[1]
