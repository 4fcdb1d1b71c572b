"""Planning as the algorithm is written down: all samples of all rows through the modules, eager, float32."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.baselines.plain_model import PlainModel
from newt.agent.config import PlanConfig
from newt.agent.plan_noise import PlanNoise


class PlainPlanner:
    """Model-predictive path integral control for B rows.

    Args:
        model: Plans with its weights.
        config: Budget and constants; unconstrained.
    """

    def __init__(self, model: PlainModel, config: PlanConfig) -> None:
        self.model, self.config = model, config

    @torch.no_grad()
    def plan(
        self, obs: Tensor, task: Tensor, prev_mean: Tensor, noise: PlanNoise | None = None
    ) -> tuple[Tensor, Tensor]:
        """Plans B rows.

        Args:
            obs: float32[B, O].
            task: int64[B].
            prev_mean: float32[B, H, A], the last plan's mean.
            noise: Draws to use, so that two planners can be compared; drawn as they are needed if absent.

        Returns:
            Actions float32[B, A] and means float32[B, H, A].
        """
        config, model = self.config, self.model
        B, H, A = prev_mean.shape
        S, P, E = config.num_samples, config.num_policy_trajectories, config.num_elites
        mask = model.masks[task]  # [B, A]
        rows = task[:, None]  # [B, 1], against [B, S, ...]

        z0 = model.encode(obs, task)
        z = z0[:, None].expand(-1, P, -1)
        policy_actions = torch.empty(B, H, P, A)
        for t in range(H):
            draws = torch.randn(B, P, A) if noise is None else noise.policy[:, t]
            policy_actions[:, t] = model.act(z, rows, draws).action
            if t < H - 1:
                z = model.dynamics(model.join(z, policy_actions[:, t], rows))

        mean = torch.cat([prev_mean[:, 1:], torch.zeros(B, 1, A)], 1)
        std = torch.full((B, H, A), config.max_std)
        for i in range(config.iterations):
            draws = torch.randn(B, H, S - P, A) if noise is None else noise.candidates[:, i]
            fresh = (mean[:, :, None] + std[:, :, None] * draws).clamp(-1, 1)
            actions = torch.cat([policy_actions, fresh], 2) * mask[:, None, None]
            last_noise = torch.randn(B, S, A) if noise is None else noise.value_policy[:, i]
            pairs = None if noise is None else noise.pairs[:, i]
            values = self._values(z0, rows, actions, last_noise, pairs).nan_to_num(0)
            elite_values, elite = values.topk(E, 1)
            elites = actions.gather(2, elite[:, None, :, None].expand(-1, H, -1, A))
            weights = torch.exp(config.temperature * (elite_values - elite_values.max(1, keepdim=True).values))
            weights = weights / (weights.sum(1, keepdim=True) + 1e-9)
            share = weights[:, None, :, None]
            mean = (share * elites).sum(2)
            std = (share * (elites - mean[:, :, None]) ** 2).sum(2).sqrt().clamp(config.min_std, config.max_std)
            mean, std = mean * mask[:, None], std * mask[:, None]

        if noise is None:
            chosen = torch.multinomial(weights, 1).squeeze(1)
            explore = torch.randn(B, A)
        else:
            chosen = (torch.log(weights + 1e-9) - noise.select.log()).argmax(1)
            explore = noise.explore
        action = elites[torch.arange(B), 0, chosen] + std[:, 0] * explore
        return action.clamp(-1, 1), mean

    def _values(self, z0: Tensor, rows: Tensor, actions: Tensor, noise: Tensor, pairs: Tensor | None) -> Tensor:
        """Discounted return and terminal value of actions [B, H, S, A]: float32[B, S]."""
        model = self.model
        B, H, S, _ = actions.shape
        gamma = model.discounts[rows]
        z = z0[:, None].expand(-1, S, -1)
        total, discount = torch.zeros(B, S), torch.ones_like(gamma)
        for t in range(H):
            x = model.join(z, actions[:, t], rows)
            total = total + discount * model.decode(model.reward(x))
            z = model.dynamics(x)
            discount = discount * gamma
        x = model.join(z, model.act(z, rows, noise).action, rows)
        if pairs is None:
            pair = torch.randperm(len(model.critics))[:2].tolist()
            value = (model.decode(model.critics[pair[0]](x)) + model.decode(model.critics[pair[1]](x))) / 2
        else:
            # Recorded draws have a pair per row; only tests come here.
            every = torch.stack([model.decode(critic(x)) for critic in model.critics])
            value = torch.stack([every[pairs[b], b].mean(0) for b in range(B)])
        return total + discount * value
