"""The losses: world model, behaviour cloning and policy, as pure functions of model, batch and noise.

All random draws come in as ``UpdateNoise``, so a loss is reproducible, can be compiled, and can be checked
against recorded draws. Time weights are rho_t = rho^t / sum_{j<=H} rho^j; model losses use the first H of
them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from newt.agent.config import ConfigError, TrainConfig
from newt.agent.world_model import WorldModel


@dataclass(frozen=True)
class Batch:
    """B training sequences of H steps; (action[t], reward[t]) lead from obs[t] to obs[t+1].

    Attributes:
        obs: float32[H+1, B, O].
        action: float32[H, B, A]; invalid entries are ignored.
        reward: float32[H, B].
        terminated: bool[H, B], the step ended the task: nothing is bootstrapped behind it.
        task: int64[B], rows of the task table.
        image: float32[H+1, B, X] image features, for models which take them.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    task: Tensor
    image: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Copy to a device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {n: v.to(device, non_blocking=True) for n, v in values.items() if v is not None}
        return replace(self, **moved)

    def check(self, model: WorldModel, horizon: int) -> None:
        """Compare shapes and types with the model.

        Raises:
            ConfigError: names the field, what it is and what it should be.
        """
        c, B = model.config, self.task.shape[0] if self.task.ndim == 1 else -1
        expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "task": ((B,), torch.int64),
            "obs": ((horizon + 1, B, c.obs_dim), torch.float32),
            "action": ((horizon, B, c.action_dim), torch.float32),
            "reward": ((horizon, B), torch.float32),
            "terminated": ((horizon, B), torch.bool),
        }
        if c.image_dim:
            expected["image"] = ((horizon + 1, B, c.image_dim), torch.float32)
        for name, (shape, dtype) in expected.items():
            value = getattr(self, name)
            if value is None or tuple(value.shape) != shape or value.dtype != dtype:
                got = "nothing" if value is None else f"{value.dtype} {tuple(value.shape)}"
                raise ConfigError(f"batch.{name}: expected {dtype} {shape} (-1: one axis), got {got}")


@dataclass(frozen=True)
class UpdateNoise:
    """The random draws of one update.

    Attributes:
        td_policy: float32[H, B, A] of the actions in the TD target.
        td_pair: int64[2] critics of the TD target.
        bc_policy: float32[H, B, A] of the cloned actions, pretraining only.
        pi_policy: float32[H+1, B, A] of the policy loss, online phase only.
        pi_pair: int64[2] critics of the policy loss, online phase only.
    """

    td_policy: Tensor
    td_pair: Tensor
    bc_policy: Tensor | None = None
    pi_policy: Tensor | None = None
    pi_pair: Tensor | None = None

    def columns(self, part: slice) -> UpdateNoise:
        """Return the draws of some of the B sequences; the pairs of critics are common to all."""
        rowwise = ("td_policy", "bc_policy", "pi_policy")
        values = {name: getattr(self, name) for name in rowwise}
        return replace(self, **{name: value[:, part] for name, value in values.items() if value is not None})


def draw_noise(
    model: WorldModel, sequences: int, horizon: int, generator: torch.Generator, *, pretrain: bool
) -> UpdateNoise:
    """Draw what one update of B ``sequences`` needs; ``generator`` lives on the model's device."""
    device = model.device

    def normal(steps: int) -> Tensor:
        shape = (steps, sequences, model.config.action_dim)
        return torch.randn(shape, generator=generator, device=device)

    def pair() -> Tensor:
        return torch.randperm(model.config.num_critics, generator=generator, device=device)[:2]

    td_policy, td_pair = normal(horizon), pair()
    if pretrain:
        return UpdateNoise(td_policy, td_pair, bc_policy=normal(horizon))
    return UpdateNoise(td_policy, td_pair, pi_policy=normal(horizon + 1), pi_pair=pair())


def td_target(model: WorldModel, config: TrainConfig, batch: Batch, z_next: Tensor, noise: UpdateNoise) -> Tensor:
    """Return y float32[H, B] = r + gamma * min over a pair of target critics; r alone after a termination."""
    action = model.policy(z_next, batch.task, noise.td_policy).action
    target = config.target_critic == "ema"
    value = model.value(z_next, action, batch.task, noise.td_pair, "min", target=target)
    return batch.reward + model.discounts[batch.task] * value * (~batch.terminated)


