"""Services that hang, as behind a broken network, and a planner that dies; test_whole_runs.py kills everybody else.

tests/e2e/test_faults.py does the same to containers.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from learner_stack import LearnerStack, wait_until

from newt.client.replay import ReplayClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

HANG_S = 6.0  # longer than any single call's time on its own
RESUME_S = 60.0
RUN: dict[str, Any] = {
    "tasks": ["mujoco-reacher"],
    "preset": "laptop",
    "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
    "plan": {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
    "schedule": {"total_env_steps": 1_000_000, "seed_env_steps": 100},
    "replay": {"batch_size": 16},
    "demos": {"scripted_episodes": 0},
    "evaluation": {"episodes_per_task": 0, "videos": False},
}


@pytest.fixture(scope="module")
def run_id(stack: LearnerStack) -> Iterator[str]:
    run_id = stack.submit(RUN)
    stack.follow(run_id, lambda run: run["progress"]["updates"] > 5)
    yield run_id
    stack.http.post(f"/runs/{run_id}/cancel")
    wait_until(lambda: stack.get(f"/runs/{run_id}")["state"] == "cancelled", "cancelled")


@pytest.mark.parametrize("service", ["sim", "planner", "replay", "redis"])
def test_a_run_waits_for_a_service_that_hangs(stack: LearnerStack, run_id: str, service: str) -> None:
    pid = stack.redis.process.pid if service == "redis" else stack.processes[service].pid
    before = stack.get(f"/runs/{run_id}")["progress"]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(HANG_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    _goes_on(stack, run_id, before)


def test_a_run_outlives_the_death_of_its_planner(stack: LearnerStack, run_id: str) -> None:
    before = stack.get(f"/runs/{run_id}")["progress"]
    stack.kill("planner")
    stack.start("planner")
    _goes_on(stack, run_id, before)


def test_episodes_that_a_simulator_takes_with_it_are_counted(stack: LearnerStack, run_id: str) -> None:
    def lost() -> float:
        lines = dict(line.rsplit(" ", 1) for line in stack.http.get("/metrics").text.splitlines())
        return float(lines['newt_learner_episodes_lost_total{reason="session"}'])

    before, lost_before = stack.get(f"/runs/{run_id}")["progress"], lost()
    stack.kill("sim")
    stack.start("sim")
    _goes_on(stack, run_id, before)
    wait_until(lambda: lost() > lost_before, "they are counted", 30)


def _goes_on(stack: LearnerStack, run_id: str, before: dict[str, Any]) -> None:
    """Both counters rise, nothing was restarted, and replay has every episode once."""
    at = stack.get(f"/runs/{run_id}")["progress"]
    counters = ("env_steps", "updates")
    assert all(at[name] >= before[name] for name in counters)
    run = stack.follow(run_id, lambda run: all(run["progress"][name] > at[name] for name in counters), RESUME_S)
    assert run["state"] == "training", run["error"]
    assert run["progress"]["restarts"] == 0
    with ReplayClient(stack.replay_address) as replay:
        ids = [episode.episode_id for episode in replay.read_episodes(buffer_id=run_id)]
        counted = replay.get_buffer(run_id).episodes
    assert len(ids) == len(set(ids)) <= counted  # the run goes on meanwhile
    assert len(ids) >= run["progress"]["tasks"]["mujoco-reacher"]["episodes"]
