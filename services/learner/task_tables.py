"""The task table to use an agent with: its own rows where it has them, new rows for unseen tasks and changed texts.

An agent's networks do not depend on its table, so any table of the right width fits. What must fit is the text encoder:
vectors of another one mean nothing to the agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from newt.agent.checkpoints import Checkpoint, Header
from newt.agent.config import ModelConfig
from newt.agent.task_table import TaskTable
from newt.errors import InvalidInputError, PreconditionError
from newt.tasks.embeddings import embed_texts
from newt.tasks.encoders import CLIP, EncoderUnavailableError
from newt.tasks.registry import PADDED_ACTION_DIM, PADDED_OBS_DIM, Task


def encoder_name(config: ModelConfig, info: Mapping[str, Any]) -> str:
    """Name of the text encoder whose vectors the agent knows; empty for an agent without language.

    Published checkpoints do not name theirs, which was CLIP.
    """
    if not config.language_dim:
        return ""
    known: str = info.get("text_encoder") or CLIP
    return known.partition("@")[0]


def check_usable(header: Header, tasks: Sequence[Task], instructions: Mapping[str, str]) -> None:
    """Refuses what the agent could not do with tasks and texts, as far as the header tells.

    Raises:
        InvalidInputError: An instruction is blank or of another task, or the agent reads no language.
        PreconditionError: The agent needs image features, which simulators do not give yet, or has other dimensions
            than simulators.
    """
    config = header.model_config
    if config.image_dim:
        raise PreconditionError(
            f"the checkpoint's agent observes images ({config.image_dim} features), which simulators do not give yet; "
            "use one that observes the state alone"
        )
    if (config.obs_dim, config.action_dim) != (PADDED_OBS_DIM, PADDED_ACTION_DIM):
        raise PreconditionError(
            f"the checkpoint's agent has obs_dim {config.obs_dim} and action_dim {config.action_dim}, simulators speak "
            f"{PADDED_OBS_DIM} and {PADDED_ACTION_DIM}"
        )
    names = {task.name for task in tasks}
    for name, text in instructions.items():
        if name not in names:
            raise InvalidInputError(f"instructions.{name}", f"not among the tasks {', '.join(sorted(names))}")
        if not text.strip():
            raise InvalidInputError(f"instructions.{name}", "got a blank text, expected what the agent is to do")
    if instructions and not config.language_dim:
        raise InvalidInputError("instructions", "the checkpoint's agent reads no language")


def task_table(
    checkpoint: Checkpoint, tasks: Sequence[Task], instructions: Mapping[str, str] | None = None
) -> tuple[TaskTable, str]:
    """The table of some tasks for a checkpoint's agent.

    Args:
        checkpoint: Whose agent.
        tasks: Rows of the table, seen in training or not.
        instructions: Texts by task that replace the registry's.

    Returns:
        The table, and the identity of the text encoder; empty without language.

    Raises:
        InvalidInputError: A text is too long for the encoder.
        PreconditionError: New texts have to be encoded and the agent's encoder is not here.
    """
    instructions = instructions or {}
    own, width = checkpoint.table, checkpoint.model_config.language_dim
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
        encoder = encoder_name(checkpoint.model_config, checkpoint.info)
        vectors, identity = _embed(list(texts.values()), encoder, identity)
        embeddings[list(texts)] = vectors
    table = TaskTable.build(
        [task.name for task in tasks],
        embeddings,
        [task.action_dim for task in tasks],
        [task.discount for task in tasks],
        checkpoint.model_config.action_dim,
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
