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
        rows = len(self.mean)
        sums = sums_by_product if values.is_cuda else sums_by_index
        count = sums(torch.ones(len(group), 1, device=values.device), group, rows)[:, 0]
        safe = count.clamp(min=1)[:, None]
        mean = sums(values, group, rows) / safe
        squares = sums((values - mean[group]).square(), group, rows)
        total = self.count + count
        old, share = self.count[:, None], (count / total.clamp(min=1))[:, None]
        delta, seen = mean - self.mean, count[:, None] > 0
        variance = (self.variance * old + squares + delta.square() * old * share) / total.clamp(min=1)[:, None]
        self.mean.copy_(torch.where(seen, self.mean + delta * share, self.mean))
        self.variance.copy_(torch.where(seen, variance, self.variance))
        self.count.copy_(total)


def sums_by_index(values: Tensor, group: Tensor, rows: int) -> Tensor:
    """Sums of values float32[B, D] of groups int64[B]: float32[rows, D]. A GPU adds them in any order."""
    return torch.zeros(rows, values.shape[1], device=values.device).index_add_(0, group, values)


def sums_by_product(values: Tensor, group: Tensor, rows: int) -> Tensor:
    """The same in a fixed order, as a product of doubles, which no GPU shortens before it multiplies them."""
    members = group == torch.arange(rows, device=group.device)[:, None]
    return (members.double() @ values.double()).float()
