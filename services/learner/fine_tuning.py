"""Runs that start from a checkpoint: which settings they take over, and the agent that they begin with.

All weights are the checkpoint's and all of them are trained; the task table is that of the new run, in the checkpoint's
language; optimisers, value scale, counters and replay start fresh.
"""

from __future__ import annotations

from pathlib import Path

from newt.agent.world_model import WorldModel
from newt.errors import InvalidInputError
from newt.runs.spec import ModelSpec, RunSpec
from services.learner import library
from services.learner.library import Resolved
from services.learner.task_tables import check_usable, encoder_name, task_table

INITIAL_FILE = "initial.safetensors"


def adopt(spec: RunSpec, checkpoint: Resolved) -> RunSpec:
    """The settings of a run that fine-tunes a checkpoint: the request's, with the checkpoint's model and language.

    Raises:
        InvalidInputError: The request asks for another model, language or encoder than the checkpoint's; names it.
        PreconditionError: The checkpoint's agent cannot act here.
    """
    header = checkpoint.header
    check_usable(header, spec.task_list(), {})
    config, given = header.model_config, spec.model.model_fields_set
    asked = spec.model.config()
    for name in ModelSpec.model_fields if "size" in given else given:
        if name != "size" and getattr(asked, name) != getattr(config, name):
            raise _taken_over(f"model.{name}", getattr(asked, name), getattr(config, name), checkpoint)
    language: dict[str, bool | str] = {"language": bool(config.language_dim)}
    if config.language_dim:
        language["text_encoder"] = encoder_name(config, header.info)
    for name, have in language.items():
        if name in spec.algorithm.model_fields_set and getattr(spec.algorithm, name) != have:
            raise _taken_over(f"algorithm.{name}", getattr(spec.algorithm, name), have, checkpoint)
    return spec.model_copy(
        update={
            "init_from": checkpoint.reference,
            "model": ModelSpec.of(config),
            "algorithm": spec.algorithm.model_copy(update=language),
        }
    )


def initial_agent(directory: Path, spec: RunSpec) -> tuple[WorldModel, str]:
    """The agent that a fine-tuning run begins with, on the CPU.

    Args:
        directory: The run's folder, where the checkpoint was put when the run was created.
        spec: Of the run.

    Returns:
        The model, and the identity of its text encoder; empty without language.

    Raises:
        NotFoundError: The file is gone.
        CorruptDataError: It is damaged.
        PreconditionError: Unseen tasks' instructions cannot be encoded here.
    """
    checkpoint = library.load(directory / INITIAL_FILE)
    table, encoder = task_table(checkpoint, spec.task_list())
    return checkpoint.model(table), encoder


def _taken_over(field: str, got: object, have: object, checkpoint: Resolved) -> InvalidInputError:
    return InvalidInputError(
        field, f"got {got}, but the checkpoint {checkpoint.reference} has {have}, which the run keeps; leave it out"
    )
