"""The Newt agent: world model, losses and update, planning, checkpoints. Pure torch, CPU and CUDA.

Names are imported when they are first used: whoever needs the settings only (`newt.agent.config`: the command line, the
schema of a run) does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "checkpoints": (
        "Checkpoint",
        "CheckpointError",
        "Weights",
        "load_checkpoint",
        "save_checkpoint",
        "weights_from_bytes",
        "weights_to_bytes",
    ),
    "config": ("ConfigError", "ModelConfig", "PlanConfig", "TrainConfig"),
    "distributed": ("PeerLostError", "Ranks", "process_group"),
    "inference": ("InferenceModel", "fastest_dtype"),
    "learner": ("Learner",),
    "losses": ("Batch", "UpdateNoise"),
    "plan_noise": ("PlanNoise",),
    "planning": ("PlanResult", "Planner"),
    "task_table": ("TaskTable",),
    "world_model": ("PolicySample", "WorldModel", "parameter_counts"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
