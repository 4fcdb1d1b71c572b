"""What a planner is given: defaults filled in, shapes, types and ranges checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from newt.agent.devices import send
from newt.agent.inference import InferenceModel
from newt.agent.plan_noise import PlanNoise


@dataclass(frozen=True)
class PlanInputs:
    """The checked arguments of `Planner.plan` that have one entry per row, shaped as described there."""

    obs: Tensor
    task: Tensor
    prev_mean: Tensor
    first: Tensor
    constraint_weight: Tensor
    explore: Tensor
    image: Tensor | None = None


_Rowwise = TypeVar("_Rowwise", PlanInputs, PlanNoise)


def named(rowwise: PlanInputs | PlanNoise) -> dict[str, Tensor]:
    """The tensors of a dataclass by name; absent ones are left out."""
    values = {field.name: getattr(rowwise, field.name) for field in fields(rowwise)}
    return {name: value for name, value in values.items() if value is not None}


def sent_to(device: torch.device, rowwise: _Rowwise) -> _Rowwise:
    """Copies every tensor of a dataclass to a device, which is not waited for."""
    return replace(rowwise, **{name: send(value, device) for name, value in named(rowwise).items()})


def take_rows(rowwise: _Rowwise, rows: slice) -> _Rowwise:
    """Slices every tensor of a dataclass whose tensors all have the rows on their first axis."""
    return replace(rowwise, **{name: value[rows] for name, value in named(rowwise).items()})


def check_plan_inputs(
    model: InferenceModel,
    obs: Tensor,
    task: Tensor,
    seeds: Tensor,
    prev_mean: Tensor | None,
    first: Tensor | None,
    explore: bool | Tensor,
    constraint_weight: float | Tensor,
    image: Tensor | None,
    *,
    horizon: int,
) -> PlanInputs:
    """Checks the arguments of `Planner.plan`, described there, and fills in the absent ones.

    Raises:
        ValueError: An argument has another shape, type or range than stated, or is not finite; names it.
    """
    if horizon < 1:
        raise ValueError(f"horizon: expected at least 1, got {horizon}")
    B, A = len(obs), model.config.action_dim
    explore = check_policy_inputs(model, obs, task, seeds, explore, image)
    if prev_mean is None:
        prev_mean = torch.zeros(B, horizon, A)
    _expect("prev_mean", prev_mean, (B, horizon, A), torch.float32)
    if not bool(torch.isfinite(prev_mean).all()):
        raise ValueError("prev_mean: expected finite numbers, got NaN or infinity")
    first = torch.zeros(B, dtype=torch.bool) if first is None else first
    _expect("first", first, (B,), torch.bool)
    if not isinstance(constraint_weight, Tensor):
        constraint_weight = torch.full((B,), float(constraint_weight))
    _expect("constraint_weight", constraint_weight, (B,), torch.float32)
    if not bool(((constraint_weight >= 0) & (constraint_weight <= 1)).all()):
        raise ValueError(f"constraint_weight: expected numbers in [0, 1], got {constraint_weight.tolist()}")
    return PlanInputs(obs, task, prev_mean, first, constraint_weight, explore, image)


def check_policy_inputs(
    model: InferenceModel, obs: Tensor, task: Tensor, seeds: Tensor, explore: bool | Tensor, image: Tensor | None
) -> Tensor:
    """Checks the arguments of `Planner.policy`, described there. Returns `explore` as bool[B].

    Raises:
        ValueError: An argument has another shape, type or range than stated, or is not finite; names it.
    """
    config, B = model.config, len(obs)
    if B == 0:
        raise ValueError("obs: expected at least one row, got none")
    _expect("obs", obs, (B, config.obs_dim), torch.float32)
    _expect("task", task, (B,), torch.int64)
    _expect("seeds", seeds, (B,), torch.int64)
    if (image is not None) != bool(config.image_dim):
        raise ValueError(f"image: model has image_dim {config.image_dim}, got {'no ' * (image is None)}image")
    if image is not None:
        _expect("image", image, (B, config.image_dim), torch.float32)
    if not bool(((task >= 0) & (task < len(model.table))).all()):
        raise ValueError(f"task: expected indices below {len(model.table)}, got {task.tolist()}")
    if not bool(torch.isfinite(obs).all()):
        raise ValueError("obs: expected finite numbers, got NaN or infinity")
    explore = torch.full((B,), explore) if isinstance(explore, bool) else explore
    _expect("explore", explore, (B,), torch.bool)
    return explore


def _expect(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(value.shape) != shape or value.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} {shape}, got {value.dtype} {tuple(value.shape)}")
