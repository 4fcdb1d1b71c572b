"""A run in which one of two tasks has demonstrations: each is collected for, and played afterwards, by its own rule."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from learner_stack import LearnerStack, wait_until
from tiny_agents import PLAN, SIZES

from newt.agent.checkpoints import load_checkpoint
from newt.client.replay import ReplayClient
from newt.wire.episodes import Behaviour

pytestmark = pytest.mark.slow

SHOWN, NEW = "mujoco-reacher", "mujoco-inverted-pendulum"
SEED_STEPS, TOTAL = 300, 600


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    stack = LearnerStack(tmp_path_factory.mktemp("guided"), ("sim", "replay", "planner"))
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def run(stack: LearnerStack) -> dict[str, Any]:
    request = {
        "tasks": [SHOWN, NEW],
        "preset": "laptop",
        "model": {"size": "XS", **SIZES},
        "plan": PLAN,
        "schedule": {
            "total_env_steps": TOTAL,
            "seed_env_steps": SEED_STEPS,
            "pretrain_updates": 5,
            "updates_per_env_step": 0.02,
            "publish_every_s": 0.5,
        },
        "replay": {"batch_size": 16},
        "demos": {"scripted_episodes": 2, "scripted_tasks": [SHOWN]},
        "evaluation": {"episodes_per_task": 2},
    }
    run = stack.follow(stack.submit(request), lambda run: False, timeout_s=300)
    assert run["state"] == "succeeded", run["error"]
    return run


def test_seeding_follows_each_tasks_own_demonstrations(stack: LearnerStack, run: dict[str, Any]) -> None:
    with ReplayClient(stack.replay_address) as replay:
        episodes = list(replay.read_episodes(buffer_id=run["id"]))
    by_task = {task: [episode for episode in episodes if episode.task == task] for task in (SHOWN, NEW)}
    first = {task: found[0] for task, found in by_task.items()}
    assert first[SHOWN].behaviour == Behaviour.POLICY
    assert first[SHOWN].weights_versions[0] > 0
    assert (first[NEW].behaviour, first[NEW].weights_versions) == (Behaviour.RANDOM, (0, 0))
    assert not any(episode.behaviour == Behaviour.RANDOM for episode in by_task[SHOWN])
    assert not any(episode.behaviour == Behaviour.POLICY for episode in by_task[NEW])


def test_a_checkpoint_knows_its_guided_tasks_and_acts_accordingly(stack: LearnerStack, run: dict[str, Any]) -> None:
    for path in (Path(run["directory"]) / "checkpoints").glob("*.safetensors"):
        assert load_checkpoint(path).info["guided_tasks"] == [SHOWN]
    job = stack.http.post(f"/runs/{run['id']}/evaluate", json={"episodes": 2}).json()
    while job["state"] == "running":
        time.sleep(0.1)
        job = stack.get(f"/evaluations/{job['id']}")
    assert job["state"] == "succeeded", job["error"]
    # So short a run hardly leaves its policy: by as many steps as its last episodes took it beyond the end.
    weights = stack.get(f"/evaluations/{job['id']}/report")["constraint_weights"]
    assert weights[NEW] == 0
    assert 0.7 < weights[SHOWN] <= 1
    assert all(stats["score_std"] is not None for stats in job["result"]["tasks"].values())


def test_the_learner_shows_what_its_collector_waited_for(stack: LearnerStack, run: dict[str, Any]) -> None:
    def shown(name: str) -> float:
        lines = dict(line.rsplit(" ", 1) for line in stack.http.get("/metrics").text.splitlines())
        return float(lines[f"newt_learner_{name}"])

    wait_until(lambda: shown("env_step_seconds_count") >= TOTAL, "all steps are counted", 30)
    assert 0 < shown("plan_seconds_count") < shown("env_step_seconds_count")  # one task is seeded at random
    assert 0 < shown("env_step_seconds_sum") < 600
    assert (shown("first_session_seconds_count"), shown("first_session_seconds_sum") > 0) == (1, True)
    assert shown('episodes_lost_total{reason="session"}') == shown('episodes_lost_total{reason="instance"}') == 0
