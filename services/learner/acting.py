"""Choosing actions for a group of simulator instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from newt.client.planner import Plan, PlannerClient
from newt.tasks.registry import PADDED_ACTION_DIM, Task
from newt.wire.v1 import replay_pb2
from services.learner.waiting import Patience

Floats = npt.NDArray[np.float32]
Mode = Literal["random", "policy", "planner"]

PLAN_TIMEOUT_S = 10.0
BEHAVIOURS: dict[Mode, replay_pb2.Behaviour.ValueType] = {
    "random": replay_pb2.BEHAVIOUR_RANDOM,
    "policy": replay_pb2.BEHAVIOUR_POLICY,
    "planner": replay_pb2.BEHAVIOUR_PLANNER,
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
    """

    def __init__(
        self,
        planner: PlannerClient,
        planner_name: str,
        model: Model,
        tasks: Sequence[Task],
        random: np.random.Generator,
        patience: Patience,
    ) -> None:
        self._planner, self._name, self._model = planner, planner_name, model
        self._random, self._patience = random, patience
        self._task = np.array([model.tasks.index(task.name) for task in tasks], np.int32)
        self._mask = np.zeros((len(tasks), PADDED_ACTION_DIM), np.float32)
        for row, task in enumerate(tasks):
            self._mask[row, : task.action_dim] = 1
        self._mean: Floats | None = None

    def act(
        self,
        mode: Mode,
        obs: Floats,
        first: npt.NDArray[np.bool_],
        *,
        explore: bool,
        env_step: int | None,
        image: Floats | None = None,
        timeout_s: float | None = None,
    ) -> Decision:
        """Chooses an action for every instance.

        Args:
            mode: Who chooses.
            obs: float32[N, O].
            first: bool[N], instances at the first step of an episode.
            explore: Add exploration noise.
            env_step: Env steps of the run, for constrained planning; None plans unconstrained.
            image: float32[N, X], image features; None or X = 0 without images.
            timeout_s: How long the planner may be away before the run fails; None waits.
        """
        N = len(self._task)
        if mode == "random":
            # Unused columns stay zero: whatever is stored there would be noise to the model.
            uniform = self._random.uniform(-1, 1, (N, PADDED_ACTION_DIM)).astype(np.float32)
            return Decision(uniform * self._mask, BEHAVIOURS[mode], 0)
        seeds = self._random.integers(0, 2**64, N, np.uint64)

        def plan() -> Plan:
            return self._planner.plan(
                self._model.model_id,
                obs,
                self._task,
                seeds,
                explore=explore,
                timeout_s=PLAN_TIMEOUT_S,
                prev_mean=self._mean if mode == "planner" else None,
                first=first,
                policy_only=mode == "policy",
                env_step=env_step,
                image=image if image is not None and image.size else None,
                min_weights_version=self._model.min_weights_version,
            )

        reply = self._patience.call(self._name, plan, timeout_s)
        self._mean = reply.next_mean
        return Decision(reply.action, BEHAVIOURS[mode], reply.weights_version)
