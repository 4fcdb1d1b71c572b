"""Small trained agents in checkpoint files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from newt.agent.checkpoints import save_checkpoint
from newt.agent.config import ModelConfig, PlanConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel

TASKS, OBS_DIMS, ACTION_DIMS = ("reach", "walk", "swim"), (5, 24, 0), (2, 6, 16)
PLAN = PlanConfig(num_samples=48, num_policy_trajectories=4, num_elites=8, iterations=2)
INFO: dict[str, Any] = {
    "env_steps": 7_000_000,  # in the middle of the constraint's schedule
    "guided_tasks": ["reach", "swim"],
    "obs_dims": list(OBS_DIMS),
    "spec": {"plan": PLAN.to_dict()},
}


def small_model(seed: int = 0, **sizes: Any) -> WorldModel:
    """A model whose every parameter is random, so that plans depend on everything."""
    generator = torch.Generator().manual_seed(seed)
    width = sizes.get("language_dim", 8)
    table = TaskTable.build(TASKS, torch.randn(3, width, generator=generator), ACTION_DIMS, [0.95, 0.99, 0.99])
    config = {"latent_dim": 32, "encoder_dim": 32, "encoder_layers": 2, "mlp_dim": 32, "num_critics": 3}
    model = WorldModel(ModelConfig(**{**config, "language_dim": 8, **sizes}), table, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def write_agent(path: Path, model: WorldModel | None = None, **info: Any) -> Path:
    """A checkpoint; None in `info` leaves an entry out."""
    stored = {name: value for name, value in {**INFO, **info}.items() if value is not None}
    save_checkpoint(path, Updater(model or small_model(), TrainConfig()), stored)
    return path
