"""The agent that a run begins with which starts from a checkpoint.

All weights are the checkpoint's and all of them are trained; the task table is that of the new run, in the checkpoint's
language; optimisers, value scale, counters and replay start fresh. A run with images can start from an agent that knows
none: its encoder gets input columns for them, with zeros for weights, so that it acts as before at first.
"""

from __future__ import annotations

from pathlib import Path

from newt.agent.checkpoints import Checkpoint
from newt.agent.world_model import WorldModel
from newt.official.checkpoints import with_images
from newt.runs.spec import RunSpec
from services.learner.checkpoints import library
from services.learner.checkpoints.task_table import task_table


def initial_agent(path: Path, spec: RunSpec) -> tuple[WorldModel, str, str]:
    """The agent that a fine-tuning run begins with, on the CPU.

    Args:
        path: The checkpoint, which was put aside when the run was created.
        spec: Spec of the run.

    Returns:
        The model, the identity of its text encoder, empty without language, and that of its image encoder, empty
        without images or if unknown.

    Raises:
        NotFoundError: The file is gone.
        CorruptDataError: It is damaged.
        PreconditionError: Unseen tasks' instructions cannot be encoded here.
    """
    checkpoint = library.load(path)
    assert isinstance(checkpoint, Checkpoint)  # checked when it was put aside
    table, encoder = task_table(checkpoint, spec.task_list())
    if spec.image_dim() and not checkpoint.model_config.image_dim:
        checkpoint = with_images(checkpoint, spec.image_dim())
    return checkpoint.model(table), encoder, str(checkpoint.info.get("image_encoder") or "")
