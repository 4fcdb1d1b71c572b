"""One online update as it is written down: a loop over critics, stock softmax and Adam, eager."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.baselines.plain_model import PlainModel
from newt.agent.batch import UpdateBatch, UpdateNoise
from newt.agent.config import TrainConfig


class PlainLearner:
    """Trains a plain model.

    Args:
        model: Trained in place.
        config: Constants.
    """

    def __init__(self, model: PlainModel, config: TrainConfig) -> None:
        self.model, self.config = model, config
        self.scale = 1.0
        self.world = [model.encoder, model.dynamics, model.reward, model.critics]
        groups = [{"params": list(network.parameters())} for network in self.world]
        groups[0]["lr"] = config.lr * config.encoder_lr_factor  # type: ignore[assignment]
        self.optimizer = torch.optim.Adam(groups, lr=config.lr, eps=config.adam_eps)
        self.policy_optimizer = torch.optim.Adam(model.policy.parameters(), lr=config.lr, eps=config.policy_adam_eps)

    def update(self, batch: UpdateBatch, noise: UpdateNoise | None = None) -> dict[str, float]:
        """World model, target critics, policy, scale.

        Args:
            batch: B sequences of H steps.
            noise: Draws to use; drawn as they are needed if absent.

        Returns:
            The two losses.
        """
        config, model = self.config, self.model
        H = len(batch.reward)
        rho = torch.tensor([config.rho**t for t in range(H + 1)])
        rho = rho / rho.sum()
        world_loss, latents = self._world_loss(batch, noise, rho)
        self._step(self.optimizer, world_loss)
        with torch.no_grad():
            for target, online in zip(model.target_critics.parameters(), model.critics.parameters(), strict=True):
                target.add_(config.ema_rate * (online - target))
        policy_loss, first_values = self._policy_loss(batch, latents.detach(), noise, rho)
        self._step(self.policy_optimizer, policy_loss)
        low, high = torch.quantile(first_values, torch.tensor(config.value_percentiles) / 100).tolist()
        self.scale += config.ema_rate * (max(1.0, high - low) - self.scale)
        return {"total_loss": world_loss.item(), "policy_loss": policy_loss.item()}

    def _world_loss(self, batch: UpdateBatch, noise: UpdateNoise | None, rho: Tensor) -> tuple[Tensor, Tensor]:
        config, model, task = self.config, self.model, batch.task
        H, B = batch.reward.shape
        action = batch.action * model.masks[task]
        with torch.no_grad():
            z_next = model.encode(batch.obs[1:], task)
            draws = torch.randn(H, B, 16) if noise is None else noise.td_policy
            x = model.join(z_next, model.act(z_next, task, draws).action, task)
            pair = self._pair(None if noise is None else noise.td_pair)
            values = torch.stack([model.decode(model.target_critics[i](x)) for i in pair]).amin(0)
            target = batch.reward + model.discounts[task] * values * ~batch.terminated
        z = model.encode(batch.obs[0], task)
        latents = [z]
        consistency = reward = value = torch.zeros(())
        for t in range(H):
            x = model.join(z, action[t], task)
            reward = reward + rho[t] * model.cross_entropy(model.reward(x), batch.reward[t]).mean()
            for critic in model.critics:
                value = value + rho[t] * model.cross_entropy(critic(x), target[t]).mean() / len(model.critics)
            z = model.dynamics(x)
            consistency = consistency + rho[t] * ((z - z_next[t]) ** 2).mean()
            latents.append(z)
        loss = config.consistency_coef * consistency + config.reward_coef * reward + config.value_coef * value
        return loss, torch.stack(latents)

    def _policy_loss(
        self, batch: UpdateBatch, latents: Tensor, noise: UpdateNoise | None, rho: Tensor
    ) -> tuple[Tensor, Tensor]:
        config, model, task = self.config, self.model, batch.task
        H, B = batch.reward.shape
        draws = torch.randn(H + 1, B, 16) if noise is None else noise.pi_policy
        assert draws is not None
        pair = self._pair(None if noise is None else noise.pi_pair)
        mask = model.masks[task]
        count = mask.sum(-1)
        model.critics.requires_grad_(False)
        sample = model.act(latents, task, draws)
        x = model.join(latents, sample.action, task)
        q = (model.decode(model.critics[pair[0]](x)) + model.decode(model.critics[pair[1]](x))) / 2
        model.critics.requires_grad_(True)
        entropy = -count * sample.log_prob
        loss = -(rho * (config.entropy_coef * entropy + q / self.scale).mean(1)).sum()
        error = ((sample.action[:H] - batch.action * mask) ** 2 * mask).sum(-1) / count
        return loss + config.bc_coef * (rho[:H] * error.mean(1)).sum(), q[0].detach()

    def _step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.config.grad_clip_norm)
        optimizer.step()

    def _pair(self, recorded: Tensor | None) -> list[int]:
        drawn = torch.randperm(len(self.model.critics))[:2] if recorded is None else recorded
        return [int(i) for i in drawn]
