"""Episodes for tests: every value tells the episode's number and the step."""

from __future__ import annotations

import numpy as np

from newt.client.buffers import BufferConfig
from newt.client.read_ahead import Batch
from newt.client.replay import ReplayClient
from newt.wire.episodes import Episode

TASKS = {"reach": (3, 2), "walk": (5, 1)}


def numbered(number: int, transitions: int, task: str = "reach", **changes: object) -> Episode:
    obs_dim, action_dim = TASKS[task]
    steps = np.arange(transitions + 1, dtype=np.float32)
    obs = np.zeros((transitions + 1, obs_dim), np.float32)
    obs[:, 0], obs[:, 1], obs[:, -1] = number, steps, 1
    action = np.repeat(-steps[:-1, None], action_dim, axis=1)
    values: dict[str, object] = {"success": 1.0, "score": 0.5, "seed": number, **changes}
    return Episode(f"e{number}", task, obs, action, 1000 * number + steps[:-1], **values)  # type: ignore[arg-type]


def make_buffer(client: ReplayClient, name: str = "run", **changes: object) -> bool:
    values: dict[str, object] = {
        "capacity_rows": 10_000,
        "updates_per_env_step": 1.0,
        "start_env_steps": 0,
        "max_lead_updates": 0,
        "demos_in_online": False,
        **changes,
    }
    return client.create_buffer(name, BufferConfig(**{"tasks": TASKS, **values}))  # type: ignore[arg-type]


def take(client: ReplayClient, count: int = 1, name: str = "run", **changes: object) -> list[Batch]:
    values: dict[str, object] = {
        "batch_size": 64,
        "horizon": 3,
        "seed": 1,
        "demo_fraction": 0.0,
        "limited": False,
        **changes,
    }
    with client.batches(name, count=count, **values) as batches:  # type: ignore[arg-type]
        return list(batches)


def numbers_of(batch: Batch) -> set[int]:
    """Numbers of the episodes in a batch."""
    return set(batch.obs[0, :, 0].astype(int).tolist())


def check(batch: Batch) -> None:
    """Every sequence is a run of consecutive rows of one episode, padded with zeros."""
    names = list(TASKS)
    horizon = len(batch.reward)
    np.testing.assert_array_equal(batch.obs[:, :, 0], np.broadcast_to(batch.obs[:1, :, 0], batch.obs.shape[:2]))
    steps = batch.obs[0, :, 1] + np.arange(horizon + 1)[:, None]
    np.testing.assert_array_equal(batch.obs[:, :, 1], steps)
    np.testing.assert_array_equal(batch.reward, 1000 * batch.obs[:-1, :, 0] + steps[:-1])
    np.testing.assert_array_equal(batch.action[:, :, 0], -steps[:-1])
    for i, task in enumerate(batch.task):
        obs_dim, action_dim = TASKS[names[task]]
        assert (batch.obs[:, i, obs_dim - 1] == 1).all()
        assert not batch.obs[:, i, obs_dim:].any()
        assert not batch.action[:, i, action_dim:].any()
