"""From published weights to a model that can plan: everything is checked before the first request sees it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from newt.acting.facts import AgentFacts
from newt.acting.files import StoredAgent, read_agent
from newt.acting.plans import ActMode
from newt.acting.trained import trained_mode, trained_obs_dims
from newt.agent.checkpoints import weights_from_bytes, weights_info
from newt.agent.compilation import CompiledInferenceModel
from newt.agent.config import ConfigError, PlanConfig
from newt.agent.constraint import Guidance
from newt.agent.inference import InferenceModel
from newt.agent.planning import Planner
from newt.agent.recorded import WARM_UPS
from newt.agent.world_model import WorldModel, parameter_counts
from newt.errors import CorruptDataError, InvalidInputError
from newt.wire.chunks import Weights
from services.planner.device import Device
from services.planner.requests import ModelShape


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One version of a model, ready to plan.

    Attributes:
        model_id: Its name.
        weights_version: Its version.
        sha256: Digest of the bytes that it was built from.
        planner: Planner of the agent; used by one thread at a time.
        shape: What requests are checked against.
        tasks: Names, in the order of the task table.
        parameters: Number of learnable parameters.
        guidance: How the weights were trained to act.
        action_dims: Valid action columns of each task.
        obs_dims: Valid observation columns of each task; 0 where nobody knows.
        mode: How training acted with them.
    """

    model_id: str
    weights_version: int
    sha256: bytes
    planner: Planner
    shape: ModelShape
    tasks: tuple[str, ...]
    parameters: int
    guidance: Guidance = field(default_factory=Guidance)
    action_dims: tuple[int, ...] = ()
    obs_dims: tuple[int, ...] = ()
    mode: ActMode = "planner"

    def constraint_weights(self, task: npt.NDArray[np.int64], env_step: int | None) -> npt.NDArray[np.float32]:
        """Constraint weights of rows, float32[B].

        Args:
            task: int64[B], rows of the task table.
            env_step: Env steps of the run; None: those of the weights.
        """
        names = [self.tasks[index] for index in task]
        return self.guidance.weights(self.planner.config, names, env_step)


def load(weights: Weights, device: Device) -> LoadedModel:
    """Builds a model on the device and plans once with it.

    Args:
        weights: As received.
        device: Device to put it on.

    Raises:
        CorruptDataError: The bytes are no model, a number in them is not finite, the planning settings are not
            valid, or the trial plan is not finite.
        MemoryError: There is no room for it; torch has an error of its own for that of the device.
    """
    try:
        config = PlanConfig.from_dict(json.loads(weights.plan_config_json))
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptDataError(f"plan_config_json: {error}") from error
    try:
        model = weights_from_bytes(weights.payload)
        info = weights_info(weights.payload)
    except MemoryError:
        raise
    except Exception as error:  # Foreign bytes fail in as many ways as there are parsers underneath.
        raise CorruptDataError(f"not a Newt model: {error}") from error
    guidance = Guidance.from_info(info)
    facts = AgentFacts(
        tasks=model.table.names,
        action_dims=tuple(model.table.action_dims.tolist()),
        obs_dims=trained_obs_dims(info, model.table.names),
        mode=trained_mode(info, plans=not model.config.policy_only),
    )
    identity = weights.model_id, weights.weights_version, weights.sha256
    return _checked(identity, StoredAgent(facts, model, config, guidance), device)


def load_file(model_id: str, version: int, path: Path, device: Device) -> LoadedModel:
    """Builds a model from a file on the device and plans once with it.

    Args:
        model_id: Its name.
        version: Its version.
        path: A checkpoint of this project, or a published one of the 200 tasks.
        device: Device to put it on.

    Raises:
        CorruptDataError, InvalidInputError: The file is damaged, or of another kind.
        NotFoundError: It is gone.
        MemoryError: As `load`.
    """
    return _checked((model_id, version, b""), read_agent(path), device)


def _checked(identity: tuple[str, int, bytes], agent: StoredAgent, device: Device) -> LoadedModel:
    model, config = agent.network, agent.plan
    if not isinstance(model, WorldModel):
        raise InvalidInputError(
            identity[0], "a policy without a world model, which planners do not serve; act with newt.agent.Agent"
        )
    try:
        config.check_memory(model.config)
    except ConfigError as error:
        raise CorruptDataError(str(error)) from error
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CorruptDataError(f"tensor {name} holds NaN or infinity")
    inference = (InferenceModel if device.code is None else CompiledInferenceModel).from_model(
        model, device.dtype, device.where
    )
    kept = device.spares
    planner = Planner(inference, config) if kept is None else kept.take(inference, config)
    loaded = LoadedModel(
        *identity,
        planner=planner,
        shape=ModelShape(
            obs_dim=model.config.obs_dim,
            action_dim=model.config.action_dim,
            image_dim=model.config.image_dim,
            num_tasks=len(model.table),
            horizon=config.horizon,
            num_samples=config.num_samples,
            iterations=config.iterations,
            plans=not model.config.policy_only,
        ),
        tasks=model.table.names,
        guidance=agent.guidance,
        action_dims=agent.facts.action_dims,
        obs_dims=agent.facts.obs_dims,
        mode=agent.facts.mode,
        parameters=parameter_counts(model)["total"],
    )
    if kept is not None:
        kept.lend(planner, loaded)
    kind = loaded.shape, model.config
    if device.code is not None and isinstance(planner.model, CompiledInferenceModel):
        planner.model.generated = device.code.event(kind)
    # With the first model of a kind in every size, so that no request pays for the set-up. Later versions need one row:
    # further ones would be taken from the plans that are under way.
    _try(loaded, {1} if kind in device.prepared else _sizes(loaded.shape, device))
    device.prepared.add(kind)
    if planner.recorder is not None and loaded.shape.plans:
        unrecorded = planner.unrecorded(_most_rows(loaded.shape, device))
        for _ in range(1 + WARM_UPS):
            _try(loaded, set(unrecorded))
    if device.code is not None and isinstance(planner.model, CompiledInferenceModel):
        twin = replace(loaded, planner=Planner(planner.model.twin(), config))
        # Code for one row, and for any number.
        sizes = _sizes(loaded.shape, device) | {2}
        device.code.make(kind, lambda: _try(twin, sizes))
    return loaded


def _most_rows(shape: ModelShape, device: Device) -> int:
    """Rows of the largest pass, at most."""
    return device.rows_per_pass(shape.cost(shape.horizon)) if device.pad else 1


def _sizes(shape: ModelShape, device: Device) -> set[int]:
    """Numbers of rows in a batch, of which each costs something the first time."""
    return {device.padded(rows) for rows in range(1, _most_rows(shape, device) + 1)}


def _try(loaded: LoadedModel, sizes: set[int]) -> None:
    """Acts with so many rows. Raises CorruptDataError if what comes out is not finite."""
    shape = loaded.shape
    for rows in sorted(sizes):
        obs, task, seeds = torch.zeros(rows, shape.obs_dim), torch.zeros(rows, dtype=torch.int64), torch.arange(rows)
        image = torch.zeros(rows, shape.image_dim) if shape.image_dim else None
        if shape.plans:
            result = loaded.planner.plan(obs, task, seeds=seeds, image=image)
            outcome = [result.action, result.value]
        else:
            outcome = [loaded.planner.policy(obs, task, seeds=seeds, image=image)]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in outcome):
            raise CorruptDataError("a trial plan is not finite; its weights have diverged")
