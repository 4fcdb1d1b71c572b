"""The world model as plain modules: one `nn.Sequential` per network, everything concatenated at the first layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newt.agent.config import ModelConfig
from newt.agent.world_model import WorldModel

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class SimNorm(nn.Module):
    """Softmax inside consecutive groups of `group` entries."""

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Any leading axes."""
        return x.view(*x.shape[:-1], -1, self.group).softmax(-1).flatten(-2)


class NormedLinear(nn.Module):
    """Affine map, layer norm, activation."""

    def __init__(self, in_dim: int, out_dim: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear, self.norm, self.activation = nn.Linear(in_dim, out_dim), nn.LayerNorm(out_dim), activation

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        output: Tensor = self.activation(self.norm(self.linear(x)))
        return output


def _mlp(in_dim: int, hidden: tuple[int, ...], last: nn.Module) -> nn.Sequential:
    widths = (in_dim, *hidden)
    return nn.Sequential(*(NormedLinear(a, b, nn.Mish()) for a, b in zip(widths, hidden, strict=False)), last)


@dataclass(frozen=True)
class PolicySample:
    """action float32[..., A]; log_prob float32[...] before the squashing, over all A entries."""

    action: Tensor
    log_prob: Tensor


class PlainModel(nn.Module):
    """Same sizes, task table and mathematics as `newt.agent.WorldModel`.

    Args:
        source: Gives sizes, table and initial weights.
    """

    embeddings: Tensor
    masks: Tensor
    discounts: Tensor
    bins: Tensor

    def __init__(self, source: WorldModel) -> None:
        super().__init__()
        self.config: ModelConfig = source.config
        c = self.config
        D, G, A, M, K = c.latent_dim, c.language_dim, c.action_dim, c.mlp_dim, c.num_bins
        encoder_hidden = (c.encoder_dim,) * (c.encoder_layers - 1)
        latent = (M, D, SimNorm(c.simnorm_dim))

        def critic() -> nn.Sequential:
            return _mlp(D + G + A, (M, M), nn.Linear(M, K))

        self.encoder = _mlp(c.obs_dim + G, encoder_hidden, NormedLinear(c.encoder_dim, D, SimNorm(c.simnorm_dim)))
        self.dynamics = _mlp(D + G + A, (M, M), NormedLinear(*latent))
        self.reward = _mlp(D + G + A, (M, M), nn.Linear(M, K))
        self.policy = _mlp(D + G, (M, M), nn.Linear(M, 2 * A))
        self.critics = nn.ModuleList(critic() for _ in range(c.num_critics))
        self.target_critics = nn.ModuleList(critic() for _ in range(c.num_critics))
        self.target_critics.requires_grad_(False)
        self.register_buffer("embeddings", source.task_embeddings.clone())
        self.register_buffer("masks", source.action_masks.clone())
        self.register_buffer("discounts", source.discounts.clone())
        self.register_buffer("bins", torch.linspace(c.vmin, c.vmax, K))
        self._copy(source)

    @torch.no_grad()
    def _copy(self, source: WorldModel) -> None:
        pairs = [
            (self.encoder, source.encoder),
            (self.dynamics, source.dynamics),
            (self.reward, source.reward_head),
            (self.policy, source.policy_head),
        ]
        for own, other in pairs:
            for parameter, value in zip(own.parameters(), other.parameters(), strict=True):
                parameter.copy_(value)
        for members, ensemble in ((self.critics, source.critics), (self.target_critics, source.target_critics)):
            for i, member in enumerate(members):
                for parameter, value in zip(member.parameters(), ensemble.parameters(), strict=True):
                    parameter.copy_(value[i])

    def language(self, like: Tensor, task: Tensor) -> Tensor:
        """The embedding of each row's task, for every entry of `like`: float32[..., G]."""
        return self.embeddings[task].expand(*like.shape[:-1], -1)

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        """float32[..., Z] of obs [..., O]."""
        z: Tensor = self.encoder(torch.cat([obs, self.language(obs, task)], -1))
        return z

    def join(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """[z, g, a]."""
        return torch.cat([z, self.language(z, task), action], -1)

    def act(self, z: Tensor, task: Tensor, noise: Tensor) -> PolicySample:
        """Samples the policy."""
        mean, log_std = self.policy(torch.cat([z, self.language(z, task)], -1)).chunk(2, -1)
        mask = self.masks[task]
        log_std = -10 + 6 * (torch.tanh(log_std) + 1)
        mean, log_std, noise = mean * mask, log_std * mask, noise * mask
        log_prob = (-0.5 * noise**2 - log_std - _LOG_SQRT_2PI).sum(-1)
        return PolicySample(torch.tanh(mean + log_std.exp() * noise), log_prob)

    def decode(self, logits: Tensor) -> Tensor:
        """Scalars of logits [..., K]."""
        x = (F.softmax(logits, -1) * self.bins).sum(-1)
        return torch.sign(x) * (torch.exp(torch.abs(x)) - 1)

    def two_hot(self, values: Tensor) -> Tensor:
        """float32[..., K]."""
        c = self.config
        width = (c.vmax - c.vmin) / (c.num_bins - 1)
        position = (torch.sign(values) * torch.log1p(values.abs())).clamp(c.vmin, c.vmax).sub(c.vmin) / width
        lower = position.floor().long()
        share = (position - lower)[..., None]
        one_hot = F.one_hot(lower, c.num_bins) * (1 - share)
        return one_hot + F.one_hot((lower + 1) % c.num_bins, c.num_bins) * share

    def cross_entropy(self, logits: Tensor, values: Tensor) -> Tensor:
        """Cross-entropy, float32[...]."""
        return -(self.two_hot(values) * F.log_softmax(logits, -1)).sum(-1)
