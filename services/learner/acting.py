"""Choosing actions for a group of simulator instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from newt.client.planner import Plan, PlannerClient
from newt.tasks.registry import PADDED_ACTION_DIM, Task
from newt.wire.v1 import replay_pb2
from services.learner.waiting import Patience

Floats = npt.NDArray[np.float32]
Mode = Literal["random", "policy", "planner", "open_loop"]

PLAN_TIMEOUT_S = 10.0
PLAN_STEPS_PER_TIMEOUT = 3  # longer plans take longer, in proportion
BEHAVIOURS: dict[Mode, replay_pb2.Behaviour.ValueType] = {
    "random": replay_pb2.BEHAVIOUR_RANDOM,
    "policy": replay_pb2.BEHAVIOUR_POLICY,
    "planner": replay_pb2.BEHAVIOUR_PLANNER,
    "open_loop": replay_pb2.BEHAVIOUR_PLANNER,
}


@dataclass(frozen=True, eq=False)
class Decision:
    """Actions for N instances.

    Attributes:
        action: float32[N, A] in [-1, 1], zero in unused columns.
        behaviour: Who chose them.
        weights_version: With which weights; 0 for none.
    """

    action: Floats
    behaviour: replay_pb2.Behaviour.ValueType
    weights_version: int


@dataclass(frozen=True)
class Model:
    """The model that acts.

    Attributes:
        model_id: Its name at the planner.
        tasks: Its task table, in order.
        min_weights_version: Older weights must not act.
    """

    model_id: str
    tasks: tuple[str, ...]
    min_weights_version: int = 0


class Actor:
    """Acts for N instances and carries their plans from step to step.

    Args:
        planner: The service.
        planner_name: What to call it when waiting for it.
        model: Who acts.
        tasks: Of the instances.
        random: Source of random actions and of the planner's seeds.
        patience: For a planner that is away.
        plan_steps: Length of the plans that mode open_loop executes.
    """

    def __init__(
        self,
        planner: PlannerClient,
        planner_name: str,
        model: Model,
        tasks: Sequence[Task],
        random: np.random.Generator,
        patience: Patience,
        plan_steps: int = 1,
    ) -> None:
        self._planner, self._name, self._model = planner, planner_name, model
        self._random, self._patience = random, patience
        self._task = np.array([model.tasks.index(task.name) for task in tasks], np.int32)
        self._mask = np.zeros((len(tasks), PADDED_ACTION_DIM), np.float32)
        for row, task in enumerate(tasks):
            self._mask[row, : task.action_dim] = 1
        self._mean: Floats | None = None
        self._plan = np.zeros((len(tasks), plan_steps, PADDED_ACTION_DIM), np.float32)
        self._followed = np.zeros(len(tasks), np.int64)  # steps of the plan that were executed
        self._version = 0

    def act(
        self,
        mode: Mode,
        obs: Floats,
        first: npt.NDArray[np.bool_],
        *,
        explore: bool,
        env_step: int | None,
        timeout_s: float | None = None,
    ) -> Decision:
        """Chooses an action for every instance.

        Args:
            mode: Who chooses. In open_loop, only observations of instances at the first step of an episode are used:
                a plan is made there and executed; behind its end, its last action is repeated.
            obs: float32[N, O].
            first: bool[N], instances at the first step of an episode.
            explore: Add exploration noise.
            env_step: Env steps of the run, for constrained planning; None plans unconstrained.
            timeout_s: How long the planner may be away before the run fails; None waits.
        """
        N = len(self._task)
        if mode == "random":
            # Unused columns stay zero: whatever is stored there would be noise to the model.
            uniform = self._random.uniform(-1, 1, (N, PADDED_ACTION_DIM)).astype(np.float32)
            return Decision(uniform * self._mask, BEHAVIOURS[mode], 0)
        if mode == "open_loop":
            return self._follow(obs, first, env_step, timeout_s)
        reply = self._ask(
            np.arange(N),
            obs,
            timeout_s,
            explore=explore,
            prev_mean=self._mean if mode == "planner" else None,
            first=first,
            policy_only=mode == "policy",
            env_step=env_step,
        )
        self._mean = reply.next_mean
        return Decision(reply.action, BEHAVIOURS[mode], reply.weights_version)

    def _follow(
        self, obs: Floats, first: npt.NDArray[np.bool_], env_step: int | None, timeout_s: float | None
    ) -> Decision:
        rows, last = np.flatnonzero(first), self._plan.shape[1] - 1
        if rows.size:
            reply = self._ask(
                rows, obs, timeout_s, explore=False, horizon=last + 1, want_sequence=True, env_step=env_step
            )
            self._plan[rows], self._followed[rows] = reply.sequence, 0
            self._version = reply.weights_version
        action = self._plan[np.arange(len(self._plan)), np.minimum(self._followed, last)]
        self._followed += 1
        return Decision(action, BEHAVIOURS["open_loop"], self._version)

    def _ask(self, rows: npt.NDArray[np.int64], obs: Floats, timeout_s: float | None, **options: Any) -> Plan:
        """Asks the planner for some of the instances."""
        seeds = self._random.integers(0, 2**64, len(rows), np.uint64)
        slower = max(1.0, options.get("horizon", 0) / PLAN_STEPS_PER_TIMEOUT)

        def plan() -> Plan:
            return self._planner.plan(
                self._model.model_id,
                obs[rows],
                self._task[rows],
                seeds,
                timeout_s=PLAN_TIMEOUT_S * slower,
                min_weights_version=self._model.min_weights_version,
                **options,
            )

        return self._patience.call(self._name, plan, timeout_s)
