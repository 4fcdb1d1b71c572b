"""Checkpoints of tiny agents that nobody trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from newt.agent.checkpoints import save_checkpoint
from newt.agent.config import ModelConfig, TrainConfig
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.tasks.embeddings import embed_tasks
from newt.tasks.registry import get_task

SIZES = {"latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32}
PLAN = {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2}


def write_agent(
    path: Path,
    tasks: Sequence[str],
    *,
    push: float | None = None,
    trained: Mapping[str, Any] | None = None,
    **sizes: int,
) -> Updater:
    """Writes a checkpoint of a language-conditioned agent.

    Args:
        path: Where to.
        tasks: Of its table.
        push: The policy's mean before tanh, whatever it sees and is told; None for one that depends on both.
        trained: More entries of the checkpoint's info.
        sizes: Other sizes.

    Returns:
        What was written.
    """
    known = [get_task(name) for name in tasks]
    embedded = embed_tasks(known, "minilm-l6-v2")
    table = TaskTable.build(
        tasks, embedded.vectors, [task.action_dim for task in known], [task.discount for task in known]
    )
    generator = torch.Generator().manual_seed(1)
    model = WorldModel(ModelConfig.from_size("XS", **{**SIZES, **sizes}), table, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        if push is not None:
            head = model.policy_head.layers[-1]
            head.weight.zero_()
            head.bias[: model.config.action_dim] = push
            head.bias[model.config.action_dim :] = -10.0  # no spread
    updater = Updater(model, TrainConfig())
    info = {"env_steps": 0, "updates": 0, "text_encoder": embedded.encoder, "spec": {"plan": PLAN}}
    save_checkpoint(path, updater, {**info, **(trained or {})})
    return updater
