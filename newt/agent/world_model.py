"""The world model: encoder, dynamics, reward, policy and critics, all conditioned on the task.

Shapes: leading axes are free; ``task`` broadcasts against them (task [B] fits obs [B, O] and obs [T, B, O];
use task[:, None] for latents [B, S, Z]).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from newt.agent.config import ModelConfig
from newt.agent.layers import MLP
from newt.agent.regression import TwoHot
from newt.agent.task_table import TaskTable

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)

Reduce = Literal["min", "avg"]


@dataclass(frozen=True)
class PolicySample:
    """One draw from the policy per row; invalid action entries are masked throughout.

    Attributes:
        action: float32[..., A] tanh(mean + std * noise), exactly 0 on invalid entries.
        mean: float32[..., A] before tanh.
        log_std: float32[..., A], in [-10, 2]; 0 on invalid entries.
        gauss_logprob: float32[...] log density before tanh, over all A entries (invalid ones add a constant).
        scaled_entropy: float32[...] -n * gauss_logprob, n the number of valid entries; enters the losses.
    """

    action: Tensor
    mean: Tensor
    log_std: Tensor
    gauss_logprob: Tensor
    scaled_entropy: Tensor

    @property
    def mean_action(self) -> Tensor:
        """float32[..., A] tanh(mean): the action without exploration."""
        return self.mean.tanh()

    @property
    def entropy(self) -> Tensor:
        """float32[...] minus the log density of the squashed action. For logs only: unstable near |a| = 1."""
        squash = torch.log((1 - self.action.square()).relu() + 1e-6).sum(-1)
        return squash - self.gauss_logprob


def bound_log_std(raw: Tensor) -> Tensor:
    """Map raw network outputs smoothly to [-10, 2]."""
    return LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (raw.tanh() + 1)


class WorldModel(nn.Module):
    """The five networks, the target critics and the task table they are conditioned on.

    Example:
        >>> table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
        >>> model = WorldModel(ModelConfig.from_size("XS", language_dim=8), table)
        >>> model.encode(torch.zeros(5, 128), torch.zeros(5, dtype=torch.int64)).shape
        torch.Size([5, 128])
    """

    task_embeddings: Tensor
    action_masks: Tensor
    discounts: Tensor

    def __init__(self, config: ModelConfig, table: TaskTable, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights.

        Args:
            config: sizes.
            table: tasks; its embedding and action widths must be the config's.
            generator: source of the initial weights, the global one if absent.

        Raises:
            ValueError: table and config disagree.
        """
        super().__init__()
        if table.language_dim != config.language_dim or table.max_action_dim != config.action_dim:
            raise ValueError(
                f"task table has language_dim {table.language_dim} and action_dim {table.max_action_dim}, "
                f"the model was configured for {config.language_dim} and {config.action_dim}"
            )
        self.config, self.table = config, table
        D, G, A, M = config.latent_dim, config.language_dim, config.action_dim, config.mlp_dim
        hidden = (M, M)
        self.encoder = MLP(
            config.obs_dim + config.image_dim,
            config.obs_dim,
            G,
            (config.encoder_dim,) * (config.encoder_layers - 1),
            D,
            output="simnorm",
            simnorm_dim=config.simnorm_dim,
        )
        self.dynamics = MLP(D + A, D, G, hidden, D, output="simnorm", simnorm_dim=config.simnorm_dim)
        self.reward_head = MLP(D + A, D, G, hidden, config.num_bins)
        self.policy_head = MLP(D, D, G, hidden, 2 * A)
        self.critics = MLP(D + A, D, G, hidden, config.num_bins, members=config.num_critics)
        self.target_critics = MLP(D + A, D, G, hidden, config.num_bins, members=config.num_critics)
        self.codec = TwoHot(config.num_bins, config.vmin, config.vmax)
        # The table is data, not weights: it is stored beside the weights and may be exchanged for another
        # one.
        self.register_buffer("task_embeddings", table.embeddings.clone(), persistent=False)
        self.register_buffer("action_masks", table.masks.clone(), persistent=False)
        self.register_buffer("discounts", table.discounts.clone(), persistent=False)

        for network in (self.encoder, self.dynamics, self.policy_head):
            network.reset_parameters(generator)
        for network in (self.reward_head, self.critics):
            network.reset_parameters(generator, zero_output=True)
        self.target_critics.load_state_dict(self.critics.state_dict())
        self.target_critics.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.task_embeddings.device

    def encode(self, obs: Tensor, task: Tensor, image: Tensor | None = None) -> Tensor:
        """Return z float32[..., Z] of obs [..., O] and, for a model with images, image features [..., X]."""
        if (image is None) != (self.config.image_dim == 0):
            raise ValueError(
                f"model has image_dim {self.config.image_dim}, image features were "
                f"{'absent' if image is None else 'given'}"
            )
        x = obs if image is None else torch.cat([obs, image], -1)
        return self._run(self.encoder, x, task)

    def next(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Return the predicted next latent [..., Z]."""
        return self._run(self.dynamics, torch.cat([z, action], -1), task)

    def reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Return reward logits [..., K]; ``codec.decode`` gives the scalar."""
        return self._run(self.reward_head, torch.cat([z, action], -1), task)

    def policy(self, z: Tensor, task: Tensor, noise: Tensor) -> PolicySample:
        """Sample the policy with standard normal noise [..., A] (drawn for all entries, masked here)."""
        mean, raw = self._run(self.policy_head, z, task).chunk(2, -1)
        mask = self.action_masks[task]
        mean, log_std, noise = mean * mask, bound_log_std(raw) * mask, noise * mask
        logprob = (-0.5 * noise.square() - log_std - _LOG_SQRT_2PI).sum(-1)
        action = torch.tanh(mean + log_std.exp() * noise)
        return PolicySample(action, mean, log_std, logprob, -mask.sum(-1) * logprob)

    def Q(  # noqa: N802 - the field's name
        self,
        z: Tensor,
        action: Tensor,
        task: Tensor,
        *,
        target: bool = False,
        members: Tensor | None = None,
        frozen: bool = False,
    ) -> Tensor:
        """Return critic logits [Nq, ..., K], or only those of ``members`` int64[n].

        Args:
            z: [..., Z].
            action: [..., A].
            task: int64.
            target: evaluate the slowly moving copies instead of the trained critics.
            members: critics to evaluate, all if absent.
            frozen: treat the critics' parameters as constants.
        """
        critics = self.target_critics if target else self.critics
        x = torch.cat([z, action], -1)
        logits: Tensor = critics(x, self.task_embeddings, task, members=members, frozen=frozen)
        return logits

    def value(
        self,
        z: Tensor,
        action: Tensor,
        task: Tensor,
        pair: Tensor,
        reduce: Reduce,
        *,
        target: bool = False,
        frozen: bool = False,
    ) -> Tensor:
        """Return the decoded value [...]: minimum or mean over a pair of critics, int64[2]."""
        logits = self.Q(z, action, task, target=target, members=pair, frozen=frozen)
        values = self.codec.decode(logits)
        return values.amin(0) if reduce == "min" else values.mean(0)

    def _run(self, network: MLP, x: Tensor, task: Tensor) -> Tensor:
        output: Tensor = network(x, self.task_embeddings, task)
        return output


def parameter_counts(model: WorldModel) -> dict[str, int]:
    """Return the number of learnable parameters per network, and their ``total``."""
    networks = {
        "encoder": model.encoder,
        "dynamics": model.dynamics,
        "reward": model.reward_head,
        "policy": model.policy_head,
        "critics": model.critics,
    }
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    return {**counts, "total": sum(counts.values())}
