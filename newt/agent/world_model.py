"""The world model: encoder, dynamics, reward, policy and critics, all conditioned on the task.

Shapes: leading axes are free; `task` broadcasts against them (task [B] fits obs [B, O] and obs [T, B, O];
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
from newt.agent.moments import RunningMoments
from newt.agent.regression import TwoHot
from newt.agent.task_table import TaskTable

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
# Of observations scaled per task: what is added to a standard deviation, and how far out a value may lie. A column that
# has never moved (a goal, in the demonstrations) would be infinitely far out when it does.
_SPREAD_FLOOR, _FARTHEST = 1e-3, 10.0

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
    """Maps raw network outputs smoothly to [-10, 2]."""
    return LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (raw.tanh() + 1)


def scale_obs(obs: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Observations [..., O] in standard deviations from their task's mean (all broadcast), at most ten."""
    return ((obs - mean) / (variance.sqrt() + _SPREAD_FLOOR)).clamp(-_FARTHEST, _FARTHEST)


class WorldModel(nn.Module):
    """The five networks, the target critics and the task table they are conditioned on.

    A `policy_only` one has encoder and policy alone. With `learned_embeddings` the tasks' vectors are parameters, which
    begin as those of the table. With `obs_scaling` per task the encoder sees observations in standard deviations from
    the mean of their task, over all batches of the training: where joints differ by radians and the distance to the
    goal by centimetres, an encoder of raw numbers, as the paper's, is slow to see the goal.

    Example:
        >>> table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
        >>> model = WorldModel(ModelConfig.from_size("XS", language_dim=8), table)
        >>> model.encode(torch.zeros(5, 128), torch.zeros(5, dtype=torch.int64)).shape
        torch.Size([5, 128])
    """

    task_embeddings: Tensor
    action_masks: Tensor
    discounts: Tensor
    dynamics: MLP
    reward_head: MLP
    critics: MLP
    target_critics: MLP
    obs_moments: RunningMoments

    def __init__(self, config: ModelConfig, table: TaskTable, generator: torch.Generator | None = None) -> None:
        """Draws fresh weights.

        Args:
            config: Sizes.
            table: Tasks; its embedding and action widths must be the config's.
            generator: Source of the initial weights, the global one if absent.

        Raises:
            ValueError: Table and config disagree.
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
        if not config.policy_only:
            self.dynamics = MLP(D + A, D, G, hidden, D, output="simnorm", simnorm_dim=config.simnorm_dim)
            self.reward_head = MLP(D + A, D, G, hidden, config.num_bins)
        self.policy_head = MLP(D, D, G, hidden, 2 * A)
        if not config.policy_only:
            wide = (config.critic_width,) * 2
            self.critics = MLP(D + A, D, G, wide, config.num_bins, members=config.num_critics)
            self.target_critics = MLP(D + A, D, G, wide, config.num_bins, members=config.num_critics)
        if config.obs_scaling == "per_task":
            self.obs_moments = RunningMoments(len(table), config.obs_dim)
        self.codec = TwoHot(config.num_bins, config.vmin, config.vmax)
        # The table is data, not weights: it is stored beside the weights and may be exchanged for another one.
        if config.learned_embeddings:
            self.task_embeddings = nn.Parameter(table.embeddings.clone())
            self.limit_embeddings()
        else:
            self.register_buffer("task_embeddings", table.embeddings.clone(), persistent=False)
        self.register_buffer("action_masks", table.masks.clone(), persistent=False)
        self.register_buffer("discounts", table.discounts.clone(), persistent=False)

        if config.policy_only:
            for network in (self.encoder, self.policy_head):
                network.reset_parameters(generator)
            return
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

    def networks(self) -> dict[str, MLP]:
        """The trained networks by name, those that it has; the optimiser has them in this order."""
        if self.config.policy_only:
            return {"encoder": self.encoder, "policy": self.policy_head}
        return {
            "encoder": self.encoder,
            "dynamics": self.dynamics,
            "reward": self.reward_head,
            "critics": self.critics,
            "policy": self.policy_head,
        }

    def multiply_in(self, dtype: torch.dtype | None) -> None:
        """Sets the type of all matrix products from now on; None: that of the weights, which stay what they are."""
        for module in self.children():
            if isinstance(module, MLP):
                module.product_dtype = dtype

    @torch.no_grad()
    def limit_embeddings(self) -> None:
        """Shortens learned task vectors to length 1, as TD-MPC2's embedding layer does; others stay as they are."""
        if self.config.learned_embeddings:
            self.task_embeddings.div_(torch.linalg.vector_norm(self.task_embeddings, dim=-1, keepdim=True).clamp(min=1))

    def encode(self, obs: Tensor, task: Tensor, image: Tensor | None = None) -> Tensor:
        """Returns z float32[..., Z] of obs [..., O] and, for a model with images, image features [..., X]."""
        if (image is None) != (self.config.image_dim == 0):
            raise ValueError(
                f"model has image_dim {self.config.image_dim}, image features were "
                f"{'absent' if image is None else 'given'}"
            )
        if self.config.obs_scaling == "per_task":
            obs = scale_obs(obs, self.obs_moments.mean[task], self.obs_moments.variance[task])
        x = obs if image is None else torch.cat([obs, image], -1)
        return self._run(self.encoder, x, task)

    def next(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Returns the predicted next latent [..., Z]."""
        return self._run(self.dynamics, torch.cat([z, action], -1), task)

    def reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Returns reward logits [..., K]; `codec.decode` gives the scalar."""
        return self._run(self.reward_head, torch.cat([z, action], -1), task)

    def policy(self, z: Tensor, task: Tensor, noise: Tensor) -> PolicySample:
        """Samples the policy with standard normal noise [..., A] (drawn for all entries, masked here)."""
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
        """Returns critic logits [Nq, ..., K], or only those of `members` int64[n].

        Args:
            z: [..., Z].
            action: [..., A].
            task: int64.
            target: Evaluate the slowly moving copies instead of the trained critics.
            members: Critics to evaluate, all if absent.
            frozen: Treat the critics' parameters as constants.
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
        """Returns the decoded value [...]: minimum or mean over a pair of critics, int64[2]."""
        logits = self.Q(z, action, task, target=target, members=pair, frozen=frozen)
        values = self.codec.decode(logits)
        return values.amin(0) if reduce == "min" else values.mean(0)

    def _run(self, network: MLP, x: Tensor, task: Tensor) -> Tensor:
        output: Tensor = network(x, self.task_embeddings, task)
        return output


def parameter_counts(model: WorldModel) -> dict[str, int]:
    """Returns the number of learnable parameters per network, and their `total`."""
    networks = model.networks()
    named = [name for name in ("encoder", "dynamics", "reward", "policy", "critics") if name in networks]
    counts: dict[str, int] = {name: sum(p.numel() for p in networks[name].parameters()) for name in named}
    if model.config.learned_embeddings:
        counts["embeddings"] = model.task_embeddings.numel()
    return {**counts, "total": sum(counts.values())}
