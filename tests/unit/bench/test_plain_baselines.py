"""A ratio means something only if both sides compute the same: the plain agent against ours, with the same draws."""

from __future__ import annotations

import torch

from bench import agents
from bench.baselines.plain_model import PlainModel
from bench.baselines.plain_mppi import PlainPlanner
from bench.baselines.plain_update import PlainLearner
from newt.agent.batch import draw_noise
from newt.agent.config import PlanConfig, TrainConfig
from newt.agent.plan_noise import PlanDraws
from newt.agent.planning import Planner
from newt.agent.update import Updater


def test_the_plain_planner_plans_what_ours_plans() -> None:
    model = agents.world_model("XS")
    config = PlanConfig(num_samples=64, num_policy_trajectories=4, num_elites=8, iterations=3)
    rows = 3
    obs, task = agents.observations(rows), agents.spread_tasks(model, rows)
    mean = 0.1 * torch.randn(rows, config.horizon, 16, generator=torch.Generator().manual_seed(3))
    mean = mean * model.action_masks[task][:, None]
    draws = PlanDraws(config, 16, 16, model.config.num_critics, torch.device("cpu"))
    noise = draws.plan(torch.tensor([1, 2, 3]), config.horizon)
    ours = Planner(model, config).plan(obs, task, seeds=torch.arange(rows), prev_mean=mean, noise=noise)
    action, plain_mean = PlainPlanner(PlainModel(model), config).plan(obs, task, mean, noise)
    torch.testing.assert_close(plain_mean, ours.next_mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(action, ours.action, rtol=1e-3, atol=1e-4)
    assert ours.next_mean.abs().sum() > 0


def test_the_plain_update_makes_the_same_steps_as_ours() -> None:
    model = agents.world_model("XS")
    plain = PlainLearner(PlainModel(model), TrainConfig())
    ours = Updater(model, TrainConfig())
    batch = agents.batch(model, rows=16)
    for seed in range(3):
        noise = draw_noise(model, len(batch.task), TrainConfig().horizon, torch.tensor(seed), pretrain=False)
        metrics = ours.rl_update(batch, noise)
        losses = plain.update(batch, noise)
        for name, loss in losses.items():
            torch.testing.assert_close(torch.tensor(loss), metrics[name], rtol=1e-3, atol=1e-5)
    # As far apart as rounding takes them in three updates, not as far as three updates move them (1e-3).
    for other, own in zip(PlainModel(model).parameters(), plain.model.parameters(), strict=True):
        assert (other - own).abs().mean() < 5e-5
    assert abs(plain.scale - float(ours.value_scale.value)) < 1e-3
