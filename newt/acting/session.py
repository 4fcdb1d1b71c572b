"""A program's side of acting: padding, warm start, first steps and seeds, the same whoever plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from newt.acting.facts import AgentFacts
from newt.acting.observations import Obs, checked_features, padded, rows_of
from newt.acting.plans import ActMode, Carry, Floats, Plan, PlanCarry, PlanOptions, Plans
from newt.errors import InvalidInputError, PreconditionError
from newt.wire.limits import MAX_HORIZON

if TYPE_CHECKING:
    from newt.acting.recording import Recorder


class ActingSession:
    """Acts for a program that owns the loop: `newt.agent.Agent` and `newt.client.RemoteAgent` are of this kind.

        action = agent.act(obs, task="walker-walk")      # one robot: float32[A of the task] in [-1, 1]
        actions = agent.act(rows, task="walker-walk")    # B robots: float32[B, A]
        agent.reset()                                    # before the next episode

    Not for two threads at once: give each an agent of its own.

    Args:
        plans: What plans.
        facts: What the agent is.
        seed: Origin of all randomness; None draws one.
        mode: `planner` or `policy`; None: as the agent was trained to act.
        explore: Add exploration noise.
        constraint_weight: Share of the policy in a plan's first proposal, in [0, 1]; None: as training had it.
        horizon: Steps of a plan, up to 64; None: as training had them. Longer plans bridge more late ones.
        carry: Makes what carries the plans of an episode from step to step.
        recorder: Records episodes, as `reward` and `finish` tell them; None records none.

    Raises:
        InvalidInputError: An argument makes no sense for this agent.
    """

    def __init__(
        self,
        plans: Plans,
        facts: AgentFacts,
        *,
        seed: int | None = None,
        mode: ActMode | None = None,
        explore: bool = False,
        constraint_weight: float | None = None,
        horizon: int | None = None,
        carry: Callable[[Plans, np.random.Generator], Carry] = PlanCarry,
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder = recorder
        self._plans, self._facts, self._new_carry = plans, facts, carry
        self._options: PlanOptions = {
            "explore": explore,
            "mode": _checked_mode(mode, facts),
            "constraint_weight": _checked_weight(constraint_weight),
            "horizon": _checked_horizon(horizon),
        }
        self._random = _generator(seed)
        self._carry = carry(plans, self._random)
        self._plan: Plan | None = None
        self._task: npt.NDArray[np.int32] | None = None
        self._first = np.zeros(0, np.bool_)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the agent knows."""
        return self._facts.tasks

    @property
    def facts(self) -> AgentFacts:
        """What goes in and comes out."""
        return self._facts

    @property
    def mode(self) -> ActMode:
        """How actions are chosen."""
        return self._options["mode"]

    @property
    def last_plan(self) -> Plan | None:
        """What was planned by the last call of `act`: its value, for example; None before the first step."""
        return self._plan

    def act(self, obs: Obs, task: str | Sequence[str] | None = None, *, image: npt.ArrayLike | None = None) -> Floats:
        """The next action. The first call, and the first after `reset`, begins an episode.

        Args:
            obs: float[O] of one robot, or B rows of several: float[B, O], or a sequence of arrays of different lengths.
                A row has the columns of its task; zeros may follow.
            task: Name of the task, of all rows or one for each; None: the agent's only one. A row whose task has
                changed begins anew.
            image: float[X] or [B, X] image features, for agents with images.

        Returns:
            float32[A], or float32[B, A] of several rows, in [-1, 1]. A is the task's own number of columns; of rows
            with different tasks the largest, with zeros behind what a task has.

        Raises:
            InvalidInputError: Names the argument, what was got and what is expected; nothing has changed then.
            PreconditionError: It records, and the last action has no reward yet.
        """
        rows, single = rows_of(obs)
        names = self._names(task, len(rows))
        index = np.array([self._facts.index(name) for name in names], np.int32)
        state = padded(rows, index, self._facts)
        features = checked_features(image, len(rows), single, self._facts)
        if self._task is not None and len(self._task) != len(index):
            raise InvalidInputError(
                "obs", f"got {len(index)} rows, the episode has {len(self._task)}; call reset() to begin another one"
            )
        first = np.ones(len(index), np.bool_) if self._task is None else self._first | (self._task != index)
        if self._recorder is not None:
            self._recorder.check(index, first)
        plan = self._carry.step(state, index, first, features, **self._options)
        if self._recorder is not None:
            self._recorder.acted(state, index, first, features, plan, self.mode)
        self._plan, self._task, self._first = plan, index, np.zeros(len(index), np.bool_)
        action = plan.action[:, : max(self._facts.action_dims[row] for row in index)].copy()
        return action[0] if single else action

    def reward(self, reward: npt.ArrayLike) -> None:
        """Tells what the last action brought: between two calls of `act`, where episodes are recorded.

        Args:
            reward: A number, or float[B] of several rows.

        Raises:
            InvalidInputError: Another shape, or not finite.
            PreconditionError: Nothing is recorded, or there was no action yet.
        """
        self._recording().reward(reward)

    def finish(
        self,
        obs: Obs,
        *,
        rows: Sequence[int] | None = None,
        terminated: bool = False,
        success: float | None = None,
        score: float = 0.0,
        image: npt.ArrayLike | None = None,
    ) -> None:
        """Ends the episode with what the last action led to, and stores it; `reset` alone throws an episode away.

        Args:
            obs: Last observation, as in `act`; of several rows, one for each that ends.
            rows: Which of several rows end; None: all.
            terminated: The task itself has ended, and nothing is expected behind; False: time was up.
            success: Whether it succeeded, 1 or 0; None where that means nothing.
            score: How good it was, from 0 to 1.
            image: Image features, for agents with images.

        Raises:
            InvalidInputError: As `act`; or replay refuses the episode.
            NotFoundError: Replay has no such run.
            PreconditionError: Nothing is recorded, or the last action has no reward yet.
            UnavailableError: Replay is away. The episode is kept, and sent with the next one.
        """
        recorder, known = self._recording(), self._task
        if known is None:
            raise PreconditionError("there is no episode to finish: call act() first")
        if not 0 <= score <= 1:
            raise InvalidInputError("score", f"got {score}, expected a number from 0 to 1")
        ending = list(range(len(known)) if rows is None else rows)
        given, single = rows_of(obs)
        if len(given) != len(ending) or not set(ending) <= set(range(len(known))):
            raise InvalidInputError("obs", f"got {len(given)} rows for the ends of rows {ending} of {len(known)}")
        state = padded(given, known[ending], self._facts)
        features = checked_features(image, len(given), single, self._facts)
        recorder.finish(ending, state, features, terminated, float("nan") if success is None else success, score)
        self.reset(rows)
        recorder.send()

    def _recording(self) -> Recorder:
        if self._recorder is None:
            raise PreconditionError("this agent records nothing: make it with record=True")
        return self._recorder

    def reset(self, rows: Sequence[int] | None = None, *, seed: int | None = None) -> None:
        """Ends the episode: the next call of `act` begins another one.

        Args:
            rows: Which of several rows; None: all, whose number may then change.
            seed: New origin of all randomness; None goes on with the old one.

        Raises:
            InvalidInputError: There is no such row.
        """
        if seed is not None:
            self._random.bit_generator.state = _generator(seed).bit_generator.state
        if rows is None:
            self._plan, self._task, self._first = None, None, np.zeros(0, np.bool_)
            self._carry = self._new_carry(self._plans, self._random)
            return
        for row in rows:
            if not 0 <= row < len(self._first):
                had = len(self._first)
                raise InvalidInputError("rows", f"got {row}, expected a row of the last act(), which had {had}")
        self._first[list(rows)] = True

    def _names(self, task: str | Sequence[str] | None, rows: int) -> list[str]:
        if task is None:
            if len(self._facts.tasks) > 1:
                raise InvalidInputError("task", f"got none, but this agent knows {len(self._facts.tasks)}: name one")
            return [self._facts.tasks[0]] * rows
        if isinstance(task, str):
            return [task] * rows
        if len(task) != rows:
            raise InvalidInputError("task", f"got {len(task)} names for {rows} rows, expected one name or one per row")
        return list(task)


def _generator(seed: int | None) -> np.random.Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise InvalidInputError("seed", f"got {seed!r}, expected a whole number from 0, or None") from error


def _checked_mode(mode: ActMode | None, facts: AgentFacts) -> ActMode:
    if mode not in (None, "planner", "policy"):
        raise InvalidInputError("mode", f"got {mode!r}, expected planner, policy, or None for as it was trained")
    if mode == "planner" and not facts.plans:
        raise InvalidInputError("mode", "got planner, but this agent has a policy only and no world model; use policy")
    return mode or facts.mode


def _checked_weight(weight: float | None) -> float | None:
    if weight is not None and not (isinstance(weight, int | float) and 0 <= weight <= 1):
        raise InvalidInputError("constraint_weight", f"got {weight!r}, expected a number from 0 to 1, or None")
    return weight


def _checked_horizon(horizon: int | None) -> int:
    if horizon is not None and not (isinstance(horizon, int) and 1 <= horizon <= MAX_HORIZON):
        raise InvalidInputError("horizon", f"got {horizon!r}, expected 1 to {MAX_HORIZON}, or None")
    return horizon or 0