def cloning_error(sampled: Tensor, action: Tensor, mask: Tensor) -> Tensor:
    """Return float32[...]: squared error of a *sampled* policy action, mean over the valid entries."""
    return ((sampled - action).square() * mask).sum(-1) / mask.sum(-1).clamp(min=1)


def model_loss(
    model: WorldModel, config: TrainConfig, batch: Batch, noise: UpdateNoise
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """World-model loss, with the behaviour-cloning term where ``noise.bc_policy`` is given (pretraining).

    Returns:
        The scalar loss, the latent rollout float32[H+1, B, Z] (attached) and detached metrics.
    """
    task, H = batch.task, config.horizon
    mask = model.action_masks[task]
    action = batch.action * mask
    weights = step_weights(config, batch.obs)

    image = (None, None) if batch.image is None else (batch.image[0], batch.image[1:])
    with torch.no_grad():
        z_target = model.encode(batch.obs[1:], task, image[1])
        y = td_target(model, config, batch, z_target, noise)

    z = model.encode(batch.obs[0], task, image[0])
    latents = [z]
    for t in range(H):
        z = model.next(z, action[t], task)
        latents.append(z)
    rollout = torch.stack(latents)

    def over_time(loss: Tensor) -> Tensor:  # [H, B] -> scalar
        return weights[:H] @ loss.mean(-1)

    consistency = over_time((rollout[1:] - z_target).square().mean(-1))
    reward_logits = model.reward(rollout[:-1], action, task)
    reward = over_time(model.codec.cross_entropy(reward_logits, batch.reward))
    value_logits = model.Q(rollout[:-1], action, task)
    value = over_time(model.codec.cross_entropy(value_logits, y).mean(0))
    loss = config.consistency_coef * consistency + config.reward_coef * reward + config.value_coef * value
    metrics = {
        "consistency_loss": consistency,
        "reward_loss": reward,
        "value_loss": value,
        "td_target": y.mean(),
    }
    if noise.bc_policy is not None:
        sample = model.policy(rollout[:-1], task, noise.bc_policy)
        bc = cloning_error(sample.action, action, mask)
        # Published runs average over time here and sum in the policy loss; effective values are kept.
        bc_loss = over_time(bc - config.entropy_coef * sample.scaled_entropy) / H
        loss = loss + config.pretrain_bc_coef * bc_loss
        metrics |= {
            "bc_loss": bc_loss,
            "bc": bc.mean(),
            "policy_scaled_entropy": sample.scaled_entropy.mean(),
        }
    metrics["total_loss"] = loss
    return loss, rollout, {name: value.detach() for name, value in metrics.items()}


def policy_loss(
    model: WorldModel, config: TrainConfig, batch: Batch, latents: Tensor, scale: Tensor, noise: UpdateNoise
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Policy loss on detached latents float32[H+1, B, Z], critics frozen, values divided by ``scale``.

    Returns:
        The scalar loss, the undivided values of the first step float32[B] and detached metrics.
    """
    assert noise.pi_policy is not None
    assert noise.pi_pair is not None
    task, H = batch.task, config.horizon
    mask = model.action_masks[task]
    weights = step_weights(config, latents)
    sample = model.policy(latents, task, noise.pi_policy)
    q = model.value(latents, sample.action, task, noise.pi_pair, "avg", frozen=True)
    gain = config.entropy_coef * sample.scaled_entropy + q / scale
    bc = cloning_error(sample.action[:H], batch.action * mask, mask)
    bc_loss = weights[:H] @ bc.mean(-1)
    loss = config.bc_coef * bc_loss - weights @ gain.mean(-1)
    metrics = {
        "policy_loss": loss,
        "policy_bc": bc_loss,
        "policy_scaled_entropy": sample.scaled_entropy.mean(),
        "policy_q": q.mean(),
    }
    return loss, q[0].detach(), {name: value.detach() for name, value in metrics.items()}


def step_weights(config: TrainConfig, like: Tensor) -> Tensor:
    """Return rho_0..rho_H on the device of ``like`` (made there: a copy from the host would synchronise)."""
    powers = config.rho ** torch.arange(config.horizon + 1, dtype=like.dtype, device=like.device)
    return powers / powers.sum()
