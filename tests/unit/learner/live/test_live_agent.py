"""The agent of a play: it is that of its checkpoint, with a world model or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from newt.agent.checkpoints import save_checkpoint
from newt.agent.config import ModelConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.baselines.checkpoints import save_policy
from newt.baselines.config import PPOConfig
from newt.baselines.learners import make_learner
from newt.errors import PreconditionError
from newt.tasks.registry import get_task
from services.learner.checkpoints.library import load
from services.learner.live.agent import Seen, live_agent

TASK = get_task("walker-walk")
SEEN = Seen(np.linspace(-1, 1, 128, dtype=np.float32)[None], np.zeros((1, 0), np.float32))


def test_it_plans_acts_values_and_imagines(tmp_path: Path) -> None:
    sizes = {"latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32, "num_critics": 2, "encoder_layers": 2}
    table = TaskTable.build([TASK.name], torch.zeros(1, 0), [TASK.action_dim], [TASK.discount])
    model = WorldModel(ModelConfig(**sizes, language_dim=0), table, torch.Generator().manual_seed(0))
    save_checkpoint(tmp_path / "agent", Updater(model, TrainConfig()))
    agent = live_agent(load(tmp_path / "agent"), TASK, None, "cpu")
    planned = agent.plan(SEEN, 5)
    warm = agent.plan(SEEN, 5)
    agent.begin()
    np.testing.assert_array_equal(agent.plan(SEEN, 5).action, planned.action)
    assert not np.array_equal(warm.action, planned.action)  # it went on from its last plan
    assert 0.05 <= planned.spread <= 2
    expected = agent.imagine(SEEN, 4, 5, planned=False)
    np.testing.assert_allclose(expected.action[0], agent.policy(SEEN), atol=1e-6)
    assert (expected.reward.shape, expected.value.shape) == ((4,), (4,))
    assert not np.array_equal(agent.imagine(SEEN, 4, 5, planned=True).action, expected.action)
    with torch.no_grad():
        z = model.encode(torch.from_numpy(SEEN.obs), torch.zeros(1, dtype=torch.int64))
        action = torch.from_numpy(agent.policy(SEEN))[None]
        value = model.value(z, action, torch.zeros(1, dtype=torch.int64), torch.tensor([0, 1]), "avg")
    assert agent.value(SEEN) == pytest.approx(float(value), rel=1e-2, abs=1e-2)


def test_a_policy_without_a_world_model_only_acts(tmp_path: Path) -> None:
    config = PPOConfig(hidden_dim=8, rollout_steps=4, minibatches=2, epochs=1)
    table = TaskTable.build([TASK.name], torch.zeros(1, 0), [TASK.action_dim], [TASK.discount], 16)
    learner = make_learner(config, table, torch.tensor([0]), 128, seed=3)
    save_policy(tmp_path / "agent", learner, config, table, {"env_steps": 70, "updates": 3})
    agent = live_agent(load(tmp_path / "agent"), TASK, None, "cpu")
    with torch.no_grad():
        wanted = learner.policy.best_action(torch.from_numpy(SEEN.obs), torch.tensor([0]))
    np.testing.assert_allclose(agent.policy(SEEN), wanted[0], atol=1e-6)
    assert (agent.plans, agent.value(SEEN)) == (False, None)
    for ask in (lambda: agent.plan(SEEN, 1), lambda: agent.imagine(SEEN, 3, 1, planned=False)):
        with pytest.raises(PreconditionError, match="no world model"):
            ask()
