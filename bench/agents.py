"""Agents and inputs that several benchmarks share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.measure import Effort
from newt.agent.batch import UpdateBatch
from newt.agent.config import ModelConfig
from newt.agent.task_table import TaskTable
from newt.agent.world_model import WorldModel
from newt.tasks.embeddings import embed_tasks
from newt.tasks.registry import select_tasks

TASK_SET = "mmbench"


def task_table() -> TaskTable:
    """All 200 training tasks, with their language."""
    tasks = select_tasks([TASK_SET])
    return TaskTable.build(
        [task.name for task in tasks],
        embed_tasks(tasks, "minilm-l6-v2").vectors,
        [task.action_dim for task in tasks],
        [task.discount for task in tasks],
    )


def world_model(size: str, seed: int = 0) -> WorldModel:
    """A model of a published size whose heads are not zero, so that plans depend on everything."""
    generator = torch.Generator().manual_seed(seed)
    model = WorldModel(ModelConfig.from_size(size), task_table(), generator)
    with torch.no_grad():
        for network in (model.reward_head, model.critics, model.target_critics):
            output = network.layer(2).weight
            output.add_(0.02 * torch.randn(output.shape, generator=generator))
    return model


def spread_tasks(model: WorldModel, rows: int) -> torch.Tensor:
    """int64[B]: tasks from all over the table."""
    return torch.linspace(0, len(model.table) - 1, rows).long()


def observations(rows: int, seed: int = 0) -> torch.Tensor:
    """float32[B, O]."""
    return torch.randn(rows, 128, generator=torch.Generator().manual_seed(seed))


def batch(model: WorldModel, rows: int, horizon: int = 3, seed: int = 0) -> UpdateBatch:
    """B random training sequences."""
    generator = torch.Generator().manual_seed(seed)
    task = spread_tasks(model, rows)
    action = torch.rand(horizon, rows, 16, generator=generator) * 2 - 1
    return UpdateBatch(
        obs=torch.randn(horizon + 1, rows, 128, generator=generator),
        action=action * model.action_masks[task],
        reward=torch.rand(horizon, rows, generator=generator),
        terminated=torch.zeros(horizon, rows, dtype=torch.bool),
        task=task,
    )


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets torch's threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_counts(effort: Effort) -> list[int]:
    """One, as the local stack gives to each process; and one per core, for a machine of one's own."""
    every = sorted({1, len(os.sched_getaffinity(0))})
    return effort.pick(full=every, quick=every, tiny=[1])


def thread_suffix(threads: int) -> str:
    """End of a figure's key; one thread is what keys without it mean."""
    return "" if threads == 1 else f".threads{threads}"
