"""Storing learners: the same files as the agent's checkpoints, with a header that names the algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newt.agent import blobs
from newt.agent.checkpoint_header import CheckpointError, Json
from newt.agent.headers import read_text
from newt.agent.task_table import TaskTable
from newt.baselines.config import Config, kind_of
from newt.baselines.headers import FORMAT, FORMAT_VERSION, PolicyHeader, document_of, header_of
from newt.baselines.learners import make_policy
from newt.baselines.vector import Policy, VectorLearner, load_module, under
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM

_TABLE = "table.embeddings"


@dataclass(frozen=True)
class PolicyCheckpoint:
    """A learner's state read from a file.

    Attributes:
        header: What it says about itself.
        table: Its tasks.
        state: `VectorLearner.state_dict`'s tensors.
    """

    header: PolicyHeader
    table: TaskTable
    state: dict[str, Tensor]

    @property
    def info(self) -> Json:
        """What the writer added: counters, run id, versions."""
        return self.header.info

    def policy(self, table: TaskTable | None = None) -> Policy:
        """Builds what acts, on the CPU, for the tasks of another `table` or its own. Raises CheckpointError."""
        policy = make_policy(self.header.config, table or self.table, PADDED_OBS_DIM)
        try:
            load_module(policy, under("policy.", self.state))
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        return policy.eval()


def save_policy(path: Path, learner: VectorLearner, config: Config, table: TaskTable, info: Mapping[str, Any]) -> None:
    """Writes a learner's whole state. Raises OSError; an earlier file of that name is untouched then."""
    copied_policy(learner, config, table, info)(path)


def copied_policy(
    learner: VectorLearner, config: Config, table: TaskTable, info: Mapping[str, Any]
) -> Callable[[Path], None]:
    """Copies what `save_policy` writes, and returns what writes the copy, as `newt.agent.checkpoints` does."""
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "torch": torch.__version__,
        "algorithm": kind_of(config),
        "settings": config.to_dict(),
        "obs_dim": PADDED_OBS_DIM,
        "language_dim": table.language_dim,
        "tasks": {
            "names": list(table.names),
            "action_dims": table.action_dims.tolist(),
            "discounts": table.discounts.tolist(),
        },
        "info": dict(info),
    }
    state = {_TABLE: table.embeddings, **learner.state_dict()}

    def write(path: Path) -> None:
        blobs.write(path, blobs.pack(document, state))

    return write


def load_policy(path: Path | str) -> PolicyCheckpoint:
    """Reads a file to the CPU.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: It is truncated, altered, of another kind or of a newer format.
    """
    source = str(path)
    text, tensors = blobs.unpack(Path(path).read_bytes(), source)
    document = document_of(text, source)
    header = header_of(document, read_text(path)[1], source)
    embeddings = tensors.pop(_TABLE, None)
    rows = document.tasks
    if embeddings is None or embeddings.shape != (len(rows.names), document.language_dim):
        raise CheckpointError(f"{source}: {_TABLE} is missing or has another shape than its header says")
    try:
        table = TaskTable.build(rows.names, embeddings, rows.action_dims, rows.discounts, PADDED_ACTION_DIM)
    except ValueError as error:
        raise CheckpointError(f"{source}: tasks: {error}") from error
    checkpoint = PolicyCheckpoint(header, table, tensors)
    checkpoint.policy()
    return checkpoint
