"""A simulator is replaced during a run: the collector ends its episodes there, and goes on with the next one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from learner_stack import LearnerStack, wait_until
from tiny_agents import PLAN, SIZES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TASKS = ("mujoco-reacher", "mujoco-inverted-pendulum")  # of 50 and 500 steps, in one session
RUN: dict[str, Any] = {
    "tasks": list(TASKS),
    "preset": "laptop",
    "model": {"size": "XS", **SIZES},
    "plan": PLAN,
    "collect": {"envs_per_task": 2},
    # At random to the end of the test: steps are taken as fast as simulators are.
    "schedule": {"total_env_steps": 1_000_000, "seed_env_steps": 900_000, "updates_per_env_step": 0.02},
    "replay": {"batch_size": 16},
    "demos": {"scripted_episodes": 0},
    "evaluation": {"episodes_per_task": 0, "videos": False},
}


@pytest.fixture
def stack(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LearnerStack]:
    stack = LearnerStack(tmp_path, ("replay", "planner"))
    stack.settings["sim"] |= getattr(request, "param", {"DRAIN_S": 120})
    try:
        stack.start("sim")
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


def log_of(run: dict[str, Any]) -> str:
    return (Path(run["directory"]) / "logs" / "collector.log").read_text()


def assert_nothing_was_lost(stack: LearnerStack, run: dict[str, Any]) -> None:
    assert "session_lost" not in log_of(run)
    lines = dict(line.rsplit(" ", 1) for line in stack.http.get("/metrics").text.splitlines())
    assert float(lines['newt_learner_episodes_lost_total{reason="session"}']) == 0


def test_no_episode_is_lost(stack: LearnerStack) -> None:
    run_id = stack.submit(RUN)
    stack.follow(run_id, lambda run: run["progress"]["env_steps"] >= 1_500)
    stack.processes["sim"].send_signal(signal.SIGTERM)
    assert stack.processes["sim"].wait(130) == 0
    told = (stack.home / "sim.log").read_text()
    assert '"given_back": true' in told, told[-2000:]
    before = stack.get(f"/runs/{run_id}")["progress"]
    stack.start("sim")
    more = {task: progress["episodes"] + 2 for task, progress in before["tasks"].items()}
    run = stack.follow(
        run_id, lambda run: all(run["progress"]["tasks"][task]["episodes"] >= more[task] for task in TASKS)
    )
    assert run["state"] == "training", run["error"]
    assert log_of(run).count("simulator_left") == 2  # both groups
    assert_nothing_was_lost(stack, run)
    stack.http.post(f"/runs/{run_id}/cancel")
    wait_until(lambda: stack.get(f"/runs/{run_id}")["state"] == "cancelled", "cancelled")


@pytest.mark.parametrize("stack", [{"SESSION_AGE_S": 3}], indirect=True)
def test_none_is_lost_when_sessions_have_an_age(stack: LearnerStack) -> None:
    run_id = stack.submit(RUN)
    run = stack.follow(run_id, lambda run: log_of(run).count("simulator_left") >= 4)
    assert stack.processes["sim"].poll() is None
    assert_nothing_was_lost(stack, run)
    stack.http.post(f"/runs/{run_id}/cancel")
    wait_until(lambda: stack.get(f"/runs/{run_id}")["state"] == "cancelled", "cancelled")
