"""Planning by model-predictive path integral control (MPPI), and acting by the policy alone.

Per row, with the constants of `PlanConfig`: P action sequences of H steps are proposed by the policy; a normal
proposal starts from the previous plan, shifted by one step and pulled towards the policy's sequences by the
constraint weight. Then, `iterations` times: S - P sequences are drawn from the proposal; each of the S is worth

    G = sum_{t<H} gamma^t R(z_t, a_t) + gamma^H Q(z_H, p(z_H)),   z_0 = h(s),  z_{t+1} = d(z_t, a_t);

the E best, weighted by exp(temperature (G - max G)), refit the proposal. One of them, drawn by its weight, is the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from newt.agent.config import PlanConfig
from newt.agent.devices import send
from newt.agent.inference import InferenceModel, TaskTerms
from newt.agent.plan_noise import PlanDraws, PlanNoise
from newt.agent.planning_checks import PlanInputs, check_plan_inputs, check_policy_inputs, named, sent_to, take_rows
from newt.agent.recorded import Recorded, Recorder, Tensors
from newt.agent.world_model import WorldModel

NOTHING_TO_PLAN_WITH = "this agent has a policy only and no world model to plan with: act with the policy"
# Candidates of one pass: activations of a pass should stay in the cache, yet not be so few that the cost of launching
# operations shows. That of a data-centre GPU holds those of 32 published plans in size L; on a CPU this was measured.
_CPU_SAMPLES_PER_PASS, _GPU_SAMPLES_PER_PASS = 1024, 32 * 512


@dataclass(frozen=True)
class PlanResult:
    """What planning gives for B rows, on the planner's device.

    Attributes:
        action: float32[B, A] to execute, in [-1, 1], 0 on invalid entries.
        next_mean: float32[B, H, A] final proposal mean: pass it back as `prev_mean` at the next step,
            unshifted.
        sequence: float32[B, H, A] the chosen action sequence; its first action, plus exploration, is
            `action`. Execute all of it for open-loop control.
        value: float32[B] estimated return of that sequence.
        std: float32[B, H, A] spread of the final proposal around `next_mean`, 0 on invalid entries.
    """

    action: Tensor
    next_mean: Tensor
    sequence: Tensor
    value: Tensor
    std: Tensor


_RESULTS = tuple(field.name for field in fields(PlanResult))


class Planner:
    """Plans for batches of independent rows; no plan depends on an earlier one. Use one per thread.

    Example:
        >>> from newt.agent.config import ModelConfig
        >>> from newt.agent.task_table import TaskTable
        >>> table = TaskTable.build(["reach"], torch.zeros(1, 8), [4], [0.99])
        >>> model = WorldModel(ModelConfig.from_size("XS", language_dim=8), table)
        >>> planner = Planner(model, PlanConfig(num_samples=64, num_elites=8, iterations=2))
        >>> task = torch.zeros(2, dtype=torch.int64)
        >>> obs, seeds = torch.zeros(2, 128), torch.tensor([1, 2])
        >>> first = planner.plan(obs, task, seeds=seeds)
        >>> second = planner.plan(obs, task, seeds=seeds + 2, prev_mean=first.next_mean)
        >>> second.action.shape
        torch.Size([2, 16])
    """

    def __init__(
        self, model: WorldModel | InferenceModel, config: PlanConfig, recorder: Recorder | None = None
    ) -> None:
        """Prepares for planning.

        Args:
            model: An `InferenceModel` is used as it is; a `WorldModel` is copied in float32.
            config: Budget and constants.
            recorder: Records whole passes, which then are replayed; None: Python starts every operation.
        """
        self.model = InferenceModel.from_model(model) if isinstance(model, WorldModel) else model
        self.config = config
        sizes, used = self.model.config, int(self.model.table.action_dims.max())
        self._draws = PlanDraws(config, sizes.action_dim, used, sizes.num_critics, self.model.device)
        self.recorder = recorder
        # By rows, horizon and whether the model has code.
        self._recorded: dict[tuple[int, int, bool], Recorded] = {}

    def plan(
        self,
        obs: Tensor,
        task: Tensor,
        *,
        seeds: Tensor,
        prev_mean: Tensor | None = None,
        first: Tensor | None = None,
        explore: bool | Tensor = True,
        constraint_weight: float | Tensor = 0.0,
        horizon: int | None = None,
        image: Tensor | None = None,
        noise: PlanNoise | None = None,
    ) -> PlanResult:
        """Plans B rows. A row's plan depends on its own inputs and seed only, to float tolerance.

        Args:
            obs: float32[B, O].
            task: int64[B], rows of the task table.
            seeds: int64[B], sources of each row's random draws.
            prev_mean: float32[B, H, A], `next_mean` of the previous step; absent: start from zeros.
            first: bool[B], rows at the first step of an episode, whose `prev_mean` is ignored; absent: none.
            explore: Add noise to the action, for all rows or per row, bool[B]. Training explores, evaluation
                does not.
            constraint_weight: Pull of the first proposal towards the policy, for all rows or per row, float32[B] in
                [0, 1]; `PlanConfig.constraint_weight` has its schedule over a run.
            horizon: Steps to plan, the configured H if absent.
            image: float32[B, X] image features, for models which take them.
            noise: Recorded draws instead of the seeds'.

        Raises:
            ValueError: An argument has another shape, type or range than stated, or is not finite; names it. Or the
                model has the policy only.
        """
        if self.model.config.policy_only:
            raise ValueError(f"model: {NOTHING_TO_PLAN_WITH}")
        H = self.config.horizon if horizon is None else horizon
        inputs = check_plan_inputs(
            self.model, obs, task, seeds, prev_mean, first, explore, constraint_weight, image, horizon=H
        )
        device = self.model.device
        parts = []
        inputs, seeds = sent_to(device, inputs), send(seeds, device)
        noise = None if noise is None else sent_to(device, noise)
        with torch.inference_mode():
            for rows in self._passes(len(obs)):
                some = take_rows(inputs, rows)
                if noise is not None:
                    parts.append(self._plan(some, take_rows(noise, rows)))
                elif self.recorder is None:
                    parts.append(self._plan(some, self._draws.plan(seeds[rows], H)))
                else:
                    parts.append(self._replay(some, seeds[rows], self.recorder))
        # Outside of inference mode, so that callers get ordinary tensors.
        return PlanResult(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def unrecorded(self, most: int) -> list[int]:
        """Numbers of rows, up to `most` of one pass, whose next plan would not be replayed."""
        sizes = [1 << power for power in range(self._rows_per_pass().bit_length())]
        keys = [(size, self.config.horizon, self.model.has_code) for size in sizes if size <= most]
        return [key[0] for key in keys if key not in self._recorded or not self._recorded[key].ready]

    def _replay(self, inputs: PlanInputs, seeds: Tensor, recorder: Recorder) -> tuple[Tensor, ...]:
        """One pass by the recording of the next power of two of rows: what is left of it are rows of before."""
        B, H = inputs.prev_mean.shape[:2]
        given = {**named(inputs), "seeds": seeds}
        key = 1 << (B - 1).bit_length(), H, self.model.has_code
        if key not in self._recorded:
            # What was recorded without code is of no use when there is some.
            self._recorded = {known: recorded for known, recorded in self._recorded.items() if known[2] == key[2]}
            places = {name: value.new_zeros(key[0], *value.shape[1:]) for name, value in given.items()}
            self._recorded[key] = Recorded(f"plan of {key[0]} rows and {H} steps", self._plan_named, places, recorder)
        results = self._recorded[key](given)
        return tuple(results[name][:B].clone() for name in _RESULTS)

    def _plan_named(self, given: Tensors) -> Tensors:
        inputs = PlanInputs(**{name: value for name, value in given.items() if name != "seeds"})
        noise = self._draws.plan(given["seeds"], inputs.prev_mean.shape[1])
        return dict(zip(_RESULTS, self._plan(inputs, noise), strict=True))

    def _plan(self, inputs: PlanInputs, noise: PlanNoise) -> tuple[Tensor, ...]:
        config, model = self.config, self.model
        B, H, A = inputs.prev_mean.shape
        P = config.num_policy_trajectories
        terms = model.task_terms(inputs.task)
        z0 = model.encode(inputs.obs, inputs.task, inputs.image)
        mask = terms.mask[:, :, None]  # [B, 1, 1, A], over time and samples

        policy_actions, policy_z, policy_return = self._policy_trajectories(terms, z0, noise.policy)
        mean, std = self._first_proposal(inputs, policy_actions)

        actions = policy_actions.new_empty(B, H, config.num_samples, A)
        actions[:, :, :P] = policy_actions
        terminal_discount = terms.discount**H
        for i in range(config.iterations):
            candidates = torch.addcmul(mean[:, :, None], std[:, :, None], noise.candidates[:, i])
            actions[:, :, P:] = candidates.clamp_(-1, 1).mul_(mask)
            # Policy trajectories are the same in every iteration: only their terminal value is drawn anew.
            z, returns = self._rollout(terms, z0, actions[:, :, P:])
            z, returns = torch.cat([policy_z, z], 1), torch.cat([policy_return, returns], 1)
            last_action = model.policy(terms, z, noise.value_policy[:, i])
            terminal = model.value(terms, z, last_action, noise.pairs[:, i])
            values = torch.addcmul(returns, terminal_discount, terminal).nan_to_num_(nan=0.0)

            elite_values, elite = values.topk(config.num_elites, dim=1)
            elites = actions.gather(2, elite[:, None, :, None].expand(-1, H, -1, A))
            weights = torch.exp(config.temperature * (elite_values - elite_values[:, :1]))
            weights = weights / (weights.sum(1, keepdim=True) + 1e-9)
            share = weights[:, None, :, None]
            mean = (share * elites).sum(2)
            std = (share * (elites - mean[:, :, None]).square()).sum(2).sqrt()
            std = std.clamp_(config.min_std, config.max_std) * terms.mask
            mean = mean * terms.mask

        # argmax of log weight minus log of an exponential draw is a draw in proportion to the weights.
        selected = (torch.log(weights + 1e-9) - noise.select.log()).argmax(1)
        batch = torch.arange(B, device=selected.device)
        sequence = elites[batch, :, selected]
        action = sequence[:, 0] + inputs.explore[:, None] * std[:, 0] * noise.explore
        return action.clamp(-1, 1), mean, sequence, elite_values[batch, selected], std

    def _policy_trajectories(self, terms: TaskTerms, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Follows the policy from z [B, 1, Z]: actions [B, H, P, A], latents [B, P, Z], returns [B, P]."""
        actions, returns, discount = [], torch.zeros((), device=z.device), torch.ones_like(terms.discount)
        for t in range(noise.shape[1]):
            actions.append(self.model.policy(terms, z, noise[:, t]))
            z, reward = self.model.step(terms, z, actions[-1])
            returns = returns + discount * reward
            discount = discount * terms.discount
        return torch.stack(actions, 1), z, returns

    def _first_proposal(self, inputs: PlanInputs, policy_actions: Tensor) -> tuple[Tensor, Tensor]:
        """Warm start, shifted by one step, pulled towards the policy trajectories by the constraint."""
        config = self.config
        warm, weight = inputs.prev_mean, inputs.constraint_weight[:, None, None]
        mean = torch.cat([warm[:, 1:], torch.zeros_like(warm[:, :1])], 1) * ~inputs.first[:, None, None]
        policy_std = policy_actions.std(2).clamp(config.min_std, config.max_std)
        std = torch.full_like(policy_std, config.max_std)
        return mean.lerp(policy_actions.mean(2), weight), std.lerp(policy_std, weight)

    def _rollout(self, terms: TaskTerms, z: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Follows actions [B, H, S, A] from z [B, 1, Z]: last latents [B, S, Z], discounted returns [B, S]."""
        returns, discount = torch.zeros((), device=z.device), torch.ones_like(terms.discount)
        for t in range(actions.shape[1]):
            z, reward = self.model.step(terms, z, actions[:, t])
            returns = returns + discount * reward
            discount = discount * terms.discount
        return z, returns

    def policy(
        self,
        obs: Tensor,
        task: Tensor,
        *,
        seeds: Tensor,
        explore: bool | Tensor = True,
        image: Tensor | None = None,
    ) -> Tensor:
        """Acts by the policy alone: float32[B, A], a sample where `explore`, else tanh(mean)."""
        explore = check_policy_inputs(self.model, obs, task, seeds, explore, image)
        device = self.model.device
        obs, task, seeds, explore = (send(tensor, device) for tensor in (obs, task, seeds, explore))
        with torch.inference_mode():
            # A sample without noise is the mean.
            noise = self._draws.policy(seeds) * explore[:, None, None]
            z = self.model.encode(obs, task, None if image is None else send(image, device))
            action = self.model.policy(self.model.task_terms(task), z, noise).squeeze(1)
        return action.clone()

    def _passes(self, B: int) -> Iterator[slice]:
        step = self._rows_per_pass()
        for start in range(0, B, step):
            yield slice(start, min(start + step, B))

    def _rows_per_pass(self) -> int:
        samples = _CPU_SAMPLES_PER_PASS if self.model.device.type == "cpu" else _GPU_SAMPLES_PER_PASS
        rows = max(1, samples // self.config.num_samples)
        return rows if self.recorder is None else 1 << (rows.bit_length() - 1)  # there are recordings of powers of two
