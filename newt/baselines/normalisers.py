"""What the baselines divide by: the spread of observations, and that of each task's discounted returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from newt.agent.moments import RunningMoments


class ObsNormaliser(nn.Module):
    """(x - mean) / (std + 0.01), over all tasks together, as upstream.

    Args:
        obs_dim: O.
    """

    EPSILON = 0.01

    def __init__(self, obs_dim: int) -> None:
        super().__init__()
        self.moments = RunningMoments(1, obs_dim)

    def update(self, obs: Tensor) -> None:
        """Takes observations float32[B, O] in."""
        self.moments.update(obs, torch.zeros(len(obs), dtype=torch.int64, device=obs.device))

    def forward(self, obs: Tensor) -> Tensor:
        """float32[..., O]."""
        moments = self.moments
        return (obs - moments.mean[0]) / (moments.variance[0].sqrt() + self.EPSILON)


class RewardNormaliser(nn.Module):
    """Scales rewards so that discounted returns fit the atoms: r / max(std of G, max |G| / limit), by task.

    G is the discounted return so far of an instance's episode, G <- gamma G + r. Every instance has its own, the
    statistics are their task's. (Upstream keeps one G per task, which instances of one task overwrite for each other.)

    Args:
        tasks: int64[N], the task of every instance.
        discount: float32[N], gamma of each.
        num_tasks: K.
        limit: Largest |return| that the atoms represent.
    """

    EPSILON = 1e-8

    returns: Tensor
    largest: Tensor

    def __init__(self, tasks: Tensor, discount: Tensor, num_tasks: int, limit: float) -> None:
        super().__init__()
        self._tasks, self._discount, self._limit = tasks, discount, limit
        self.moments = RunningMoments(num_tasks, 1)
        self.register_buffer("returns", torch.zeros(len(tasks)), persistent=False)  # running episodes are not resumed
        self.register_buffer("largest", torch.zeros(num_tasks))

    @torch.no_grad()
    def update(self, reward: Tensor, ended: Tensor, valid: Tensor) -> None:
        """Takes a step of all instances in: float32[N], bool[N] and bool[N]; what is not valid is left out."""
        self.returns.copy_(self._discount * self.returns + torch.where(valid, reward, 0.0))
        seen, tasks = self.returns[valid], self._tasks[valid]
        self.moments.update(seen[:, None], tasks)
        self.largest.scatter_reduce_(0, tasks, seen.abs(), "amax")
        self.returns.mul_(~ended)

    def scale(self) -> Tensor:
        """What the rewards of each task are divided by, float32[K]."""
        spread = torch.where(self.moments.count > 0, self.moments.variance[:, 0].sqrt(), 1.0)
        return torch.maximum(spread + self.EPSILON, self.largest / self._limit)
