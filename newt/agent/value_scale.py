"""(6) S, the running spread of values that the policy loss divides by; for all tasks together, or for each by itself.

    S <- S + tau (max(1, P95(Q) - P5(Q)) - S)

Shared, as published, Q are the values of one batch. Tasks whose values are small beside those of others then learn from
cloning alone: a run with S = 385 has tasks whose values lie within 10. Per task, Q are the latest values of that task
alone: a batch has too few of a task for percentiles.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from newt.agent.config import TrainConfig

RECENT = 100
"""R, values of a task that its spread is taken over: a published batch has five of each task."""


class ValueScale:
    """S, and what it is made of.

    Example:
        >>> scale = ValueScale(TrainConfig(value_scale="per_task", ema_rate=0.5), num_tasks=2)
        >>> scale.update(torch.tensor([0.0, 100.0, 3.0]), torch.tensor([0, 0, 1]))  # spreads 90, and 0 as 1
        >>> scale.value.tolist()
        [45.5, 1.0]

    Attributes:
        value: float32[], or float32[K] per task.

    Args:
        config: Names rate, percentiles and whether tasks share.
        num_tasks: K.
        device: Device of the training.
    """

    def __init__(self, config: TrainConfig, num_tasks: int, device: torch.device | str = "cpu") -> None:
        self._config = config
        self._tensors = {
            name: torch.full(shape, fill, dtype=dtype, device=device)
            for name, (shape, dtype, fill) in _layout(config, num_tasks).items()
        }
        self.value = self._tensors["scale"]
        # Made once: from a list at every update, a GPU would be waited for.
        self._bounds = torch.tensor([percentile / 100 for percentile in config.value_percentiles], device=device)

    def of(self, task: Tensor) -> Tensor:
        """S of rows: float32[B] for tasks int64[B], or float32[] that all share."""
        return self.value[task] if self.value.ndim else self.value

    @torch.no_grad()
    def update(self, values: Tensor, task: Tensor) -> None:
        """Moves S towards the spread of values float32[N] of tasks int64[N]; a task without any keeps its S."""
        bounds = self._bounds.to(values.dtype)
        if not self.value.ndim:
            low_value, high_value = torch.quantile(values, bounds)
            self.value.lerp_((high_value - low_value).clamp(min=1.0), self._config.ema_rate)
            return
        counts = self._remember(values, task)
        unused = torch.arange(RECENT, device=values.device) >= self._tensors["scale_seen"][:, None]
        recent = self._tensors["scale_recent"].masked_fill(unused, float("nan"))
        low_values, high_values = torch.nanquantile(recent, bounds, dim=1)
        spread = torch.where(counts > 0, (high_values - low_values).clamp(min=1.0), self.value)
        self.value.lerp_(spread, self._config.ema_rate)

    def _remember(self, values: Tensor, task: Tensor) -> Tensor:
        """Writes the values over the oldest of their tasks; returns how many came of each, int64[K].

        All in tensors of fixed shape: nothing here waits for a GPU.
        """
        recent, seen = self._tensors["scale_recent"], self._tensors["scale_seen"]
        counts = torch.zeros_like(seen).scatter_add_(0, task, torch.ones_like(task))
        order = torch.argsort(task, stable=True)
        owner = task[order]
        rank = torch.arange(len(task), device=task.device) - (counts.cumsum(0) - counts)[owner]
        # Of more than R, the last ones stay; the others go to a column that is cut off.
        stays = rank >= counts[owner] - RECENT
        column = torch.where(stays, (seen[owner] + rank) % RECENT, RECENT)
        wide = torch.nn.functional.pad(recent, (0, 1))
        wide[owner, column] = values[order]
        recent.copy_(wide[:, :RECENT])
        seen += counts
        return counts

    def state_dict(self) -> dict[str, Tensor]:
        """Named tensors, not copied."""
        return dict(self._tensors)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the values of tensors of these names and shapes."""
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])


def outline(config: TrainConfig, num_tasks: int) -> dict[str, Tensor]:
    """Tensors of a `state_dict`, without memory."""
    layout = _layout(config, num_tasks).items()
    return {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype, _) in layout}


def _layout(config: TrainConfig, num_tasks: int) -> dict[str, tuple[tuple[int, ...], torch.dtype, float]]:
    """Shape, type and first value of each tensor."""
    if config.value_scale == "shared":
        return {"scale": ((), torch.float32, 1.0)}
    return {
        "scale": ((num_tasks,), torch.float32, 1.0),
        "scale_recent": ((num_tasks, RECENT), torch.float32, 0.0),
        "scale_seen": ((num_tasks,), torch.int64, 0),
    }
