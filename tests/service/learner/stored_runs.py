"""Runs on episodes that the test stores, with no simulators: what a trainer does then depends on its seed alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from learner_stack import LearnerStack, wait_until

from newt.agent.checkpoints import Checkpoint, load_checkpoint
from newt.client.buffers import BufferConfig
from newt.client.replay import ReplayClient
from newt.tasks.registry import get_task
from newt.wire.episodes import Episode

TASK = get_task("mujoco-reacher")
TOTAL, SEED_STEPS, INTERVAL = 1000, 200, 50
EPISODE_STEPS = 50


@contextlib.contextmanager
def stored_stack(home: Path, **settings: Any) -> Iterator[LearnerStack]:
    """Replay and a learner; the runs' collectors wait for simulators for ever, the trainers do not need them."""
    stack = LearnerStack(home, ("replay",), {"DEPENDENCY_TIMEOUT_S": 3600, **settings})
    try:
        with ReplayClient(stack.replay_address) as replay:
            for number in range(4):
                replay.append(episode(number), demo_set="stored", timeout_s=90)
        yield stack
    finally:
        stack.stop()


def episode(number: int) -> Episode:
    """Noise that depends on the number."""
    draw = np.random.default_rng(number)
    return Episode(
        episode_id=f"e{number}",
        task=TASK.name,
        obs=draw.normal(size=(EPISODE_STEPS + 1, TASK.obs_dim)).astype(np.float32),
        action=draw.uniform(-1, 1, size=(EPISODE_STEPS, TASK.action_dim)).astype(np.float32),
        reward=draw.normal(size=EPISODE_STEPS).astype(np.float32),
        seed=number,
    )


def submit(
    stack: LearnerStack, pretrain: int, online: int, processes: int = 1, nodes: int = 1, **resources: Any
) -> str:
    """Starts a run and stores all of its episodes."""
    per_step = online / (TOTAL - SEED_STEPS)
    request = {
        "tasks": [TASK.name],
        "preset": "laptop",
        "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
        "schedule": {
            "total_env_steps": TOTAL,
            "seed_env_steps": SEED_STEPS,
            "pretrain_updates": pretrain,
            "updates_per_env_step": per_step,
            "checkpoint_every_updates": INTERVAL,
            "publish_every_s": 0.5,
        },
        "replay": {"batch_size": 16},
        "demos": {"sets": ["stored"], "scripted_episodes": 0},
        "resources": {"processes": processes, "nodes": nodes, **resources},
    }
    run_id = stack.submit(request)
    with ReplayClient(stack.replay_address) as replay:
        replay.create_buffer(
            run_id,
            BufferConfig(
                {TASK.name: (TASK.obs_dim, TASK.action_dim)},
                capacity_rows=100_000,
                updates_per_env_step=per_step,
                start_env_steps=SEED_STEPS,
                max_lead_updates=0,
                demo_sets=["stored"],
            ),
        )
        for number in range(100, 100 + TOTAL // EPISODE_STEPS):
            replay.append(episode(number), buffer_id=run_id, timeout_s=10)
    return run_id


def updates(run: dict[str, Any]) -> int:
    """Updates that a run has told of, in both phases."""
    return int(run["progress"]["pretrain_updates"] + run["progress"]["updates"])


def last_checkpoint(stack: LearnerStack, run_id: str, after: int, timeout_s: float = 300.0) -> Checkpoint:
    """The checkpoint after a run's last update, when it is there."""
    directory = Path(stack.get(f"/runs/{run_id}")["directory"])

    def newest() -> dict[str, Any]:
        checkpoints: list[dict[str, Any]] = stack.get(f"/runs/{run_id}/checkpoints")["checkpoints"]
        return checkpoints[-1] if checkpoints else {"updates": 0}

    wait_until(lambda: newest()["updates"] == after, f"the checkpoint after {after} updates", timeout_s)
    return load_checkpoint(directory / "checkpoints" / f"{newest()['name']}.safetensors")
