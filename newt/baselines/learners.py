"""Learners by the names of their algorithms."""

from __future__ import annotations

import torch
from torch import Tensor

from newt.agent.task_table import TaskTable
from newt.baselines.config import Config, PPOConfig
from newt.baselines.fasttd3 import FastTD3
from newt.baselines.fasttd3_networks import Actor
from newt.baselines.ppo import PPO, PPOPolicy
from newt.baselines.vector import Policy, VectorLearner


def make_policy(config: Config, table: TaskTable, obs_dim: int) -> Policy:
    """What acts, with weights still to be loaded."""
    return PPOPolicy(config, table, obs_dim) if isinstance(config, PPOConfig) else Actor(config, table, obs_dim)


def make_learner(
    config: Config,
    table: TaskTable,
    tasks: Tensor,
    obs_dim: int,
    seed: int,
    device: torch.device | str = "cpu",
    capacity_steps: int | None = None,
) -> VectorLearner:
    """A fresh learner; the arguments are those of PPO and FastTD3."""
    if isinstance(config, PPOConfig):
        return PPO(config, table, tasks, obs_dim, seed, device)
    return FastTD3(config, table, tasks, obs_dim, seed, device, capacity_steps)
