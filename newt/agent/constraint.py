"""How much planning follows the policy: task by task, as far as training has come.

A plan's first proposal is w times the policy's trajectories plus 1 - w times the warm start
(`newt.agent.planning`); w falls from 1 to 0 over a run (arXiv 2511.19584, constrained planning;
`PlanConfig.constraint_weight`). There is something to follow only where the policy existed before a task's first online
step, from demonstrations of that task or from an agent that was trained before: such a task is *guided*. Every other
one is planned freely, because the pull of a policy that never saw the task would keep it from exploring.

Weights know both, wherever they act: `Guidance` travels in the `info` of checkpoints and of published weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.agent.config import PlanConfig


@dataclass(frozen=True)
class Guidance:
    """What weights say of how they were trained to act.

        guidance = Guidance(env_steps=7_000_000, guided_tasks=frozenset({"walker-walk"}))
        guidance.weights(PlanConfig(), ("walker-walk", "my-task"))  # 0.5 and 0

    Attributes:
        env_steps: Env steps of the run when the weights were made; None if nobody knows, which plans freely.
        guided_tasks: The guided ones among the run's tasks; None if nobody knows, which takes all for guided.
    """

    env_steps: int | None = None
    guided_tasks: frozenset[str] | None = None

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Guidance:
        """Reads what `to_info` wrote; absent entries, as of weights that no run made, are None."""
        guided = info.get("guided_tasks")
        return cls(info.get("env_steps"), None if guided is None else frozenset(guided))

    def to_info(self) -> dict[str, Any]:
        """Entries for the `info` of a checkpoint or of published weights."""
        guided = None if self.guided_tasks is None else sorted(self.guided_tasks)
        entries = {"env_steps": self.env_steps, "guided_tasks": guided}
        return {name: value for name, value in entries.items() if value is not None}

    def guides(self, tasks: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of some tasks are guided, bool[len(tasks)]."""
        guided = self.guided_tasks
        return np.array([guided is None or task in guided for task in tasks], np.bool_)

    def weights(self, config: PlanConfig, tasks: Sequence[str], env_step: int | None = None) -> npt.NDArray[np.float32]:
        """Constraint weights of some tasks.

        Args:
            config: Has the schedule.
            tasks: Names.
            env_step: Env steps of the run; None: those of the weights.

        Returns:
            float32[len(tasks)] in [0, 1].
        """
        weight = config.constraint_weight(self.env_steps if env_step is None else env_step)
        return np.where(self.guides(tasks), weight, 0.0).astype(np.float32)
