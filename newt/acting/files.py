"""Trained agents in files of every kind, read to act with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from newt.acting.facts import AgentFacts
from newt.acting.trained import as_trained, trained_mode, trained_obs_dims
from newt.agent.checkpoints import Checkpoint, CheckpointError, load_checkpoint
from newt.agent.config import PlanConfig
from newt.agent.constraint import Guidance
from newt.agent.world_model import WorldModel
from newt.baselines.checkpoints import PolicyCheckpoint, load_policy
from newt.baselines.headers import is_policy
from newt.baselines.vector import Policy
from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.official.checkpoints import read_official

SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class StoredAgent:
    """An agent read from a file, on the CPU.

    Attributes:
        facts: Its tasks.
        network: Its world model, or the policy of an algorithm without one.
        plan: How it plans.
        guidance: How it was trained to act.
    """

    facts: AgentFacts
    network: WorldModel | Policy
    plan: PlanConfig
    guidance: Guidance


def find_file(path: Path | str) -> Path:
    """The file that a path stands for: itself, or the newest checkpoint in a folder (or in `checkpoints` below it).

    Raises:
        NotFoundError: Neither a file nor a folder with a checkpoint.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise NotFoundError(f"{path}: no such file; expected a checkpoint, or a folder with checkpoints")
        return path
    folders = (path, path / "checkpoints")
    files = [file for folder in folders for file in folder.glob(f"*{SUFFIX}") if file.is_file()]
    if not files:
        raise NotFoundError(f"{path}: a folder without a checkpoint; expected files named *{SUFFIX} in it")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def read_agent(path: Path | str, tasks: Sequence[str] | None = None) -> StoredAgent:
    """Reads an agent, of this project or published.

    Args:
        path: A file or folder, as `find_file` takes it.
        tasks: Names of the tasks of a published file, in row order, if they are not the 200; refused for others, which
            name theirs.

    Raises:
        NotFoundError: Nothing there.
        CorruptDataError: A damaged file.
        InvalidInputError: A file of another kind, or of other tasks than named.
    """
    path = find_file(path)
    with path.open("rb") as file:
        published = file.read(2) == b"PK"
    if published:
        return _of_checkpoint(read_official(path, tasks), str(path))
    if tasks is not None:
        raise InvalidInputError("tasks", f"{path} names its tasks itself; leave them out")
    try:
        stored = load_policy(path) if is_policy(path) else load_checkpoint(path)
    except CheckpointError as error:
        raise CorruptDataError(str(error)) from error
    return _of_policy(stored) if isinstance(stored, PolicyCheckpoint) else _of_checkpoint(stored, str(path))


def _of_checkpoint(checkpoint: Checkpoint, source: str) -> StoredAgent:
    model = checkpoint.model()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CorruptDataError(f"{source}: tensor {name} holds NaN or infinity: its training has diverged")
    plan, guidance = as_trained(checkpoint, checkpoint.table.names)
    config, table = checkpoint.model_config, checkpoint.table
    facts = AgentFacts(
        tasks=table.names,
        action_dims=tuple(table.action_dims.tolist()),
        obs_dims=trained_obs_dims(checkpoint.info, table.names),
        image_dim=config.image_dim,
        mode=trained_mode(checkpoint.info, plans=not config.policy_only),
        plans=not config.policy_only,
        obs_width=config.obs_dim,
        action_width=config.action_dim,
    )
    return StoredAgent(facts, model, plan, guidance)


def _of_policy(checkpoint: PolicyCheckpoint) -> StoredAgent:
    table = checkpoint.table
    facts = AgentFacts(
        tasks=table.names,
        action_dims=tuple(table.action_dims.tolist()),
        obs_dims=trained_obs_dims(checkpoint.info, table.names),
        mode="policy",
        plans=False,
    )
    return StoredAgent(facts, checkpoint.policy(), PlanConfig(), Guidance())
