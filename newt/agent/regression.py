"""Discrete regression: scalars as two-hot distributions over bins that are even in symlog space."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|): squashes large magnitudes, keeps the sign."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


class TwoHot(nn.Module):
    """Codec between scalars and logits over K evenly spaced bins in symlog space.

    Example:
        >>> codec = TwoHot(101, -10.0, 10.0)
        >>> codec.decode(codec.encode(torch.tensor([3.0])).log()).item()  # doctest: +ELLIPSIS
        3.0...
    """

    centres: Tensor

    def __init__(self, num_bins: int, vmin: float, vmax: float) -> None:
        super().__init__()
        self.num_bins, self.vmin, self.vmax = num_bins, vmin, vmax
        self.register_buffer("centres", torch.linspace(vmin, vmax, num_bins, device="cpu"), persistent=False)

    def _neighbours(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns lower bin, upper bin (int64) and the upper bin's share, each shaped like `values`."""
        width = (self.vmax - self.vmin) / (self.num_bins - 1)
        position = (symlog(values).clamp(self.vmin, self.vmax) - self.vmin) / width
        # NaN is no bin; the share stays NaN, so that a diverging run sees it in its loss and not as an index error.
        lower = position.nan_to_num().floor()
        # At the top end the share of the upper bin is 0, so which bin it names does not matter.
        upper = (lower + 1).clamp(max=self.num_bins - 1)
        return lower.long(), upper.long(), position - lower

    def encode(self, values: Tensor) -> Tensor:
        """Returns float32[..., K] two-hot weights of values[...]; values beyond the range take the end bin."""
        lower, upper, share = self._neighbours(values)
        weights = torch.zeros(*values.shape, self.num_bins, dtype=values.dtype, device=values.device)
        weights.scatter_add_(-1, lower[..., None], (1 - share)[..., None])
        return weights.scatter_add_(-1, upper[..., None], share[..., None])

    def decode(self, logits: Tensor) -> Tensor:
        """Returns the scalars [...] that logits[..., K] stand for."""
        return symexp(logits.softmax(-1) @ self.centres)

    def cross_entropy(self, logits: Tensor, values: Tensor) -> Tensor:
        """Returns CE(two-hot(values), softmax(logits)), shaped [...].

        Args:
            logits: [..., K].
            values: Broadcastable to logits' leading axes.
        """
        lower, upper, share = (x.expand(logits.shape[:-1])[..., None] for x in self._neighbours(values))
        # A two-hot target needs two of the K log-probabilities only.
        picked = logits.gather(-1, lower) * (1 - share) + logits.gather(-1, upper) * share
        return logits.logsumexp(-1) - picked.squeeze(-1)
