"""The Newt agent: world model, losses and update, planning, checkpoints. Pure torch, CPU and CUDA."""

from newt.agent.checkpoints import (
    Checkpoint,
    CheckpointError,
    Weights,
    load_checkpoint,
    save_checkpoint,
    weights_from_bytes,
    weights_to_bytes,
)
from newt.agent.config import ConfigError, ModelConfig, PlanConfig, TrainConfig
from newt.agent.distributed import PeerLostError, Ranks, process_group
from newt.agent.inference import InferenceModel, fastest_dtype
from newt.agent.learner import Learner
from newt.agent.losses import Batch, UpdateNoise
from newt.agent.plan_noise import PlanNoise
from newt.agent.planning import Planner, PlanResult
from newt.agent.task_table import TaskTable
from newt.agent.world_model import PolicySample, WorldModel, parameter_counts

__all__ = [
    "Batch",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "InferenceModel",
    "Learner",
    "ModelConfig",
    "PeerLostError",
    "PlanConfig",
    "PlanNoise",
    "PlanResult",
    "Planner",
    "PolicySample",
    "Ranks",
    "TaskTable",
    "TrainConfig",
    "UpdateNoise",
    "Weights",
    "WorldModel",
    "fastest_dtype",
    "load_checkpoint",
    "parameter_counts",
    "process_group",
    "save_checkpoint",
    "weights_from_bytes",
    "weights_to_bytes",
]
