"""Proximal policy optimisation (Schulman et al. 2017) for many tasks at once; read it from top to bottom.

As in the paper (arXiv 2511.19584, Appendix D): cleanRL's continuous PPO for massively parallel simulators, told the
task by its text, with each task's own discount gamma. T steps of N instances make one rollout.

    (1) pi(a|s) = tanh(u), u ~ Normal(mu(s), sigma),  log pi(a) = log Normal(u) - sum log(1 - tanh(u)^2)        policy
    (2) delta_t = r_t + gamma v'_t - v_t,  v'_t = V(s_{t+1}); 0 where the task ended                         TD error
    (3) A_t     = delta_t + gamma lambda A_{t+1}, the latter only inside of an episode                      advantage
    (4) L_pi    = mean max(-A rho, -A clip(rho, 1-e, 1+e)),  rho = pi(a|s) / pi_old(a|s)                   policy loss
    (5) L_v     = mean max((v - R)^2, (v_old + clip(v - v_old, -e, e) - R)^2) / 2,  R = A + v_old           value loss
    (6) L       = L_pi + c_v L_v - c_h H

Where an episode is cut off by its time limit, v'_t is the value of the observation that was reached, though the next
one shown belongs to a new episode; `bootstrap_truncated: false` takes 0 instead, as the upstream script does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from newt.agent.task_table import TaskTable
from newt.baselines.config import PPOConfig
from newt.baselines.vector import (
    Conditioning,
    Metrics,
    Policy,
    Transition,
    VectorLearner,
    load_module,
    load_optimizer_state,
    mlp,
    optimizer_state,
    restore_noise,
    seeded,
    under,
)

MIN_LOG_STD, MAX_LOG_STD = -10.0, 2.0
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


# ---- the policy


def normal_log_prob(u: Tensor, mean: Tensor, log_std: Tensor, mask: Tensor) -> Tensor:
    """Log density of a diagonal Normal over the valid entries: float32[..., A] to float32[...]."""
    z = (u - mean) * (-log_std).exp()
    return ((-0.5 * z.square() - log_std - _LOG_SQRT_2PI) * mask).sum(-1)


def tanh_correction(u: Tensor, mask: Tensor) -> Tensor:
    """Sum of log(1 - tanh(u)^2), the derivative of tanh, over the valid entries; in a form that does not overflow."""
    return ((2 * (math.log(2) - u - F.softplus(-2 * u))) * mask).sum(-1)


class PPOPolicy(Policy):
    """(1) Actor and critic, two networks of their own, and a standard deviation that no state changes.

    Args:
        config: Settings.
        table: The tasks.
        obs_dim: O.
    """

    def __init__(self, config: PPOConfig, table: TaskTable, obs_dim: int) -> None:
        super().__init__()
        self.squash = config.action == "tanh_normal"
        self.conditioning = Conditioning(table)
        width, hidden = obs_dim + table.language_dim, (config.hidden_dim, config.hidden_dim)
        self.actor = mlp(width, hidden, table.max_action_dim, nn.Tanh)
        self.critic = mlp(width, hidden, 1, nn.Tanh)
        self.log_std = nn.Parameter(torch.zeros(table.max_action_dim))

    def initialise(self, generator: torch.Generator) -> None:
        """Orthogonal weights: gain sqrt(2) inside, 0.01 at the actor's end, 1 at the critic's; biases 0."""
        for network, last_gain in ((self.actor, 0.01), (self.critic, 1.0)):
            layers = [layer for layer in network if isinstance(layer, nn.Linear)]
            for layer in layers:
                gain = last_gain if layer is layers[-1] else math.sqrt(2)
                nn.init.orthogonal_(layer.weight, gain, generator)
                nn.init.zeros_(layer.bias)

    def value(self, obs: Tensor, task: Tensor) -> Tensor:
        """V, float32[...]."""
        value: Tensor = self.critic(self.conditioning(obs, task)).squeeze(-1)
        return value

    def mean_and_log_std(self, obs: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mu float32[..., A] and log sigma float32[A] of u."""
        return self.actor(self.conditioning(obs, task)), self.log_std.clamp(MIN_LOG_STD, MAX_LOG_STD)

    def log_prob(self, u: Tensor, mean: Tensor, log_std: Tensor, task: Tensor) -> Tensor:
        """Returns log pi of the action that u becomes, float32[...]."""
        mask = self.conditioning.masks[task]
        log_prob = normal_log_prob(u, mean, log_std, mask)
        return log_prob - tanh_correction(u, mask) if self.squash else log_prob

    def to_action(self, u: Tensor, task: Tensor) -> Tensor:
        """What is executed: tanh(u), or u clipped to [-1, 1]."""
        return (u.tanh() if self.squash else u.clamp(-1, 1)) * self.conditioning.masks[task]

    def best_action(self, obs: Tensor, task: Tensor) -> Tensor:
        """The action of the mean."""
        return self.to_action(self.mean_and_log_std(obs, task)[0], task)


