"""The random draws of planning: each row's come from its own seed, whatever batch the row rides in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from newt.agent.config import PlanConfig


@dataclass(frozen=True)
class PlanNoise:
    """Draws of one plan for B rows. Invalid action entries may hold anything.

    Attributes:
        policy: float32[B, H, P, A] of the policy trajectories.
        candidates: float32[B, iterations, H, S-P, A].
        value_policy: float32[B, iterations, S, A] of the action at the last latent.
        pairs: int64[B, iterations, 2] critics of the terminal value, on the CPU.
        select: float32[B, E] standard exponential, chooses the elite.
        explore: float32[B, A].
    """

    policy: Tensor
    candidates: Tensor
    value_policy: Tensor
    pairs: Tensor
    select: Tensor
    explore: Tensor


class RowGenerators:
    """Generators that are re-seeded for each row: one on the CPU, one on the planning device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.host = torch.Generator("cpu")
        self.local = self.host if device.type == "cpu" else torch.Generator(device)

    def seed(self, seed: int) -> None:
        """Starts a row's draws. The same seed gives the same draws on the same kind of device."""
        self.host.manual_seed(seed)
        if self.local is not self.host:
            self.local.manual_seed(seed)

    def normal(self, count: int) -> Tensor:
        """Returns `count` standard normal numbers."""
        return torch.randn(count, generator=self.local, device=self.device)


def draw_plan_noise(
    generators: RowGenerators,
    seeds: list[int],
    action_dims: list[int],
    config: PlanConfig,
    horizon: int,
    action_dim: int,
    num_critics: int,
) -> PlanNoise:
    """Draws everything, row by row; only valid action entries are drawn, the others are 0."""
    device, B = generators.device, len(seeds)
    P, I = config.num_policy_trajectories, config.iterations  # noqa: E741
    S = config.num_samples
    leads = [(horizon, P), (I, horizon, S - P), (I, S), ()]
    counts = [torch.Size(lead).numel() for lead in leads]
    outputs = [torch.zeros(B, *lead, action_dim, device=device) for lead in leads]
    pairs = torch.empty(B, I, 2, dtype=torch.int64)
    select = torch.empty(B, config.num_elites, device=device)
    for row, (seed, n) in enumerate(zip(seeds, action_dims, strict=True)):
        generators.seed(seed)
        # The two largest of Nq uniform numbers name two distinct critics, every pair equally likely.
        pairs[row] = torch.rand(I, num_critics, generator=generators.host).topk(2, -1).indices
        select[row].exponential_(generator=generators.local)
        flat = generators.normal(n * sum(counts))
        start = 0
        for output, lead, count in zip(outputs, leads, counts, strict=True):
            output[row][..., :n] = flat[start : start + n * count].view(*lead, n)
            start += n * count
    policy, candidates, value_policy, explore = outputs
    return PlanNoise(policy, candidates, value_policy, pairs, select, explore)
