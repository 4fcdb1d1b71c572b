"""Files of both kinds: of the agent, which plans, and of policies that learnt without a world model.

Torch is imported by what reads tensors and not before: the REST API reads headers, and starts in half the time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

from newt.agent.checkpoint_header import CheckpointError
from newt.agent.headers import Header, read_header
from newt.baselines.headers import PolicyHeader, is_policy, read_policy_header
from newt.runs.facts import read_facts
from newt.tasks.registry import Task, all_tasks

if TYPE_CHECKING:
    from newt.agent.checkpoints import Checkpoint
    from newt.baselines.checkpoints import PolicyCheckpoint

AnyCheckpoint: TypeAlias = "Checkpoint | PolicyCheckpoint"
AnyHeader = Header | PolicyHeader


def read_any_header(path: Path) -> AnyHeader:
    """What a file says about itself. Raises FileNotFoundError, CheckpointError."""
    return read_policy_header(path) if is_policy(path) else read_header(path)


def load_any(path: Path) -> AnyCheckpoint:
    """A file's whole content. Raises FileNotFoundError, CheckpointError."""
    from newt.agent.checkpoints import load_checkpoint
    from newt.baselines.checkpoints import load_policy

    try:
        policy = is_policy(path)
    except CheckpointError:
        policy = False  # the agent's reader says best what is wrong
    return load_policy(path) if policy else load_checkpoint(path)


def facts_of(header: AnyHeader) -> list[Task]:
    """What the agent's tasks were when its run was created; nothing where the file does not tell.

    A task is played by whichever simulator describes it now.
    """
    try:
        stored = read_facts(header.info.get("task_facts"))
    except ValidationError:
        return []
    now = {task.name: task.domain for task in all_tasks()}
    return [replace(task, domain=now.get(task.name, task.domain)) for task in stored]


def reads_language(header: AnyHeader | Checkpoint) -> bool:
    """Whether an agent is told its task by the text."""
    return bool(header.language_dim) if isinstance(header, PolicyHeader) else header.model_config.reads_language


def size_name(header: AnyHeader) -> str:
    """The model's size, or the algorithm of one that has no world model."""
    return header.algorithm if isinstance(header, PolicyHeader) else header.model_config.size


def plans(header: AnyHeader) -> bool:
    """Whether an agent has a world model to plan with."""
    return not (isinstance(header, PolicyHeader) or header.model_config.policy_only)
