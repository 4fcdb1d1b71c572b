"""Buffers of several shards."""

from __future__ import annotations

import numpy as np

from newt.client.buffers import BufferConfig
from newt.wire.episodes import Episode

# More than one for each of three shards, and not as many on each.
TASKS = ("a", "b", "c", "d", "e", "f", "g")
SHARDS = 3


def episode(number: int, task: str, transitions: int = 9) -> Episode:
    obs = np.zeros((transitions + 1, 3), np.float32)
    obs[:, 0], obs[:, 1] = number, np.arange(transitions + 1)
    return Episode(f"e{number}", task, obs, np.zeros((transitions, 2), np.float32), np.zeros(transitions, np.float32))


def config(**changes: object) -> BufferConfig:
    values: dict[str, object] = {"capacity_rows": 10_000, "updates_per_env_step": 1.0, "demos_in_online": False}
    return BufferConfig(dict.fromkeys(TASKS, (3, 2)), **{**values, **changes})  # type: ignore[arg-type]
