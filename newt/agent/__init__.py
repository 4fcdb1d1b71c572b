"""The Newt agent: world model, losses and update, planning, checkpoints. Pure torch, CPU and CUDA."""

from newt.agent.config import ConfigError, ModelConfig, PlanConfig, TrainConfig
from newt.agent.inference import InferenceModel
from newt.agent.learner import Learner
from newt.agent.losses import Batch, UpdateNoise
from newt.agent.plan_noise import PlanNoise
from newt.agent.planning import Planner, PlanResult
from newt.agent.task_table import TaskTable
from newt.agent.world_model import PolicySample, WorldModel, parameter_counts

__all__ = [
    "Batch",
    "ConfigError",
    "InferenceModel",
    "Learner",
    "ModelConfig",
    "PlanConfig",
    "PlanNoise",
    "PlanResult",
    "Planner",
    "PolicySample",
    "TaskTable",
    "TrainConfig",
    "UpdateNoise",
    "WorldModel",
    "parameter_counts",
]