# ---- advantages and losses


def advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, ended: Tensor, discount: Tensor, gae_lambda: float
) -> Tensor:
    """(2), (3) Generalised advantage estimates, float32[T, N].

    Args:
        reward: float32[T, N].
        value: float32[T, N], v.
        next_value: float32[T, N], v', 0 where nothing is to be bootstrapped.
        ended: bool[T, N], the next step belongs to another episode.
        discount: float32[N], gamma of each instance's task.
        gae_lambda: lambda.
    """
    delta = reward + discount * next_value - value
    result, following = torch.empty_like(delta), torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        following = delta[t] + discount * gae_lambda * following * ~ended[t]
        result[t] = following
    return result


def policy_loss(advantage: Tensor, log_ratio: Tensor, clip: float) -> Tensor:
    """(4) Scalar."""
    ratio = log_ratio.exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)).mean()


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """(5) Scalar; without the second term if `clip` is None."""
    error = (value - target).square()
    if clip is not None:
        error = torch.maximum(error, (old_value + (value - old_value).clamp(-clip, clip) - target).square())
    return 0.5 * error.mean()


# ---- learning


class PPO(VectorLearner):
    """Collects rollouts and learns from each `epochs` times.

    Args:
        config: Settings.
        table: The tasks.
        tasks: int64[N], the task of every instance.
        obs_dim: O.
        seed: Source of all noise.
        device: Where networks and rollout are.
    """

    def __init__(
        self,
        config: PPOConfig,
        table: TaskTable,
        tasks: Tensor,
        obs_dim: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.updates = config, 0
        self._device = torch.device(device)
        self.policy: PPOPolicy = PPOPolicy(config, table, obs_dim)
        self.policy.initialise(torch.Generator().manual_seed(seed))
        self.policy.to(self._device)
        self.tasks = tasks.to(self._device)
        self._discount = table.discounts.to(self._device)[self.tasks]
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.lr, eps=config.adam_eps)
        self._noise = seeded(seed, self._device)
        T, N, A = config.rollout_steps, len(tasks), table.max_action_dim
        shapes = {"obs": (T, N, obs_dim), "u": (T, N, A)} | dict.fromkeys(
            ("log_prob", "value", "next_value", "reward"), (T, N)
        )
        self._rollout = {name: torch.zeros(shape, device=self._device) for name, shape in shapes.items()}
        self._ended = torch.zeros(T, N, dtype=torch.bool, device=self._device)
        self._valid = torch.zeros(T, N, dtype=torch.bool, device=self._device)
        self._steps = 0  # in the rollout

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """Samples actions; they are the next step of the rollout."""
        rollout, t = self._rollout, self._steps
        obs = obs.to(self._device)
        mean, log_std = self.policy.mean_and_log_std(obs, self.tasks)
        u = mean + log_std.exp() * torch.randn(mean.shape, generator=self._noise, device=self._device)
        rollout["obs"][t], rollout["u"][t] = obs, u
        rollout["log_prob"][t] = self.policy.log_prob(u, mean, log_std, self.tasks)
        rollout["value"][t] = self.policy.value(obs, self.tasks)
        return self.policy.to_action(u, self.tasks)

    @torch.no_grad()
    def observe(self, transition: Transition) -> Metrics | None:
        """Completes a step of the rollout; a full one is learnt from."""
        t, last = self._steps, self._steps + 1 == self.config.rollout_steps
        moved = {name: getattr(transition, name).to(self._device) for name in ("terminated", "truncated", "valid")}
        self._ended[t] = moved["terminated"] | moved["truncated"] | ~moved["valid"]
        self._valid[t] = moved["valid"]
        self._rollout["reward"][t] = self.config.reward_scale * transition.reward.to(self._device).nan_to_num()
        if last or bool(self._ended[t].any()):
            # Inside of an episode the next step of the rollout has this value already; here nobody has it.
            value = self.policy.value(transition.reached.to(self._device), self.tasks)
            bootstrapped = ~moved["terminated"]
            if not self.config.bootstrap_truncated:
                bootstrapped &= ~moved["truncated"]
            self._rollout["next_value"][t] = value * bootstrapped
        self._steps += 1
        if not last:
            return None
        with torch.enable_grad():
            return self._learn()

    def _learn(self) -> Metrics:
        """Updates on the whole rollout and begins the next."""
        rollout, self._steps = self._rollout, 0
        value, ended = rollout["value"], self._ended
        next_value = torch.cat(
            [torch.where(ended[:-1], rollout["next_value"][:-1], value[1:]), rollout["next_value"][-1:]]
        )
        reward = rollout["reward"]
        # What a broken simulator did is not known: no error there, and none carried over.
        reward = torch.where(self._valid, reward, value - self._discount * next_value)
        advantage = advantages(reward, value, next_value, ended, self._discount, self.config.gae_lambda)
        flat = {name: x.flatten(0, 1) for name, x in rollout.items()}
        flat |= {"advantage": advantage.flatten(), "target": (advantage + value).flatten()}
        flat["task"] = self.tasks.expand(self._ended.shape).flatten()
        known = self._valid.flatten().nonzero().squeeze(-1)
        metrics: list[Metrics] = []
        for _ in range(self.config.epochs):
            order = known[torch.randperm(len(known), generator=self._noise, device=self._device)]
            for rows in order.chunk(self.config.minibatches):
                if len(rows) > 1:  # the spread of a single advantage is nothing to divide by
                    metrics.append(self._update({name: x[rows] for name, x in flat.items()}))
        spread = flat["target"][known].var()
        means = {
            name: torch.stack([values[name] for values in metrics]).mean() for name in (metrics[0] if metrics else ())
        }
        if metrics:
            means["explained_variance"] = 1 - (flat["target"] - flat["value"])[known].var() / spread.clamp(min=1e-8)
        return means

    def _update(self, batch: dict[str, Tensor]) -> Metrics:
        """(6) One step of the optimiser on a minibatch."""
        config, task = self.config, batch["task"]
        mean, log_std = self.policy.mean_and_log_std(batch["obs"], task)
        log_ratio = self.policy.log_prob(batch["u"], mean, log_std, task) - batch["log_prob"]
        advantage = batch["advantage"]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        on_policy = policy_loss(advantage, log_ratio, config.clip)
        value = self.policy.value(batch["obs"], task)
        on_value = value_loss(value, batch["value"], batch["target"], config.clip if config.clip_value else None)
        mask = self.policy.conditioning.masks[task]
        entropy = ((log_std + 0.5 + _LOG_SQRT_2PI) * mask).sum(-1).mean()
        loss = on_policy + config.value_coef * on_value - config.entropy_coef * entropy
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), config.grad_clip_norm)
        self._optimizer.step()
        self.updates += 1
        with torch.no_grad():
            ratio = log_ratio.exp()
            metrics = {
                "policy_loss": on_policy,
                "value_loss": on_value,
                "entropy": entropy,
                "approx_kl": (ratio - 1 - log_ratio).mean(),
                "clip_fraction": ((ratio - 1).abs() > config.clip).float().mean(),
                "grad_norm": norm,
            }
        return {name: value.detach() for name, value in metrics.items()}

    # ---- state

    def state_dict(self) -> dict[str, Tensor]:
        """Names: `policy.*`, `optim.*`, `updates`, `rng`. A rollout that is under way is not kept."""
        state = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        state |= {f"optim.{name}": value for name, value in optimizer_state(self._optimizer, self._names()).items()}
        state |= {"updates": torch.tensor(self.updates), "rng": self._noise.get_state()}
        return {name: value.detach().clone() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`. Raises ValueError if it does not fit."""
        load_module(self.policy, under("policy.", state))
        load_optimizer_state(self._optimizer, self._names(), under("optim.", state))
        self.updates, self._steps = int(state["updates"]), 0
        restore_noise(self._noise, state["rng"])

    def _names(self) -> dict[nn.Parameter, str]:
        return {parameter: name for name, parameter in self.policy.named_parameters()}
