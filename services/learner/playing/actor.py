"""Choosing actions for a group of simulator instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Unpack

import numpy as np
import numpy.typing as npt

from newt.acting.plans import Plan, PlanCarry, PlanOptions, draw_seeds
from newt.client.planner import PlannerClient
from newt.errors import InvalidInputError, PreconditionError
from newt.tasks.registry import Task
from newt.wire.episodes import Behaviour
from newt.wire.limits import PADDED_ACTION_DIM
from services.learner.waiting import RunFailedError

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Mode = Literal["random", "policy", "planner", "open_loop"]

PLAN_TIMEOUT_S = 10.0
PLAN_STEPS_PER_TIMEOUT = 3  # longer plans take longer, in proportion
BEHAVIOURS: dict[Mode, int] = {
    "random": Behaviour.RANDOM,
    "policy": Behaviour.POLICY,
    "planner": Behaviour.PLANNER,
    "open_loop": Behaviour.PLANNER,
}


@dataclass(frozen=True, eq=False)
class Decision:
    """Actions for N instances.

    Attributes:
        action: float32[N, A] in [-1, 1], zero in unused columns.
        behaviour: int[N], what chose them.
        weights_version: int[N], version of the weights that chose; 0 for none.
    """

    action: Floats
    behaviour: Integers
    weights_version: Integers

    @classmethod
    def alike(cls, action: Floats, mode: Mode, weights_version: int) -> Decision:
        """Chosen in one way for all."""
        N = len(action)
        return cls(action, np.full(N, BEHAVIOURS[mode]), np.full(N, weights_version))

    def where(self, rows: npt.NDArray[np.bool_], other: Decision) -> Decision:
        """This decision in some rows, bool[N], and another one in the rest."""
        return Decision(
            np.where(rows[:, None], self.action, other.action),
            np.where(rows, self.behaviour, other.behaviour),
            np.where(rows, self.weights_version, other.weights_version),
        )


@dataclass(frozen=True)
class Model:
    """The model that acts.

    Attributes:
        model_id: Its name at the planner.
        tasks: Its task table, in order.
        min_weights_version: Older weights must not act.
        constraint_weight: Share of the policy in a plan's first proposal, in [0, 1]; None: as training had it.
    """

    model_id: str
    tasks: tuple[str, ...]
    min_weights_version: int = 0
    constraint_weight: float | None = None

    def actor(
        self, planner: PlannerClient, tasks: Sequence[Task], random: np.random.Generator, plan_steps: int = 1
    ) -> Actor:
        """Who acts for instances of some tasks."""
        return Actor(planner, self, tasks, random, plan_steps)


class Acting(Protocol):
    """What can act: a model at the planners, or one in this process."""

    def actor(
        self, planner: PlannerClient, tasks: Sequence[Task], random: np.random.Generator, plan_steps: int = 1
    ) -> ActsForInstances:
        """Who acts for instances of some tasks."""


class ActsForInstances(Protocol):
    """What `Actor` and `LocalActor` have in common."""

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
        """Chooses an action for every instance."""


def random_actions(tasks: Sequence[Task], random: np.random.Generator) -> Floats:
    """Uniform actions, float32[N, A]. Unused columns are zero: whatever is stored there would be noise to the model."""
    uniform = random.uniform(-1, 1, (len(tasks), PADDED_ACTION_DIM)).astype(np.float32)
    used = np.arange(PADDED_ACTION_DIM) < np.array([task.action_dim for task in tasks])[:, None]
    return uniform * used


@dataclass(frozen=True)
class _Planners:
    """The planners, asked for one model."""

    planner: PlannerClient
    model: Model

    def plan(
        self,
        obs: Floats,
        task: npt.NDArray[np.int32],
        seed: npt.NDArray[np.uint64],
        *,
        prev_mean: Floats | None = None,
        first: npt.NDArray[np.bool_] | None = None,
        image: Floats | None = None,
        **options: Unpack[PlanOptions],
    ) -> Plan:
        """As `PlannerClient.plan`; what the planners refuse fails the run."""
        options["min_weights_version"] = self.model.min_weights_version
        options["constraint_weight"] = self.model.constraint_weight
        slower = max(1.0, options.get("horizon", 0) / PLAN_STEPS_PER_TIMEOUT)
        try:
            return self.planner.plan(
                self.model.model_id,
                obs,
                task,
                seed,
                prev_mean=prev_mean,
                first=first,
                image=image if image is not None and image.size else None,
                timeout_s=PLAN_TIMEOUT_S * slower,
                **options,
            )
        except (PreconditionError, InvalidInputError) as error:
            raise RunFailedError(f"the {self.planner.peer} refuses to act: {error}") from error


class Actor:
    """Acts for N instances and carries their plans from step to step.

    Args:
        planner: The service.
        model: The model that acts.
        tasks: Tasks of the instances.
        random: Source of random actions and of the planner's seeds.
        plan_steps: Length of the plans that mode open_loop executes.
    """

    def __init__(
        self,
        planner: PlannerClient,
        model: Model,
        tasks: Sequence[Task],
        random: np.random.Generator,
        plan_steps: int = 1,
    ) -> None:
        self._random = random
        self._planners = _Planners(planner, model)
        self._carry = PlanCarry(self._planners, random)
        self._task = np.array([model.tasks.index(task.name) for task in tasks], np.int32)
        self._tasks = list(tasks)
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
        image: Floats | None = None,
    ) -> Decision:
        """Chooses an action for every instance.

        Args:
            mode: Way of choosing. In open_loop, only observations of instances at the first step of an episode are
                used: a plan is made there and executed; behind its end, its last action is repeated.
            obs: float32[N, O].
            first: bool[N], instances at the first step of an episode.
            explore: Add exploration noise.
            env_step: Env steps of the run, for constrained planning; None: those of the weights.
            image: float32[N, X], image features; None or X = 0 without images.
        """
        if mode == "random":
            return Decision.alike(random_actions(self._tasks, self._random), mode, 0)
        if mode == "open_loop":
            return self._follow(obs, first, env_step, image)
        reply = self._carry.step(obs, self._task, first, image, explore=explore, mode=mode, env_step=env_step)
        return Decision.alike(reply.action, mode, reply.weights_version)

    def _follow(
        self,
        obs: Floats,
        first: npt.NDArray[np.bool_],
        env_step: int | None,
        image: Floats | None,
    ) -> Decision:
        rows, last = np.flatnonzero(first), self._plan.shape[1] - 1
        if rows.size:
            reply = self._planners.plan(
                obs[rows],
                self._task[rows],
                draw_seeds(self._random, len(rows)),
                image=None if image is None else image[rows],
                explore=False,
                horizon=last + 1,
                want_sequence=True,
                env_step=env_step,
            )
            self._plan[rows], self._followed[rows] = reply.sequence, 0
            self._version = reply.weights_version
        action = self._plan[np.arange(len(self._plan)), np.minimum(self._followed, last)]
        self._followed += 1
        return Decision.alike(action, "open_loop", self._version)
