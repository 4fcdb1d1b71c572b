"""The random draws of planning: each row's come from its own seed, whatever batch the row rides in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from newt.agent.config import PlanConfig
from newt.agent.draws import LANES, exponential, lanes, normal, pairs, random_words, tables


@dataclass(frozen=True)
class PlanNoise:
    """Draws of one plan for B rows. Invalid action entries may hold anything.

    Attributes:
        policy: float32[B, H, P, A] of the policy trajectories.
        candidates: float32[B, iterations, H, S-P, A].
        value_policy: float32[B, iterations, S, A] of the action at the last latent.
        pairs: int64[B, iterations, 2] critics of the terminal value.
        select: float32[B, E] standard exponential, chooses the elite.
        explore: float32[B, A].
    """

    policy: Tensor
    candidates: Tensor
    value_policy: Tensor
    pairs: Tensor
    select: Tensor
    explore: Tensor


class PlanDraws:
    """Draws the noise of rows from their seeds. Neither its device nor the other rows of a batch change a number.

    Args:
        config: Budget.
        action_dim: A.
        used_action_dim: Most valid entries of any task's actions; those beyond are 0.
        num_critics: Critics to draw pairs of.
        device: Device of the seeds and of the noise.
    """

    def __init__(
        self, config: PlanConfig, action_dim: int, used_action_dim: int, num_critics: int, device: torch.device
    ) -> None:
        self._config, self._action_dim, self._num_critics, self._device = config, action_dim, num_critics, device
        self._tables = tables(device)
        # Of an action, entries that one word draws together are drawn or not; their places are always there.
        self._places, self._drawn = (-(-entries // LANES) for entries in (action_dim, used_action_dim))

    def plan(self, seeds: Tensor, horizon: int) -> PlanNoise:
        """What plans of rows with seeds int64[B] need."""
        config, A = self._config, self._action_dim
        P, I, S, E = config.num_policy_trajectories, config.iterations, config.num_samples, config.num_elites  # noqa: E741
        shapes = [(horizon, P), (I, horizon, S - P), (I, S), ()]
        counts = [torch.Size(shape).numel() for shape in shapes]
        actions = torch.split(self._actions(seeds, sum(counts)), counts, 1)
        policy, candidates, value_policy, explore = (
            part.reshape(len(seeds), *shape, A) for part, shape in zip(actions, shapes, strict=True)
        )
        behind = torch.arange(I + -(-E // LANES), device=self._device) + sum(counts) * self._places
        words = random_words(seeds, behind)
        return PlanNoise(
            policy=policy,
            candidates=candidates,
            value_policy=value_policy,
            pairs=pairs(words[:, :I], self._num_critics),
            select=exponential(self._tables, lanes(words)[:, LANES * I :][:, :E]),
            explore=explore,
        )

    def policy(self, seeds: Tensor) -> Tensor:
        """What an action of the policy needs, float32[B, 1, A], for seeds int64[B]."""
        return self._actions(seeds, 1)

    def _actions(self, seeds: Tensor, count: int) -> Tensor:
        places = torch.arange(count * self._places, device=self._device).view(count, self._places)
        words = random_words(seeds, places[:, : self._drawn].flatten())
        drawn = normal(self._tables, lanes(words)).view(len(seeds), count, -1)
        missing = self._action_dim - drawn.shape[-1]
        return F.pad(drawn, (0, missing)) if missing else drawn
