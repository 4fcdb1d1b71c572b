"""Planning by model-predictive path integral control (MPPI), and policy-only acting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from newt.agent.config import PlanConfig
from newt.agent.inference import InferenceModel, Rows
from newt.agent.plan_noise import PlanNoise, RowGenerators, draw_plan_noise
from newt.agent.world_model import WorldModel

# Candidates of one pass on the CPU: activations of a pass should stay in the cache, yet not be so few that
# the # cost of launching operations shows.
_CPU_SAMPLES_PER_PASS = 1024


@dataclass(frozen=True)
class PlanResult:
    """What planning gives for B rows, on the planner's device.

    Attributes:
        action: float32[B, A] to execute, in [-1, 1], 0 on invalid entries.
        plan_mean: float32[B, H, A] final proposal mean: pass it back as ``prev_mean`` at the next step,
            unshifted.
        elite_plan: float32[B, H, A] the chosen action sequence; its first action, plus exploration, is
            ``action``. Execute all of it for open-loop control.
        value: float32[B] estimated return of that sequence.
    """

    action: Tensor
    plan_mean: Tensor
    elite_plan: Tensor
    value: Tensor


@dataclass(frozen=True)
class _Request:
    """The checked inputs of ``Planner.plan`` that have one entry per row."""

    obs: Tensor
    task: Tensor
    prev_mean: Tensor
    t0: Tensor
    constraint_weight: Tensor
    explore: Tensor
    image: Tensor | None

    def to(self, device: torch.device) -> _Request:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: v.to(device) for name, v in values.items() if v is not None})


_Rowwise = TypeVar("_Rowwise", _Request, PlanNoise)


class Planner:
    """Plans for batches of independent rows; holds no state between calls. Use one per thread.

    Example:
        >>> from newt.agent import ModelConfig, TaskTable
        >>> table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
        >>> model = WorldModel(ModelConfig.from_size("XS", language_dim=8), table)
        >>> planner = Planner(model, PlanConfig(num_samples=64, num_elites=8, iterations=2))
        >>> task = torch.zeros(2, dtype=torch.int64)
        >>> obs, seeds = torch.zeros(2, 128), torch.tensor([1, 2])
        >>> first = planner.plan(obs, task, seeds=seeds)
        >>> second = planner.plan(obs, task, seeds=seeds + 2, prev_mean=first.plan_mean)
        >>> second.action.shape
        torch.Size([2, 16])
    """

    def __init__(self, model: WorldModel | InferenceModel, config: PlanConfig) -> None:
        """Prepare for planning.

        Args:
            model: an ``InferenceModel`` is used as it is; a ``WorldModel`` is copied in float32.
            config: budget and constants.
        """
        self.model = InferenceModel.from_model(model) if isinstance(model, WorldModel) else model
        self.config = config
        self._generators = RowGenerators(self.model.device)

    def plan(
        self,
        obs: Tensor,
        task: Tensor,
        *,
        seeds: Tensor,
        prev_mean: Tensor | None = None,
        t0: Tensor | None = None,
        explore: bool | Tensor = True,
        env_step: int | None = None,
        constraint_weight: Tensor | None = None,
        horizon: int | None = None,
        image: Tensor | None = None,
        noise: PlanNoise | None = None,
    ) -> PlanResult:
        """Plan B rows. A row's plan depends on its own inputs and seed only, to float tolerance.

        Args:
            obs: float32[B, O].
            task: int64[B], rows of the task table.
            seeds: int64[B], sources of each row's random draws.
            prev_mean: float32[B, H, A], ``plan_mean`` of the previous step; absent: start from zeros.
            t0: bool[B], rows at the first step of an episode, whose ``prev_mean`` is ignored; absent: none.
            explore: add noise to the action, for all rows or per row, bool[B]. Training explores, evaluation
                does not.
            env_step: global env step, decides the pull towards the policy; None switches it off.
            constraint_weight: float32[B] in [0, 1], overrides ``env_step`` row by row.
            horizon: steps to plan, the configured H if absent.
            image: float32[B, X] image features, for models which take them.
            noise: recorded draws instead of the seeds'.

        Raises:
            ValueError: an argument has another shape, type or range than stated, or is not finite; names it.
        """
        H = self.config.horizon if horizon is None else horizon
        if H < 1:
            raise ValueError(f"horizon: expected at least 1, got {H}")
        B, A = len(obs), self.model.config.action_dim
        self._check(obs, task, seeds, image)
        device = self.model.device
        if prev_mean is None:
            prev_mean = torch.zeros(B, H, A)
        _expect("prev_mean", prev_mean, (B, H, A), torch.float32)
        if not bool(torch.isfinite(prev_mean).all()):
            raise ValueError("prev_mean: expected finite numbers, got NaN or infinity")
        t0 = torch.zeros(B, dtype=torch.bool) if t0 is None else t0
        _expect("t0", t0, (B,), torch.bool)
        if constraint_weight is None:
            constraint_weight = torch.full((B,), self.config.constraint_weight(env_step))
        _expect("constraint_weight", constraint_weight, (B,), torch.float32)
        if not bool(((constraint_weight >= 0) & (constraint_weight <= 1)).all()):
            raise ValueError(
                f"constraint_weight: expected numbers in [0, 1], got {constraint_weight.tolist()}"
            )
        explore = torch.full((B,), explore) if isinstance(explore, bool) else explore
        _expect("explore", explore, (B,), torch.bool)

        request = _Request(obs, task, prev_mean, t0, constraint_weight, explore, image).to(device)
        parts = []
        with torch.inference_mode():
            for rows in self._passes(B):
                draws = self._draw(seeds[rows], task[rows], H) if noise is None else _take(noise, rows)
                parts.append(self._plan(_take(request, rows), draws))
        # Outside of inference mode, so that callers get ordinary tensors.
        return PlanResult(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def act(
        self,
        obs: Tensor,
        task: Tensor,
        *,
        seeds: Tensor,
        explore: bool | Tensor = True,
        image: Tensor | None = None,
    ) -> Tensor:
        """Act by the policy alone: float32[B, A], a sample where ``explore``, else tanh(mean)."""
        self._check(obs, task, seeds, image)
        B, A, device = len(obs), self.model.config.action_dim, self.model.device
        explore = torch.full((B,), explore) if isinstance(explore, bool) else explore
        _expect("explore", explore, (B,), torch.bool)
        noise = torch.zeros(B, 1, A, device=device)
        for row, seed in enumerate(seeds.tolist()):
            if explore[row]:
                self._generators.seed(seed)
                noise[row, 0] = self._generators.normal(A)
        task = task.to(device)
        with torch.inference_mode():
            z = self.model.encode(obs.to(device), task, None if image is None else image.to(device))
            rows = self.model.rows(task)
            sampled = self.model.policy(rows, z, noise)
            mean = self.model.policy(rows, z, None)
            action = torch.where(explore.to(device)[:, None, None], sampled, mean).squeeze(1)
        return action.clone()

    def _plan(self, request: _Request, noise: PlanNoise) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        config, model = self.config, self.model
        B, H, A = request.prev_mean.shape
        P = config.num_policy_trajectories
        rows = model.rows(request.task)
        z0 = model.encode(request.obs, request.task, request.image)
        mask = rows.mask[:, :, None]  # [B, 1, 1, A], over time and samples

        policy_actions, policy_z, policy_return = self._policy_trajectories(rows, z0, noise.policy)
        mean, std = self._first_proposal(request, policy_actions)

        actions = policy_actions.new_empty(B, H, config.num_samples, A)
        actions[:, :, :P] = policy_actions
        terminal_discount = rows.discount**H
        for i in range(config.iterations):
            candidates = torch.addcmul(mean[:, :, None], std[:, :, None], noise.candidates[:, i])
            actions[:, :, P:] = candidates.clamp_(-1, 1).mul_(mask)
            # Policy trajectories are the same in every iteration: only their terminal value is drawn anew.
            z, returns = self._rollout(rows, z0, actions[:, :, P:])
            z, returns = torch.cat([policy_z, z], 1), torch.cat([policy_return, returns], 1)
            last_action = model.policy(rows, z, noise.value_policy[:, i])
            terminal = model.value(rows, z, last_action, noise.pairs[:, i])
            values = torch.addcmul(returns, terminal_discount, terminal).nan_to_num_(nan=0.0)

            elite_values, elite = values.topk(config.num_elites, dim=1)
            elites = actions.gather(2, elite[:, None, :, None].expand(-1, H, -1, A))
            weights = torch.exp(config.temperature * (elite_values - elite_values[:, :1]))
            weights = weights / (weights.sum(1, keepdim=True) + 1e-9)
            share = weights[:, None, :, None]
            mean = (share * elites).sum(2)
            std = (share * (elites - mean[:, :, None]).square()).sum(2).sqrt()
            std = std.clamp_(config.min_std, config.max_std) * rows.mask
            mean = mean * rows.mask

        # argmax of log weight minus log of an exponential draw is a draw in proportion to the weights.
        selected = (torch.log(weights + 1e-9) - noise.select.log()).argmax(1)
        batch = torch.arange(B, device=selected.device)
        plan = elites[batch, :, selected]
        action = plan[:, 0] + request.explore[:, None] * std[:, 0] * noise.explore
        return action.clamp(-1, 1), mean, plan, elite_values[batch, selected]

    def _policy_trajectories(self, rows: Rows, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Follow the policy from z [B, 1, Z]: actions [B, H, P, A], latents [B, P, Z], returns [B, P]."""
        actions, returns, discount = [], torch.zeros((), device=z.device), torch.ones_like(rows.discount)
        for t in range(noise.shape[1]):
            actions.append(self.model.policy(rows, z, noise[:, t]))
            z, reward = self.model.step(rows, z, actions[-1])
            returns = returns + discount * reward
            discount = discount * rows.discount
        return torch.stack(actions, 1), z, returns

    def _rollout(self, rows: Rows, z: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Follow actions [B, H, S, A] from z [B, 1, Z]: last latents [B, S, Z], discounted returns [B, S]."""
        returns, discount = torch.zeros((), device=z.device), torch.ones_like(rows.discount)
        for t in range(actions.shape[1]):
            z, reward = self.model.step(rows, z, actions[:, t])
            returns = returns + discount * reward
            discount = discount * rows.discount
        return z, returns

    def _first_proposal(self, request: _Request, policy_actions: Tensor) -> tuple[Tensor, Tensor]:
        """Warm start, shifted by one step, pulled towards the policy trajectories by the constraint."""
        config = self.config
        warm, weight = request.prev_mean, request.constraint_weight[:, None, None]
        mean = torch.cat([warm[:, 1:], torch.zeros_like(warm[:, :1])], 1) * ~request.t0[:, None, None]
        policy_std = policy_actions.std(2).clamp(config.min_std, config.max_std)
        std = torch.full_like(policy_std, config.max_std)
        return mean.lerp(policy_actions.mean(2), weight), std.lerp(policy_std, weight)

    def _passes(self, B: int) -> Iterator[slice]:
        step = (
            B if self.model.device.type != "cpu" else max(1, _CPU_SAMPLES_PER_PASS // self.config.num_samples)
        )
        for start in range(0, B, step):
            yield slice(start, min(start + step, B))

    def _draw(self, seeds: Tensor, task: Tensor, horizon: int) -> PlanNoise:
        config = self.model.config
        dims = self.model.table.action_dims[task.cpu()].tolist()
        return draw_plan_noise(
            self._generators,
            seeds.tolist(),
            dims,
            self.config,
            horizon,
            config.action_dim,
            config.num_critics,
        )

    def _check(self, obs: Tensor, task: Tensor, seeds: Tensor, image: Tensor | None) -> None:
        config, B = self.model.config, len(obs)
        if B == 0:
            raise ValueError("obs: expected at least one row, got none")
        _expect("obs", obs, (B, config.obs_dim), torch.float32)
        _expect("task", task, (B,), torch.int64)
        _expect("seeds", seeds, (B,), torch.int64)
        if (image is not None) != bool(config.image_dim):
            raise ValueError(
                f"image: model has image_dim {config.image_dim}, got {'no ' * (image is None)}image"
            )
        if image is not None:
            _expect("image", image, (B, config.image_dim), torch.float32)
        if not bool(((task >= 0) & (task < len(self.model.table))).all()):
            raise ValueError(f"task: expected indices below {len(self.model.table)}, got {task.tolist()}")
        if not bool(torch.isfinite(obs).all()):
            raise ValueError("obs: expected finite numbers, got NaN or infinity")


def _expect(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(value.shape) != shape or value.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} {shape}, got {value.dtype} {tuple(value.shape)}")


def _take(rows_of: _Rowwise, rows: slice) -> _Rowwise:
    """Slice every tensor of a dataclass whose tensors all have the rows on their first axis."""
    values = {field.name: getattr(rows_of, field.name) for field in fields(rows_of)}
    return replace(rows_of, **{name: value[rows] for name, value in values.items() if value is not None})
