"""Agents in files of the other kinds: published ones, and policies without a world model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from newt.agent import Agent
from newt.agent.checkpoints import load_checkpoint, save_checkpoint
from newt.agent.config import ModelConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.baselines.checkpoints import save_policy
from newt.baselines.config import PPOConfig
from newt.baselines.learners import make_learner
from newt.errors import InvalidInputError
from newt.official.checkpoints import write_official


def test_a_published_file_acts_as_the_agent_in_it(tmp_path: Path) -> None:
    sizes = {"latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32, "num_critics": 2, "encoder_layers": 2}
    table = TaskTable.build(["walker-walk"], torch.zeros(1, 0), [6], [0.99])
    model = WorldModel(ModelConfig(**sizes, language_dim=0), table, torch.Generator().manual_seed(0))
    own, published = tmp_path / "own", tmp_path / "published.pt"
    save_checkpoint(own, Updater(model, TrainConfig()))
    write_official(published, load_checkpoint(own))
    with pytest.raises(InvalidInputError, match="name the task"):
        Agent.load(published)
    agents = [Agent.load(own, seed=0), Agent.load(published, tasks=["walker-walk"], seed=0)]
    obs = np.linspace(-1, 1, 24)
    first, second = [agent.act(obs) for agent in agents]  # its only task needs no name
    np.testing.assert_array_equal(first, second)
    with pytest.raises(InvalidInputError, match="got 23 columns, expected 24 for walker-walk"):
        agents[1].act(obs[1:])


def test_a_policy_without_a_world_model_acts(tmp_path: Path) -> None:
    config = PPOConfig(hidden_dim=8, rollout_steps=4, minibatches=2, epochs=1)
    table = TaskTable.build(["one", "two"], torch.randn(2, 4), [1, 2], [0.9, 0.5], 16)
    learner = make_learner(config, table, torch.tensor([0, 1]), 128, seed=3)
    save_policy(tmp_path / "agent", learner, config, table, {"env_steps": 70, "updates": 3})
    agent = Agent.load(tmp_path / "agent")
    assert agent.mode == "policy"
    actions = agent.act(np.ones((2, 7)), ["one", "two"])
    with torch.no_grad():
        obs = torch.nn.functional.pad(torch.ones(2, 7), (0, 121))
        wanted = learner.policy.best_action(obs, torch.tensor([0, 1]))
    np.testing.assert_allclose(actions, wanted[:, :2], atol=1e-6)
    with pytest.raises(InvalidInputError, match="explore"):
        Agent.load(tmp_path / "agent", explore=True).act(np.ones(7), "one")
    with pytest.raises(InvalidInputError, match="no world model"):
        Agent.load(tmp_path / "agent", mode="planner")
