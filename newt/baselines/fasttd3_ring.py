"""The newest steps of every instance, and n-step transitions drawn from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from newt.baselines.vector import Transition


@dataclass(frozen=True)
class NStepBatch:
    """B transitions over up to n steps.

    Attributes:
        obs: float32[B, O].
        action: float32[B, A], the first of the steps.
        reward: float32[B], sum of gamma^k r_k over the steps taken.
        reached: float32[B, O], what the last of them led to.
        discount: float32[B], gamma^m after m steps; 0 where the task ended: nothing is bootstrapped.
        row: int64[B], instance.
        weight: float32[B], 0 where the step is not valid, else 1.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    reached: Tensor
    discount: Tensor
    row: Tensor
    weight: Tensor


class StepRing:
    """A ring of steps for each of N instances; all are written together.

    Args:
        rows: N.
        capacity: Steps of each, C.
        obs_dim: O.
        action_dim: A.
        discount: float32[N], gamma of each instance's task.
        device: Where it is.
    """

    def __init__(
        self, rows: int, capacity: int, obs_dim: int, action_dim: int, discount: Tensor, device: torch.device
    ) -> None:
        self.size = 0  # steps of each instance that are there
        self.capacity, self._next, self._discount = capacity, 0, discount.to(device)

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(rows, capacity, *shape, dtype=dtype, device=device)

        self._obs, self._reached, self._action, self._reward = (
            zeros(obs_dim),
            zeros(obs_dim),
            zeros(action_dim),
            zeros(),
        )
        self._terminated, self._ended, self._valid = (zeros(dtype=torch.bool) for _ in range(3))

    def add(self, step: Transition) -> None:
        """Takes a step of all instances in; the oldest goes if the ring is full."""
        slot = self._next
        self._obs[:, slot], self._reached[:, slot], self._action[:, slot] = step.obs, step.reached, step.action
        self._reward[:, slot] = step.reward.nan_to_num()
        self._terminated[:, slot], self._ended[:, slot], self._valid[:, slot] = step.terminated, step.ended, step.valid
        if self.size:
            # No n-step transition goes into a step that is not valid: the one before is the last of its episode.
            self._ended[:, slot - 1] |= ~step.valid
        self._next = (slot + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, per_row: int, n_step: int, generator: torch.Generator) -> NStepBatch:
        """Draws steps uniformly, with replacement, the same number of every instance.

        Args:
            per_row: B / N.
            n_step: n.
            generator: Source of the draws.
        """
        rows, device = len(self._reward), self._reward.device
        row = torch.arange(rows, device=device).repeat_interleave(per_row)
        age = torch.randint(self.size, (rows * per_row,), generator=generator, device=device)
        return self.at(row, age, n_step)

    def at(self, row: Tensor, age: Tensor, n_step: int) -> NStepBatch:
        """The n-step transitions that begin at some steps.

        Steps are added up to the first at which the episode ended, and never beyond the newest of the ring, which would
        lead to the oldest.

        Args:
            row: int64[B], instances.
            age: int64[B], positions, counted from the oldest step: 0 to size - 1.
            n_step: n.
        """
        oldest = self._next - self.size
        k = torch.arange(n_step, device=row.device)
        slot = (oldest + age[:, None] + k) % self.capacity  # [B, n]
        at = row[:, None], slot
        ended = self._ended[at]
        over_before = torch.zeros_like(ended)
        over_before[:, 1:] = ended[:, :-1].cumsum(1) > 0
        taken = ~over_before & (age[:, None] + k < self.size)  # the first is always
        gamma = self._discount[row]
        last = taken.sum(1) - 1
        reward = (self._reward[at] * gamma[:, None] ** k * taken).sum(1)
        first, end = slot[:, 0], slot.gather(1, last[:, None]).squeeze(1)
        discount = gamma ** (last + 1) * ~self._terminated[row, end]
        return NStepBatch(
            self._obs[row, first],
            self._action[row, first],
            reward,
            self._reached[row, end],
            discount,
            row,
            self._valid[row, first].float(),
        )
