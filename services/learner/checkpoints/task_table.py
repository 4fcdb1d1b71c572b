"""The task table to use an agent with: its own rows where it has them, new rows for unseen tasks and changed texts.

An agent's networks do not depend on its table, so any table of the right width fits. What must fit is the text encoder:
vectors of another one mean nothing to the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from newt.agent.task_table import TaskTable
from newt.baselines.checkpoints import PolicyCheckpoint
from newt.errors import InvalidInputError, PreconditionError
from newt.tasks.embeddings import embed_texts
from newt.tasks.encoders import EncoderUnavailableError
from newt.tasks.registry import Task
from services.learner.checkpoints.files import AnyCheckpoint
from services.learner.checkpoints.usable import encoder_name


def task_table(
    checkpoint: AnyCheckpoint, tasks: Sequence[Task], instructions: Mapping[str, str] | None = None
) -> tuple[TaskTable, str]:
    """The table of some tasks for a checkpoint's agent.

    Args:
        checkpoint: Checkpoint of the agent.
        tasks: Rows of the table, seen in training or not.
        instructions: Texts by task that replace the registry's.

    Returns:
        The table, and the identity of the text encoder; empty without language.

    Raises:
        InvalidInputError: A text is too long for the encoder.
        PreconditionError: New texts have to be encoded and the agent's encoder is not here.
    """
    instructions = instructions or {}
    own, width = checkpoint.table, checkpoint.table.language_dim
    identity = str(checkpoint.info.get("text_encoder") or "")
    embeddings = torch.zeros(len(tasks), width)
    texts: dict[int, str] = {}
    if width:
        for row, task in enumerate(tasks):
            if task.name in own.names and task.name not in instructions:
                embeddings[row] = own.embeddings[own.index(task.name)]
            else:
                texts[row] = instructions.get(task.name, task.instruction)
    if texts:
        encoder = encoder_name(checkpoint.header if isinstance(checkpoint, PolicyCheckpoint) else checkpoint)
        vectors, identity = _embed(list(texts.values()), encoder, identity)
        embeddings[list(texts)] = vectors
    table = TaskTable.build(
        [task.name for task in tasks],
        embeddings,
        [task.action_dim for task in tasks],
        [task.discount for task in tasks],
        own.max_action_dim,
    )
    return table, identity


def _embed(texts: list[str], encoder: str, identity: str) -> tuple[torch.Tensor, str]:
    try:
        embedded = embed_texts(texts, encoder)
    except EncoderUnavailableError as error:
        raise PreconditionError(
            f"the agent reads texts through the encoder {encoder!r}, which cannot be used here: {error}; tasks that it "
            "was trained on need no encoder"
        ) from error
    except ValueError as error:
        raise InvalidInputError("instructions", str(error)) from error
    if identity and embedded.encoder != identity:
        raise PreconditionError(
            f"the agent was trained with the text encoder {identity!r}, here is {embedded.encoder!r}: vectors of the "
            "two must not meet; install the old one"
        )
    return torch.from_numpy(embedded.vectors), embedded.encoder
