"""Acting with a policy that lives in this process, where the planners are not asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from newt.baselines.vector import Policy
from newt.client.planner import PlannerClient
from newt.tasks.registry import Task
from services.learner.playing.actor import Decision, Floats, Mode, random_actions


@dataclass(frozen=True)
class LocalModel:
    """What playing.actor.Model is to planners.

    Attributes:
        policy: What acts; it is not trained meanwhile.
        tasks: Its task table, in order.
    """

    policy: Policy
    tasks: tuple[str, ...]

    def actor(
        self, planner: PlannerClient, tasks: Sequence[Task], random: np.random.Generator, plan_steps: int = 1
    ) -> LocalActor:
        """Who acts for instances of some tasks."""
        return LocalActor(self, tasks, random)


class LocalActor:
    """Acts for N instances without exploration; as playing.actor.Actor.

    Args:
        model: What acts.
        tasks: Tasks of the instances.
        random: Source of random actions.
    """

    def __init__(self, model: LocalModel, tasks: Sequence[Task], random: np.random.Generator) -> None:
        self._policy, self._tasks, self._random = model.policy, list(tasks), random
        device = next(model.policy.parameters()).device
        self._task = torch.tensor([model.tasks.index(task.name) for task in tasks], device=device)

    def act(
        self,
        mode: Mode,
        obs: Floats,
        first: npt.NDArray[np.bool_],
        *,
        explore: bool,
        env_step: int | None,
        image: Floats | None = None,
    ) -> Decision:
        """Chooses an action for every instance: at random in mode random, else the policy's best."""
        if mode == "random":
            return Decision.alike(random_actions(self._tasks, self._random), mode, 0)
        with torch.no_grad():
            action = self._policy.best_action(torch.from_numpy(np.array(obs)).to(self._task.device), self._task)
        return Decision.alike(action.cpu().numpy(), "policy", 0)
