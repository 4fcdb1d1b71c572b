"""Whether an agent can do what it is asked for, as far as the header of its checkpoint tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from newt.baselines.headers import PolicyHeader
from newt.errors import InvalidInputError, PreconditionError
from newt.tasks.encoders import CLIP
from newt.tasks.registry import Task
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from services.learner.checkpoints.files import AnyHeader, reads_language

if TYPE_CHECKING:
    from newt.agent.checkpoints import Checkpoint


def encoder_name(header: AnyHeader | Checkpoint) -> str:
    """Name of the text encoder whose vectors the agent knows; empty for an agent without language.

    Published checkpoints do not name theirs, which was CLIP.
    """
    if not reads_language(header):
        return ""
    known: str = header.info.get("text_encoder") or CLIP
    return known.partition("@")[0]


def check_usable(header: AnyHeader, tasks: Sequence[Task], instructions: Mapping[str, str]) -> None:
    """Refuses what the agent could not do with tasks and texts, as far as the header tells.

    Raises:
        InvalidInputError: An instruction is blank or of another task, or the agent reads no language.
        PreconditionError: The agent has other dimensions than simulators, or tells tasks apart by learned vectors and
            has none for one of these.
    """
    config = None if isinstance(header, PolicyHeader) else header.model_config  # a policy's widths were checked
    if config is not None and (config.obs_dim, config.action_dim) != (PADDED_OBS_DIM, PADDED_ACTION_DIM):
        raise PreconditionError(
            f"the checkpoint's agent has obs_dim {config.obs_dim} and action_dim {config.action_dim}, simulators speak "
            f"{PADDED_OBS_DIM} and {PADDED_ACTION_DIM}"
        )
    names = {task.name for task in tasks}
    unseen = sorted(names - set(header.tasks))
    if config is not None and config.learned_embeddings and unseen:
        raise PreconditionError(
            f"the checkpoint's agent tells its tasks apart by vectors that it learned, and has none for {unseen[0]}; "
            f"choose among {', '.join(header.tasks[:20])}"
        )
    for name, text in instructions.items():
        if name not in names:
            raise InvalidInputError(f"instructions.{name}", f"not among the tasks {', '.join(sorted(names))}")
        if not text.strip():
            raise InvalidInputError(f"instructions.{name}", "got a blank text, expected what the agent is to do")
    if instructions and not reads_language(header):
        raise InvalidInputError("instructions", "the checkpoint's agent reads no language")
