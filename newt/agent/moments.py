"""Running mean and variance of groups of numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of everything seen so far (Chan et al. 1979), for `rows` independent groups of `dim` numbers.

    Args:
        rows: Groups, K.
        dim: Numbers of each, D.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(rows))
        self.register_buffer("mean", torch.zeros(rows, dim))
        self.register_buffer("variance", torch.ones(rows, dim))

    @torch.no_grad()
    def update(self, values: Tensor, group: Tensor) -> None:
        """Takes values float32[B, D] of groups int64[B] in."""
        rows, dim = self.mean.shape
        count = torch.zeros_like(self.count).index_add_(0, group, torch.ones_like(group, dtype=torch.float32))
        safe = count.clamp(min=1)[:, None]
        mean = torch.zeros_like(self.mean).index_add_(0, group, values) / safe
        squares = torch.zeros(rows, dim, device=values.device)
        squares.index_add_(0, group, (values - mean[group]).square())
        total = self.count + count
        old, share = self.count[:, None], (count / total.clamp(min=1))[:, None]
        delta, seen = mean - self.mean, count[:, None] > 0
        variance = (self.variance * old + squares + delta.square() * old * share) / total.clamp(min=1)[:, None]
        self.mean.copy_(torch.where(seen, self.mean + delta * share, self.mean))
        self.variance.copy_(torch.where(seen, variance, self.variance))
        self.count.copy_(total)
