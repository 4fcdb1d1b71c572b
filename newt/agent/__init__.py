"""The Newt agent: world model, losses and update, planning, checkpoints. Pure torch, CPU and CUDA."""

from newt.agent.config import ConfigError, ModelConfig, PlanConfig, TrainConfig
from newt.agent.learner import Learner
from newt.agent.losses import Batch, UpdateNoise
from newt.agent.task_table import TaskTable
from newt.agent.world_model import PolicySample, WorldModel, parameter_counts

__all__ = [
    "Batch",
    "ConfigError",
    "Learner",
    "ModelConfig",
    "PlanConfig",
    "PolicySample",
    "TaskTable",
    "TrainConfig",
    "UpdateNoise",
    "WorldModel",
    "parameter_counts",
]
