"""Runs that start from a checkpoint: which settings they take over, and the agent that they begin with.

All weights are the checkpoint's and all of them are trained; the task table is that of the new run, in the checkpoint's
language; optimisers, value scale, counters and replay start fresh. A run with images can start from an agent that knows
none: its encoder gets input columns for them, with zeros for weights, so that it acts as before at first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from newt.agent.world_model import WorldModel
from newt.errors import InvalidInputError
from newt.official.checkpoints import with_images
from newt.runs.spec import ModelSpec, RunSpec, VisionSpec
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
            **_images(spec, checkpoint),
            "init_from": checkpoint.reference,
            "model": ModelSpec.of(config),
            "algorithm": spec.algorithm.model_copy(update=language),
        }
    )


def _images(spec: RunSpec, checkpoint: Resolved) -> dict[str, Any]:
    """What a run takes over from an agent that sees."""
    header = checkpoint.header
    image_dim = header.model_config.image_dim
    if not image_dim:
        return {}
    if "obs" in spec.model_fields_set and spec.obs != "state+rgb":
        raise _taken_over("obs", spec.obs, "image features (state+rgb)", checkpoint)
    known, vision = header.info.get("spec", {}).get("vision"), spec.vision
    if known:
        vision = VisionSpec.model_validate(known)
        for name in spec.vision.model_fields_set:
            if getattr(spec.vision, name) != getattr(vision, name):
                raise _taken_over(f"vision.{name}", getattr(spec.vision, name), getattr(vision, name), checkpoint)
    elif vision.feature_dim * vision.frames != image_dim:
        raise InvalidInputError(
            "vision",
            f"feature_dim {vision.feature_dim} times frames {vision.frames} must be the {image_dim} columns of image "
            f"features that {checkpoint.reference} takes; it does not tell how they are made up",
        )
    return {"obs": "state+rgb", "vision": vision}


def initial_agent(directory: Path, spec: RunSpec) -> tuple[WorldModel, str, str]:
    """The agent that a fine-tuning run begins with, on the CPU.

    Args:
        directory: The run's folder, where the checkpoint was put when the run was created.
        spec: Of the run.

    Returns:
        The model, the identity of its text encoder, empty without language, and that of its image encoder, empty
        without images or if unknown.

    Raises:
        NotFoundError: The file is gone.
        CorruptDataError: It is damaged.
        PreconditionError: Unseen tasks' instructions cannot be encoded here.
    """
    checkpoint = library.load(directory / INITIAL_FILE)
    table, encoder = task_table(checkpoint, spec.task_list())
    if spec.image_dim() and not checkpoint.model_config.image_dim:
        checkpoint = with_images(checkpoint, spec.image_dim())
    return checkpoint.model(table), encoder, str(checkpoint.info.get("image_encoder") or "")


def _taken_over(field: str, got: object, have: object, checkpoint: Resolved) -> InvalidInputError:
    return InvalidInputError(
        field, f"got {got}, but the checkpoint {checkpoint.reference} has {have}, which the run keeps; leave it out"
    )
