"""The ratio of updates to environment steps: pure arithmetic, no state."""

from __future__ import annotations

from dataclasses import dataclass

from newt.wire.v1 import replay_pb2


@dataclass(frozen=True)
class Limiter:
    """Says which side of a run must wait.

    quota(c) = updates_per_env_step · (c - start_env_steps), c transitions ever appended:
    update u (from 0) may be sampled iff u < quota(c); with u updates asked for, the collector may go on iff
    quota(c) - u <= max_lead_updates. Both cannot wait at once, because max_lead_updates >= 0.

    Attributes:
        updates_per_env_step: Positive.
        start_env_steps: Transitions before the first update.
        max_lead_updates: 0 for no bound.
    """

    updates_per_env_step: float
    start_env_steps: int
    max_lead_updates: int

    @staticmethod
    def of(message: replay_pb2.Limiter) -> Limiter:
        """From a checked message."""
        return Limiter(message.updates_per_env_step, message.start_env_steps, message.max_lead_updates)

    def quota(self, env_steps: int) -> float:
        """Updates allowed after so many environment steps; negative before the start."""
        return self.updates_per_env_step * (env_steps - self.start_env_steps)

    def may_sample(self, update: int, env_steps: int) -> bool:
        """Whether the trainer may have the batch of this update."""
        return update < self.quota(env_steps)

    def lead(self, updates: int, env_steps: int) -> float:
        """Updates that the collector is ahead by; negative if the trainer has to wait."""
        return self.quota(env_steps) - updates

    def may_insert(self, updates: int, env_steps: int) -> bool:
        """Whether the collector may take more environment steps."""
        return not self.max_lead_updates or self.lead(updates, env_steps) <= self.max_lead_updates
