"""From published weights to a model that can plan: everything is checked before the first request sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from newt.agent import InferenceModel, PlanConfig, Planner, WorldModel, parameter_counts
from newt.agent.checkpoints import weights_from_bytes
from newt.agent.compilation import CompiledInferenceModel
from newt.errors import CorruptDataError
from newt.wire.chunks import Weights
from services.planner.device import Device
from services.planner.requests import ModelSpec


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One version of a model, ready to plan.

    Attributes:
        model_id: Its name.
        weights_version: Its version.
        sha256: Digest of the bytes that it was built from.
        planner: Of the agent; used by one thread at a time.
        spec: What requests are checked against.
        tasks: Names, in the order of the task table.
        parameters: Number of learnable parameters.
    """

    model_id: str
    weights_version: int
    sha256: bytes
    planner: Planner
    spec: ModelSpec
    tasks: tuple[str, ...]
    parameters: int


def load(weights: Weights, device: Device) -> LoadedModel:
    """Builds a model on the device and plans once with it.

    Args:
        weights: As received.
        device: Where to put it.

    Raises:
        CorruptDataError: The bytes are no model, a number in them is not finite, the planning settings are not
            valid, or the trial plan is not finite.
    """
    name = f"model {weights.model_id} version {weights.weights_version}"
    try:
        config = PlanConfig.from_dict(json.loads(weights.plan_config_json))
    except (ValueError, TypeError) as error:
        raise CorruptDataError(f"{name}: plan_config_json: {error}") from error
    try:
        model = weights_from_bytes(weights.payload).model
    except Exception as error:  # Foreign bytes fail in as many ways as there are parsers underneath.
        raise CorruptDataError(f"{name}: not a Newt model: {error}") from error
    for tensor_name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CorruptDataError(f"{name}: tensor {tensor_name} holds NaN or infinity")
    loaded = _arrange(weights, model, config, device)
    _warm(loaded, device)
    return loaded


def _arrange(weights: Weights, model: WorldModel, config: PlanConfig, device: Device) -> LoadedModel:
    kind = CompiledInferenceModel if device.compile else InferenceModel
    return LoadedModel(
        model_id=weights.model_id,
        weights_version=weights.weights_version,
        sha256=weights.sha256,
        planner=Planner(kind.from_model(model, device.dtype, device.where), config),
        spec=ModelSpec(
            obs_dim=model.config.obs_dim,
            action_dim=model.config.action_dim,
            image_dim=model.config.image_dim,
            num_tasks=len(model.table),
            horizon=config.horizon,
        ),
        tasks=model.table.names,
        parameters=parameter_counts(model)["total"],
    )


def _warm(loaded: LoadedModel, device: Device) -> None:
    """Plans once in every padded size, so that the first request of a size pays for no library's set-up.

    Unpadded, one row will do: there are no fixed shapes to prepare, and on a CPU every further row of it would be
    taken from the plans that are under way.
    """
    spec = loaded.spec
    sizes = {1, 2} if device.compile else {1}  # code for one row, and for any number
    if device.pad:
        sizes = {device.padded(1 << n) for n in range(device.max_rows.bit_length() + 1)}
    for rows in sorted(sizes):
        result = loaded.planner.plan(
            torch.zeros(rows, spec.obs_dim),
            torch.zeros(rows, dtype=torch.int64),
            seeds=torch.arange(rows),
            image=torch.zeros(rows, spec.image_dim) if spec.image_dim else None,
        )
        if not bool(torch.isfinite(result.action).all() & torch.isfinite(result.value).all()):
            raise CorruptDataError(
                f"model {loaded.model_id} version {loaded.weights_version}: a trial plan is not finite; "
                "its weights have diverged"
            )
