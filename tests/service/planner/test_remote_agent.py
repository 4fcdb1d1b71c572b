"""The planner service in a program of one's own: the same actions as those of the agent in the program's process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from agent_files import INFO, OBS_DIMS, PLAN, TASKS, small_model, write_agent
from planner_rig import Hub, until, version_served

from newt.agent import Agent
from newt.agent.checkpoints import weights_to_bytes
from newt.agent.config import PlanConfig
from newt.client import RemoteAgent
from newt.client.planner import PlannerClient
from newt.client.weights import publish
from newt.errors import InvalidInputError, NotFoundError, PreconditionError
from services.planner.service import PlannerService


def serve(hub: Hub, version: int = 1, plan: PlanConfig = PLAN, **info: object) -> None:
    entries = {name: value for name, value in {**INFO, **info}.items() if name != "spec"}
    weights = weights_to_bytes(small_model(version), entries)
    publish(hub.address, "run", version, weights, json.dumps(plan.to_dict()), timeout_s=10)


def test_both_agents_act_alike(hub: Hub, planner: PlannerService, client: PlannerClient, tmp_path: Path) -> None:
    serve(hub)
    until(lambda: version_served(client, "run") == 1)
    local = Agent.load(write_agent(tmp_path / "agent", small_model(1)), device="cpu", precision="float32", seed=5)
    draws = np.random.default_rng(1)
    with RemoteAgent("run", planner.server.address, seed=5) as remote:
        assert remote.facts == local.facts
        for task, dim in zip(TASKS, (5, 24, 100), strict=True):
            for agent in (local, remote):
                agent.reset()
            for _ in range(3):
                obs = draws.standard_normal(dim)
                np.testing.assert_allclose(remote.act(obs, task), local.act(obs, task), atol=1e-5)
            assert remote.last_plan is not None
            assert remote.last_plan.weights_version == 1
        with pytest.raises(InvalidInputError, match="got 4 columns, expected 5 for reach"):
            remote.act(np.zeros(4), "reach")


def test_how_training_acted_travels_with_the_weights(hub: Hub, planner: PlannerService, client: PlannerClient) -> None:
    serve(hub, trained_mode="policy")
    until(lambda: version_served(client, "run") == 1)
    with RemoteAgent("run", planner.server.address) as agent:
        assert (agent.mode, agent.facts.obs_dims) == ("policy", OBS_DIMS)
        assert agent.act(np.zeros(5), "reach").shape == (2,)


def test_a_model_that_is_not_served_is_named(hub: Hub, planner: PlannerService, client: PlannerClient) -> None:
    serve(hub)
    until(lambda: version_served(client, "run") == 1)
    with pytest.raises(NotFoundError, match="no model 'walker'; it serves run"):
        RemoteAgent("walker", planner.server.address)
    publish(hub.address, "bad", 1, b"nonsense", "{}", timeout_s=10)
    until(lambda: "bad" in client.refused(timeout_s=5))
    with pytest.raises(PreconditionError, match="refused model 'bad': version 1"):
        RemoteAgent("bad", planner.server.address)


def test_newer_weights_are_acted_with_unless_they_mean_something_else(
    hub: Hub, planner: PlannerService, client: PlannerClient
) -> None:
    serve(hub)
    until(lambda: version_served(client, "run") == 1)
    with RemoteAgent("run", planner.server.address) as agent:
        for version, horizon in ((2, PLAN.horizon), (3, 5)):
            agent.act(np.zeros(5), "reach")
            serve(hub, version, replace(PLAN, horizon=horizon))
            until(lambda version=version: version_served(client, "run") == version)
            agent.act(np.zeros(5), "reach")
            assert agent.last_plan is not None
            assert agent.last_plan.weights_version == version
            assert agent.last_plan.next_mean is not None
            assert agent.last_plan.next_mean.shape[1] == horizon
        serve(hub, 4, obs_dims=[6, 24, 0])
        until(lambda: version_served(client, "run") == 4)
        with pytest.raises(PreconditionError, match="make a new RemoteAgent"):
            agent.act(np.zeros(5), "reach")


def test_a_robot_is_not_kept_waiting(hub: Hub, planner: PlannerService, client: PlannerClient) -> None:
    serve(hub)
    until(lambda: version_served(client, "run") == 1)
    with RemoteAgent("run", planner.server.address, deadline_s=1e-6) as agent:
        for _ in range(20):
            assert agent.act(np.ones(24), "walk").shape == (6,)
        assert agent.counts.steps == 20
        assert 0 < agent.counts.late < 20  # no plan takes a microsecond, and the first one is waited for
    with pytest.raises(InvalidInputError, match="deadline_s"):
        RemoteAgent("run", planner.server.address, deadline_s=20)
