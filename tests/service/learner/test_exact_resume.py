"""Two trainers on the same stored episodes: one is left alone, the other killed at random moments. They end alike.

With live collection the episodes differ from run to run, as they do without any death. Given equal episodes, training
is the same to the bit, so a death changes no learning curve.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_stack import LearnerStack, wait_until

from newt.agent.checkpoints import Checkpoint, load_checkpoint
from newt.client.replay import Episode, ReplayClient
from newt.tasks.registry import get_task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TASK = get_task("mujoco-reacher")
PRETRAIN, ONLINE, INTERVAL = 200, 400, 50
RUN: dict[str, Any] = {
    "tasks": [TASK.name],
    "preset": "laptop",
    "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
    "schedule": {
        "total_env_steps": 1000,
        "seed_env_steps": 200,
        "pretrain_updates": PRETRAIN,
        "updates_per_env_step": ONLINE / 800,
        "checkpoint_every_updates": INTERVAL,
        "publish_every_s": 0.5,
    },
    "replay": {"batch_size": 16},
    "demos": {"sets": ["stored"], "scripted_episodes": 0},
}


def episode(number: int) -> Episode:
    draw = np.random.default_rng(number)
    steps = 50
    return Episode(
        episode_id=f"e{number}",
        task=TASK.name,
        obs=draw.normal(size=(steps + 1, TASK.obs_dim)).astype(np.float32),
        action=draw.uniform(-1, 1, size=(steps, TASK.action_dim)).astype(np.float32),
        reward=draw.normal(size=steps).astype(np.float32),
        seed=number,
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    """A learner without simulators: the collectors wait, the trainers take what the test stores."""
    settings = {"DEPENDENCY_TIMEOUT_S": 3600, "MAX_CONCURRENT_RUNS": 2}
    stack = LearnerStack(tmp_path_factory.mktemp("exact"), ("replay",), settings)
    try:
        with ReplayClient(stack.replay_address) as replay:
            for number in range(4):
                replay.append(episode(number), demo_set="stored", timeout_s=90)
        yield stack
    finally:
        stack.stop()


def submit(stack: LearnerStack) -> str:
    run_id = stack.submit(RUN)
    with ReplayClient(stack.replay_address) as replay:
        replay.create_buffer(
            run_id,
            {TASK.name: (TASK.obs_dim, TASK.action_dim)},
            capacity_rows=100_000,
            updates_per_env_step=RUN["schedule"]["updates_per_env_step"],
            start_env_steps=RUN["schedule"]["seed_env_steps"],
            max_lead_updates=0,
            demo_sets=["stored"],
        )
        for number in range(100, 120):
            replay.append(episode(number), buffer_id=run_id, timeout_s=10)
    return run_id


def final(stack: LearnerStack, run_id: str) -> Checkpoint:
    """The checkpoint after the last update, when it is there."""
    directory = Path(stack.get(f"/runs/{run_id}")["directory"])

    def newest() -> dict[str, Any]:
        checkpoints: list[dict[str, Any]] = stack.get(f"/runs/{run_id}/checkpoints")["checkpoints"]
        return checkpoints[-1] if checkpoints else {"updates": 0}

    wait_until(lambda: newest()["updates"] == PRETRAIN + ONLINE, "the last checkpoint", 300)
    return load_checkpoint(directory / "checkpoints" / f"{newest()['name']}.safetensors")


def updates(run: dict[str, Any]) -> int:
    return int(run["progress"]["pretrain_updates"] + run["progress"]["updates"])


def test_a_killed_trainer_ends_where_an_undisturbed_one_does(stack: LearnerStack) -> None:
    chance_seed = random.SystemRandom().randrange(2**32)
    print(f"moments from seed {chance_seed}")  # shown if the test fails
    chance = random.Random(chance_seed)
    disturbed = submit(stack)
    kills = [chance.randrange(10, PRETRAIN // 2), PRETRAIN + chance.randrange(10, ONLINE // 3)]
    stack.follow(disturbed, lambda run: updates(run) >= kills[0], 200)
    stack.kill_child(disturbed, "trainer")
    stack.follow(disturbed, lambda run: updates(run) >= kills[1], 200)
    stack.kill_everything(disturbed)
    alone = submit(stack)
    states = [final(stack, run_id).state for run_id in (disturbed, alone)]
    log = (Path(stack.get(f"/runs/{disturbed}")["directory"]) / "logs" / "trainer.log").read_text()
    resumed = [json.loads(line)["updates"] for line in log.splitlines() if '"event": "resumed"' in line]
    assert states[0].keys() == states[1].keys()
    different = [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]
    assert not different
    # Both deaths came in the middle, and cost one interval at most. Before the first checkpoint nothing is resumed.
    starts = resumed if len(resumed) == 2 else [0, *resumed]
    assert len(starts) == 2
    assert all(kill - INTERVAL <= start < PRETRAIN + ONLINE for kill, start in zip(kills, starts, strict=True))
