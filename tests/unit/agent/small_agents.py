"""Small agents with settled random weights, and batches for them."""

from typing import Any

import torch

from newt.agent.batch import UpdateBatch
from newt.agent.config import ModelConfig
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel

ACTION_DIMS = [2, 4, 1, 3]


def build_table(language_dim: int = 6, action_dim: int = 4) -> TaskTable:
    generator = torch.Generator().manual_seed(7)
    return TaskTable.build(
        ["reach", "push", "spin", "walk"],
        torch.randn(4, language_dim, generator=generator),
        ACTION_DIMS,
        [0.99, 0.95, 0.9, 0.98],
        max_action_dim=action_dim,
    )


def build_model(seed: int = 0, **overrides: Any) -> WorldModel:
    """A small model whose every parameter is random, so that no term of any loss vanishes."""
    sizes = {"latent_dim": 32, "encoder_dim": 24, "encoder_layers": 2, "mlp_dim": 40, "num_critics": 3}
    inputs = {"obs_dim": 10, "action_dim": 4, "language_dim": 6}
    config = ModelConfig(**{**sizes, **inputs, **overrides})
    generator = torch.Generator().manual_seed(seed)
    model = WorldModel(config, build_table(config.language_dim, config.action_dim), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return model


def build_batch(model: WorldModel, rows: int = 12, horizon: int = 3, seed: int = 1) -> UpdateBatch:
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    image = torch.randn(horizon + 1, rows, config.image_dim, generator=generator) if config.image_dim else None
    return UpdateBatch(
        obs=torch.randn(horizon + 1, rows, config.obs_dim, generator=generator),
        action=torch.rand(horizon, rows, config.action_dim, generator=generator) * 2 - 1,
        reward=torch.randn(horizon, rows, generator=generator),
        terminated=torch.zeros(horizon, rows, dtype=torch.bool),
        task=torch.arange(rows) % 4,
        image=image,
    )
