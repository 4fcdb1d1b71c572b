"""The agent that a run's algorithm trains: its model with fresh weights, and what updates it."""

from __future__ import annotations

import torch

from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.baselines.bc import CloneUpdater
from newt.runs.algorithms import AlgorithmName
from newt.runs.spec import RunSpec
from services.learner.seeds import derive

EMBEDDING_BOUND = 0.02
"""Learned task vectors begin uniformly within it, as TD-MPC2's do (its init.py)."""
_UPDATERS: dict[AlgorithmName, type[Updater]] = {"bc": CloneUpdater}


def updater_kind(spec: RunSpec) -> type[Updater]:
    """What updates the agent of a run."""
    return _UPDATERS.get(spec.algorithm.name, Updater)


def fresh_model(spec: RunSpec, embeddings: object | None) -> WorldModel:
    """The agent that a run begins with, on the CPU.

    Args:
        spec: Spec of the run.
        embeddings: float32[K, G] of the tasks' instructions; None without language.
    """
    tasks, config = spec.task_list(), spec.model_settings()
    if embeddings is None:
        draws = torch.Generator().manual_seed(derive(spec.seed, "task embeddings"))
        shape = len(tasks), config.language_dim
        embeddings = torch.empty(shape).uniform_(-EMBEDDING_BOUND, EMBEDDING_BOUND, generator=draws)
    table = TaskTable.build(
        [task.name for task in tasks],
        embeddings,
        [task.action_dim for task in tasks],
        [task.discount for task in tasks],
    )
    return WorldModel(config, table, torch.Generator().manual_seed(derive(spec.seed, "weights")))
