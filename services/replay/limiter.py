"""The ratio of updates to environment steps: pure arithmetic, no state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from newt.wire.limits import MAX_COUNT
from newt.wire.v1 import replay_pb2


@dataclass(frozen=True)
class Limiter:
    """Says which side of a run must wait.

    quota(c) = updates_per_env_step · (c - start_env_steps), c environment steps taken, unfinished episodes included:
    update u (from 0) may be sampled iff u < quota(c); with u updates asked for, the collector may go on iff
    quota(c) - u <= max_lead_updates. Both cannot wait at once, because max_lead_updates >= 0.

    Attributes:
        updates_per_env_step: Positive.
        start_env_steps: Steps before the first update.
        max_lead_updates: 0 for no bound.
        all_tasks_until_env_steps: While fewer steps are taken, updates wait until every task has an episode.
    """

    updates_per_env_step: float
    start_env_steps: int
    max_lead_updates: int
    all_tasks_until_env_steps: int = 0

    @staticmethod
    def of(message: replay_pb2.Limiter) -> Limiter:
        """From a checked message."""
        return Limiter(
            message.updates_per_env_step,
            message.start_env_steps,
            message.max_lead_updates,
            message.all_tasks_until_env_steps,
        )

    def quota(self, env_steps: int) -> float:
        """Updates allowed after so many environment steps; negative before the start."""
        return self.updates_per_env_step * (env_steps - self.start_env_steps)

    def may_sample(self, update: int, env_steps: int) -> bool:
        """Whether the trainer may have the batch of this update."""
        return update < self.quota(env_steps)

    def permitted_updates(self, env_steps: int) -> int:
        """The first update that may not be sampled."""
        return min(max(0, math.ceil(self.quota(env_steps))), MAX_COUNT)

    def lead(self, updates: int, env_steps: int) -> float:
        """Updates that the collector is ahead by; negative if the trainer has to wait."""
        return self.quota(env_steps) - updates

    def may_insert(self, updates: int, env_steps: int) -> bool:
        """Whether the collector may take more environment steps."""
        return not self.max_lead_updates or self.lead(updates, env_steps) <= self.max_lead_updates

    def permitted(self, updates: int) -> int | None:
        """The most steps taken at which the collector may take another one; None without a bound."""
        if not self.max_lead_updates:
            return None
        steps = (updates + self.max_lead_updates) / self.updates_per_env_step
        return min(self.start_env_steps + math.floor(steps), MAX_COUNT)
