"""The demos of a run: the episodes of its tasks in the demo sets that it names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.replay.checks import encoders_differ
from services.replay.mirror import Mirror
from services.replay.ring import Ints, TaskRing
from services.replay.sampler import Source
from services.replay.space import Space


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
        self._ranked: tuple[tuple[tuple[Mirror, int], ...], dict[TaskRing, Ints]] | None = None

    @property
    def version(self) -> tuple[tuple[Mirror, int], ...]:
        """Changes with the contents."""
        return tuple((space.mirror, space.mirror.next) for space in self.spaces)

    @property
    def rows(self) -> int:
        """Rows of all usable demos."""
        return sum(ring.held_rows for _, ring in self._rings())

    def episodes(self, task: str) -> int:
        """Usable demos of a task."""
        return sum(len(ring) for name, ring in self._rings() if name == task)

    def sources(self, horizon: int, max_rows: int | None = None) -> list[Source]:
        """What can be drawn.

        Args:
            horizon: H.
            max_rows: Keep only the newest demos that fit into so many rows together; None keeps all.
        """
        result = []
        for task, ring in self._rings():
            windows = ring.windows(horizon)
            first = 0
            if max_rows is not None:
                # Rows decrease along the ring; the first episode whose tail fits is the oldest one kept.
                dropped = np.searchsorted(-self._rows_from()[ring], -max_rows)
                first = int(np.searchsorted(windows.ordinals, dropped))
            if first < len(windows):
                result.append(Source(self._dims[task][0], windows, first, demo=True))
        return result

    def _rings(self) -> list[tuple[str, TaskRing]]:
        return [
            (task, ring)
            for space in self.spaces
            for task, ring in space.mirror.rings.items()
            if self._usable(task, ring)
        ]

    def _usable(self, task: str, ring: TaskRing) -> bool:
        dims = self._dims.get(task)
        fits = dims is not None and dims[1:] == (ring.obs_dim, ring.action_dim)
        if not fits or not self._image_dim:
            return fits
        return self._image_dim == ring.image_dim and not encoders_differ(self._image_encoder, ring.image_encoder)

    def _rows_from(self) -> dict[TaskRing, Ints]:
        """For each episode, the rows from it to the end of the last demo set, over the run's tasks only."""
        version = self.version
        if self._ranked is None or self._ranked[0] != version:
            below = 0
            table: dict[TaskRing, Ints] = {}
            for space in reversed(self.spaces):
                tasks, rows = space.mirror.order()
                rings = space.mirror.rings
                usable = np.array([self._usable(task, rings[task]) for task in tasks], np.bool_)
                tail = np.cumsum((rows * usable)[::-1])[::-1] + below
                names = np.array(tasks)
                table.update({ring: tail[names == task] for task, ring in rings.items()})
                below = int(tail[0]) if len(tail) else below
            self._ranked = (version, table)
        return self._ranked[1]
