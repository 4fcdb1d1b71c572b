"""Which settings runs take over that start from a checkpoint."""

from __future__ import annotations

from typing import Any

from newt.agent.headers import Header
from newt.baselines.headers import PolicyHeader
from newt.errors import InvalidInputError, PreconditionError
from newt.runs.sections import ModelSpec, VisionSpec
from newt.runs.spec import RunSpec
from newt.runs.stored import read
from services.learner.checkpoints.library import Resolved
from services.learner.checkpoints.usable import check_usable, encoder_name


def adopt(spec: RunSpec, checkpoint: Resolved) -> RunSpec:
    """The settings of a run that fine-tunes a checkpoint: the request's, with the checkpoint's model and language.

    Raises:
        InvalidInputError: The request asks for another model, language or encoder than the checkpoint's; names it.
        PreconditionError: The checkpoint's agent cannot act here.
    """
    header = checkpoint.header
    if isinstance(header, PolicyHeader):
        raise PreconditionError(
            f"init_from: {checkpoint.reference} was learnt by {header.algorithm}; only agents with a world model are "
            "fine-tuned"
        )
    check_usable(header, spec.task_list(), {})
    config, given = header.model_config, spec.model.model_fields_set
    if config.policy_only:
        raise PreconditionError(
            f"init_from: {checkpoint.reference} has a policy only and no world model to go on with; choose a "
            "checkpoint of another algorithm"
        )
    asked = spec.model.config()
    for name in ModelSpec.model_fields if "size" in given else given:
        if name != "size" and getattr(asked, name) != getattr(config, name):
            raise _taken_over(f"model.{name}", getattr(asked, name), getattr(config, name), checkpoint)
    language: dict[str, bool | str | int] = {"language": config.reads_language}
    if config.reads_language:
        language["text_encoder"] = encoder_name(header)
    else:
        language["task_embedding_dim"] = config.language_dim
    for name, have in language.items():
        if name in spec.algorithm.model_fields_set and getattr(spec.algorithm, name) != have:
            raise _taken_over(f"algorithm.{name}", getattr(spec.algorithm, name), have, checkpoint)
    return spec.model_copy(
        update={
            **_images(spec, checkpoint, header),
            "init_from": checkpoint.reference,
            "model": ModelSpec.of(config),
            "algorithm": spec.algorithm.model_copy(update=language),
        }
    )


def _images(spec: RunSpec, checkpoint: Resolved, header: Header) -> dict[str, Any]:
    """What a run takes over from an agent that sees."""
    image_dim = header.model_config.image_dim
    if not image_dim:
        return {}
    if "obs" in spec.model_fields_set and spec.obs != "state+rgb":
        raise _taken_over("obs", spec.obs, "image features (state+rgb)", checkpoint)
    known, vision = (header.info.get("spec") or {}).get("vision"), spec.vision
    if known:
        vision = read(VisionSpec, known)
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


def _taken_over(field: str, got: object, have: object, checkpoint: Resolved) -> InvalidInputError:
    return InvalidInputError(
        field, f"got {got}, but the checkpoint {checkpoint.reference} has {have}, which the run keeps; leave it out"
    )
