"""A robot trains the agent that acts on it: robot, replay, trainer, planner, robot. A simulator is in its place."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from learner_stack import LearnerStack, wait_until

from newt.client import RemoteAgent, RemoteVectorEnv
from newt.client.planner import PlannerClient
from newt.client.replay import ReplayClient

pytestmark = pytest.mark.slow

TASK, STEPS = "mujoco-reacher", 50
REQUEST: dict[str, Any] = {
    "tasks": [TASK],
    "preset": "laptop",
    "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
    "plan": {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
    "schedule": {
        "total_env_steps": 2500,
        "seed_env_steps": 100,
        "updates_per_env_step": 0.2,
        "publish_every_s": 0.5,
    },
    "replay": {"batch_size": 16},
    "demos": {"scripted_episodes": 0},
    "evaluation": {"episodes_per_task": 0},
}


def test_a_robot_trains_the_agent_that_acts_on_it(stack: LearnerStack) -> None:
    planner = stack.settings["learner"]["PLANNER"]
    run_id = stack.submit(REQUEST)

    def version() -> int:
        with PlannerClient(planner) as client:
            models = client.models(timeout_s=10)
        return next((model.weights_version for model in models if model.model_id == run_id), 0)

    wait_until(lambda: version() > 0, "weights of the run")
    with (
        contextlib.closing(RemoteVectorEnv(TASK, 1, address=f"127.0.0.1:{stack.ports['sim']}")) as robot,
        RemoteAgent(run_id, planner, record=True, replay=stack.replay_address) as agent,
    ):
        obs, _ = robot.reset(seed=1)
        for _ in range(2):
            for _ in range(STEPS):
                obs, reward, _, truncated, info = robot.step(agent.act(obs))
                agent.reward(reward)
            assert truncated.all()
            agent.finish(list(info["final_obs"]))
            assert agent.last_plan is None
            before = version()
            wait_until(lambda: version() > before, "newer weights")  # noqa: B023
    run = stack.follow(run_id, lambda run: False)
    assert run["state"] == "succeeded", run["error"]
    with ReplayClient(stack.replay_address) as replay:
        counters = replay.get_buffer(run_id)
        episodes = list(replay.read_episodes(buffer_id=run_id))
    lived = [episode for episode in episodes if episode.episode_id.startswith("robot-")]
    assert [(episode.task, episode.transitions) for episode in lived] == [(TASK, STEPS)] * 2
    assert lived[1].weights_versions[1] > lived[0].weights_versions[0] >= 1
    # The robot's steps are steps of the run: they have earned updates, and it ended when all were there.
    assert counters.env_steps == sum(episode.transitions for episode in episodes) >= 2500
    assert run["progress"]["updates"] == run["progress"]["total_updates"]
