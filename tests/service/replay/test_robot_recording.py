"""A robot trains the agent that acts on it: episodes that a program has lived through, in the replay of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from agent_files import write_agent
from replay_episodes import make_buffer, take

from newt.client import RemoteAgent
from newt.client.replay import ReplayClient
from newt.errors import InvalidInputError, NotFoundError, PreconditionError
from newt.local.models import ServedModels
from newt.wire.episodes import Behaviour
from services.planner.service import PlannerService
from services.planner.settings import PlannerSettings
from services.replay.service import ReplayService

DIMS = {"reach": (5, 2), "walk": (24, 6)}
RANDOM = np.random.default_rng(0)


@pytest.fixture
def planner(tmp_path: Path) -> Iterator[str]:
    """A planner that serves a run's agent from a file."""
    settings = PlannerSettings(port=0, hub="127.0.0.1:1", torch_threads=1, models_dir=str(tmp_path / "models"))
    service = PlannerService(settings)
    service.server.start()
    service.start()
    ServedModels(tmp_path / "models", service.server.address).serve("run", write_agent(tmp_path / "agent"), 30)
    yield service.server.address
    service.drain()
    service.server.stop(grace_s=1)
    service.close()


@pytest.fixture
def agent(planner: str, service: ReplayService, client: ReplayClient) -> Iterator[RemoteAgent]:
    make_buffer(client, tasks=DIMS)
    with RemoteAgent("run", planner, record=True, replay=service.server.address, timeout_s=5) as agent:
        yield agent


def test_an_episode_arrives_as_it_was_lived_through(agent: RemoteAgent, client: ReplayClient) -> None:
    seen, rewards = RANDOM.standard_normal((5, 5)).astype(np.float32), [0.5, 1, 1.5, 2]
    done = []
    for obs, reward in zip(seen, rewards, strict=False):
        done.append(agent.act(obs, "reach"))
        agent.reward(reward)
    agent.finish(seen[-1], terminated=True, success=1, score=0.75)
    (episode,) = client.read_episodes(buffer_id="run")
    np.testing.assert_array_equal(episode.obs, seen)
    np.testing.assert_array_equal(episode.action, done)
    np.testing.assert_array_equal(episode.reward, rewards)
    assert (episode.task, episode.terminated, episode.success, episode.score) == ("reach", True, 1, 0.75)
    assert episode.behaviour == Behaviour.PLANNER
    assert episode.weights_versions[0] > 0
    assert client.get_buffer("run").env_steps == 4  # which earn updates
    (batch,) = take(client, demo_fraction=0.0)
    np.testing.assert_allclose(batch.obs[0, 0, :5], seen[batch.obs[0, 0, 0] == seen[:, 0]][0])


def test_rows_end_one_by_one_and_a_reset_throws_away(agent: RemoteAgent, client: ReplayClient) -> None:
    rows = [RANDOM.standard_normal(5), RANDOM.standard_normal(24)]
    for _ in range(3):
        agent.act(rows, ["reach", "walk"])
        agent.reward([1, 2])
    agent.finish(rows[:1], rows=[0])
    agent.act(rows, ["reach", "walk"])  # row 0 begins another episode
    agent.reward([1, 2])
    agent.reset([0])
    agent.act(rows, ["reach", "walk"])
    agent.reward([1, 2])
    agent.finish(rows)
    lengths = [(episode.task, episode.transitions) for episode in client.read_episodes(buffer_id="run")]
    assert lengths == [("reach", 3), ("reach", 1), ("walk", 5)]


def test_what_is_missing_or_wrong_is_said(
    agent: RemoteAgent, planner: str, client: ReplayClient, service: ReplayService
) -> None:
    obs = np.zeros(5)
    with pytest.raises(PreconditionError, match="call act"):
        agent.reward(1)
    agent.act(obs, "reach")
    with pytest.raises(PreconditionError, match="has no reward: call reward"):
        agent.act(obs, "reach")
    with pytest.raises(PreconditionError, match="has no reward: call reward"):
        agent.finish(obs)
    for wrong in (np.nan, [1, 2]):
        with pytest.raises(InvalidInputError, match="reward: got"):
            agent.reward(wrong)
    agent.reward(1)
    with pytest.raises(InvalidInputError, match="got 4 columns, expected 5 for reach"):
        agent.finish(obs[1:])
    agent.finish(obs)  # nothing was lost by any of it
    assert [episode.transitions for episode in client.read_episodes(buffer_id="run")] == [1]
    with pytest.raises(InvalidInputError, match="columns of swim's observation are not known"):
        agent.act(obs, "swim")
    with RemoteAgent("run", planner) as silent, pytest.raises(PreconditionError, match="record=True"):
        silent.reward(1)
    client.delete_buffer("run")
    with pytest.raises(NotFoundError):
        RemoteAgent("run", planner, record=True, replay=service.server.address)
