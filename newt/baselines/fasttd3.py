"""FastTD3 (Seo et al. 2025) for many tasks at once; read it from top to bottom.

TD3 with many instances, large batches and distributional critics, as in the paper (arXiv 2511.19584, Appendix D): told
the task by its text, with each task's own discount gamma, and n-step returns.

    (1) a      = mu(s) + sigma_i e, clipped to [-1, 1];  sigma_i ~ U of instance i, drawn again at each episode  acting
    (2) R      = sum_{k<m} gamma^k r_k,  m <= n steps up to the episode's end                            n-step return
    (3) a'     = clip(mu(s_m) + clip(eps, -c, c), -1, 1),  eps ~ N(0, target_noise)                     target's action
    (4) y_j    = R + gamma^m z_j p'_j on the atoms z, of the critic that expects less at (s_m, a')         target (C51)
    (5) L_q    = sum_{i=1,2} CE(Pi y, Q_i(s, a))                                                          critic loss
    (6) L_mu   = -mean min_i E Q_i(s, mu(s))                                                               actor loss
    (7) Q'    <- Q' + tau (Q - Q')                                        targets of the critics alone: mu has none

In every step of all instances: `updates_per_step` times (5) and (7), and (6) at every `policy_delay`-th.

Two things differ from upstream, and one is a choice. Executed actions are stored, after the clipping in (1): upstream
steps and stores unclipped ones, of which simulators take the clipped part. Each instance has its own discounted return
in the normaliser of rewards. And experience is not part of a checkpoint, as upstream: who resumes collects
`start_steps` again before the next update.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from newt.agent.task_table import TaskTable
from newt.baselines.config import FastTD3Config
from newt.baselines.fasttd3_networks import Actor, Critics, initialise
from newt.baselines.fasttd3_ring import NStepBatch, StepRing
from newt.baselines.normalisers import RewardNormaliser
from newt.baselines.vector import (
    Metrics,
    Transition,
    VectorLearner,
    load_module,
    load_optimizer_state,
    optimizer_state,
    restore_noise,
    seeded,
    under,
)


def project(probability: Tensor, reward: Tensor, discount: Tensor, atoms: Tensor) -> Tensor:
    """Pi in (5): moves a distribution to R + gamma^m z and shares each atom's mass between its neighbours there (C51).

    Args:
        probability: float32[B, Z] of the atoms.
        reward: float32[B], R.
        discount: float32[B], gamma^m; 0 where nothing is bootstrapped.
        atoms: float32[Z], rising in equal steps.

    Returns:
        float32[B, Z], with the mass that there was.
    """
    low, high, last = atoms[0], atoms[-1], len(atoms) - 1
    moved = (reward[:, None] + discount[:, None] * atoms).clamp(low, high)
    position = ((moved - low) * (last / (high - low))).clamp(0, last)
    below = position.floor()
    share = position - below  # of the atom above; 0 where the position is an atom itself
    below = below.long()
    result = torch.zeros_like(probability)
    result.scatter_add_(1, below, probability * (1 - share))
    return result.scatter_add_(1, (below + 1).clamp(max=last), probability * share)


def critic_target(probability: Tensor, reward: Tensor, discount: Tensor, atoms: Tensor, *, lesser: bool) -> Tensor:
    """(4) What both critics learn, float32[2, B, Z].

    Args:
        probability: float32[2, B, Z] of the target critics.
        reward: float32[B], R.
        discount: float32[B], gamma^m.
        atoms: float32[Z].
        lesser: Both learn the whole distribution of the critic that expects less; else each its own.
    """
    projected = torch.stack([project(one, reward, discount, atoms) for one in probability])
    if not lesser:
        return projected
    value = projected @ atoms
    return torch.where((value[0] < value[1])[:, None], projected[0], projected[1]).expand(2, -1, -1)


class FastTD3(VectorLearner):
    """Acts, keeps the newest steps, and learns from draws of them after every step.

    Args:
        config: Settings.
        table: The tasks.
        tasks: int64[N], the task of every instance.
        obs_dim: O.
        seed: Source of all noise.
        device: Where networks and steps are.
        capacity_steps: Steps of each instance that are kept, if fewer than `config.capacity_steps`.
    """

    def __init__(
        self,
        config: FastTD3Config,
        table: TaskTable,
        tasks: Tensor,
        obs_dim: int,
        seed: int,
        device: torch.device | str = "cpu",
        capacity_steps: int | None = None,
    ) -> None:
        self.config, self.updates = config, 0
        self._device = torch.device(device)
        self.tasks = tasks.to(self._device)
        discount = table.discounts.to(self._device)[self.tasks]
        action_dim = table.max_action_dim
        self.policy: Actor = Actor(config, table, obs_dim)
        self._critics = Critics(config, obs_dim + table.language_dim, action_dim)
        self._targets = Critics(config, obs_dim + table.language_dim, action_dim).requires_grad_(False)
        initialise(self.policy, self._critics, torch.Generator().manual_seed(seed))
        self._targets.load_state_dict(self._critics.state_dict())
        self._rewards = RewardNormaliser(self.tasks, discount, len(table), min(abs(config.v_min), abs(config.v_max)))
        for module in (self.policy, self._critics, self._targets, self._rewards):
            module.to(self._device)
        self._actor_optimizer = self._adam(self.policy)
        self._critic_optimizer = self._adam(self._critics)
        self._noise = seeded(seed, self._device)
        capacity = min(config.capacity_steps, capacity_steps or config.capacity_steps)
        self._ring = StepRing(len(tasks), max(2, capacity), obs_dim, action_dim, discount, self._device)
        self._per_row = max(1, config.batch_size // len(tasks))
        self._sigma = self._draw_sigma()
        self._metrics: Metrics = {}

    def _adam(self, module: nn.Module) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(module.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    # ---- acting

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """Samples actions by (1)."""
        obs = obs.to(self._device)
        if self.policy.normaliser:
            self.policy.normaliser.update(obs)
        action = self.policy.best_action(obs, self.tasks)
        noise = torch.randn(action.shape, generator=self._noise, device=self._device)
        return (action + self._sigma * noise).clamp(-1, 1) * self.policy.conditioning.masks[self.tasks]

    def _draw_sigma(self) -> Tensor:
        uniform = torch.rand((len(self.tasks), 1), generator=self._noise, device=self._device)
        return self.config.min_noise + (self.config.max_noise - self.config.min_noise) * uniform

    def observe(self, transition: Transition) -> Metrics | None:
        """Keeps the step, and makes the updates that follow it."""
        step = Transition(**{name: value.to(self._device) for name, value in vars(transition).items()})
        self._ring.add(step)
        self._rewards.update(step.reward.nan_to_num(), step.ended, step.valid)
        self._sigma = torch.where(step.ended[:, None], self._draw_sigma(), self._sigma)
        if self._ring.size < min(max(1, self.config.start_steps), self._ring.capacity):
            return None
        for _ in range(self.config.updates_per_step):
            self._update(self._ring.sample(self._per_row, self.config.n_step, self._noise))
        return self._metrics

    # ---- learning

    def _update(self, batch: NStepBatch) -> None:
        """One update of the critics and, when it is due, of the actor."""
        config, policy, task = self.config, self.policy, self.tasks[batch.row]
        if policy.normaliser:  # as upstream: what is drawn counts again
            policy.normaliser.update(batch.obs)
            policy.normaliser.update(batch.reached)
        inputs, scale = policy.inputs(batch.obs, task), self._rewards.scale()[task]
        reward = batch.reward / scale if config.normalise_rewards else batch.reward
        with torch.no_grad():
            next_inputs = policy.inputs(batch.reached, task)
            noise = config.target_noise * torch.randn(batch.action.shape, generator=self._noise, device=self._device)
            noise = noise.clamp(-config.target_noise_clip, config.target_noise_clip)
            next_action = (policy(next_inputs, task) + noise).clamp(-1, 1) * policy.conditioning.masks[task]  # (3)
            probability = self._targets(next_inputs, next_action).softmax(-1)
            target = critic_target(
                probability, reward, batch.discount, self._critics.atoms, lesser=config.clipped_double_q
            )
        logits = self._critics(inputs, batch.action)
        error = -(target * logits.log_softmax(-1)).sum(-1).sum(0)  # (5), [B]
        loss = (error * batch.weight).sum() / batch.weight.sum().clamp(min=1)
        self._critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._critic_optimizer.step()
        with torch.no_grad():  # (7)
            for own, following in zip(self._critics.parameters(), self._targets.parameters(), strict=True):
                following.lerp_(own, config.target_rate)
        self.updates += 1
        self._metrics |= {
            "critic_loss": loss.detach(),
            "target_value": (target @ self._critics.atoms).mean(),
            "reward_scale": scale.mean(),
        }
        if self.updates % config.policy_delay == 0:
            self._update_actor(inputs, task, batch.weight)

    def _update_actor(self, inputs: Tensor, task: Tensor, weight: Tensor) -> None:
        """One update of the actor by (6)."""
        self._critics.requires_grad_(False)
        value = self._critics.expectation(self._critics(inputs, self.policy(inputs, task)))
        value = value.amin(0) if self.config.clipped_double_q else value.mean(0)
        loss = -(value * weight).sum() / weight.sum().clamp(min=1)
        self._actor_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._actor_optimizer.step()
        self._critics.requires_grad_(True)
        self._metrics |= {"actor_loss": loss.detach()}

    # ---- state

    def state_dict(self) -> dict[str, Tensor]:
        """Names: `policy.*`, `critics.*`, `targets.*`, `rewards.*`, `optim.<actor|critic>.*`, `updates`, `rng`.

        The statistics of observations are the policy's. Experience is not kept.
        """
        state: dict[str, Tensor] = {}
        for prefix, module in self._modules():
            state |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
        for prefix, optimizer, module in self._optimisers():
            moments = optimizer_state(optimizer, _names(module))
            state |= {f"optim.{prefix}.{name}": value for name, value in moments.items()}
        state |= {"updates": torch.tensor(self.updates), "rng": self._noise.get_state()}
        return {name: value.detach().clone() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores `state_dict`. Raises ValueError if it does not fit."""
        for prefix, module in self._modules():
            load_module(module, under(f"{prefix}.", state))
        for prefix, optimizer, module in self._optimisers():
            load_optimizer_state(optimizer, _names(module), under(f"optim.{prefix}.", state))
        self.updates = int(state["updates"])
        restore_noise(self._noise, state["rng"])

    def _modules(self) -> tuple[tuple[str, nn.Module], ...]:
        return (
            ("policy", self.policy),
            ("critics", self._critics),
            ("targets", self._targets),
            ("rewards", self._rewards),
        )

    def _optimisers(self) -> tuple[tuple[str, torch.optim.Optimizer, nn.Module], ...]:
        return (
            ("actor", self._actor_optimizer, self.policy),
            ("critic", self._critic_optimizer, self._critics),
        )


def _names(module: nn.Module) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in module.named_parameters()}
