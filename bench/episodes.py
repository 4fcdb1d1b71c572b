"""Episodes of noise, for benchmarks of what stores and samples them."""

from __future__ import annotations

import numpy as np

from newt.tasks.registry import Task
from newt.wire.episodes import Episode


def noise(task: Task, number: int, rng: np.random.Generator) -> Episode:
    """An episode of a task's full length T in its true shapes: obs float32[T+1, O], action [T, A], reward [T]."""
    T = task.episode_length
    return Episode(
        f"{task.name}-{number}",
        task.name,
        rng.standard_normal((T + 1, task.obs_dim), np.float32),
        rng.uniform(-1, 1, (T, task.action_dim)).astype(np.float32),
        rng.random(T, np.float32),
    )
