"""Episodes that a program has lived through, on their way to the replay buffer of a run."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from newt.acting.facts import AgentFacts
from newt.acting.plans import ActMode, Floats, Plan
from newt.acting.stage import NO_IMAGE, EpisodeStage
from newt.errors import InvalidInputError, NotFoundError, PreconditionError
from newt.wire.episodes import Behaviour, Episode

_BEHAVIOURS: dict[ActMode, Behaviour] = {"planner": Behaviour.PLANNER, "policy": Behaviour.POLICY}


@dataclass(frozen=True)
class _Task:
    name: str
    obs_dim: int
    action_dim: int


class Recorder:
    """Stages the episodes of N rows, and stores each when it is whole.

    Args:
        facts: The agent that acts.
        store: Stores an episode for good, under its id: storing it twice does no harm.
    """

    def __init__(self, facts: AgentFacts, store: Callable[[Episode], object]) -> None:
        self._facts, self._store = facts, store
        self._stages: list[EpisodeStage | None] = []
        self._plan: Plan | None = None
        self._mode: ActMode = "planner"
        self._reward: Floats | None = None
        self._unsent: list[Episode] = []
        self._prefix, self._number = f"robot-{secrets.token_hex(6)}", 0

    @property
    def unsent(self) -> int:
        """Whole episodes that could not be stored yet."""
        return len(self._unsent)

    def check(self, task: npt.NDArray[np.int32], first: npt.NDArray[np.bool_]) -> None:
        """Whether the next step can be recorded.

        Raises:
            PreconditionError: The reward of the last action was not told.
            InvalidInputError: Nobody knows how many columns the task's observation has.
        """
        if not first.all() and self._reward is None:
            raise PreconditionError("the last action has no reward: call reward() between two calls of act()")
        for index in task:
            if not self._facts.obs_dims[index]:
                name = self._facts.tasks[index]
                raise InvalidInputError(
                    "task", f"the columns of {name}'s observation are not known: it cannot be recorded"
                )

    def acted(
        self,
        obs: Floats,
        task: npt.NDArray[np.int32],
        first: npt.NDArray[np.bool_],
        image: Floats | None,
        plan: Plan,
        mode: ActMode,
    ) -> None:
        """Notes a step: what was seen, which the last action led to, and what is done now.

        Args:
            obs: float32[N, O].
            task: int32[N], rows of the task table.
            first: bool[N], rows that begin an episode; what they had of an unfinished one is forgotten.
            image: float32[N, X], or None.
            plan: The actions.
            mode: What chose them.
        """
        if len(self._stages) != len(task):
            self._stages = [None] * len(task)
        for row, index in enumerate(task):
            features = NO_IMAGE if image is None else image[row]
            if not first[row]:
                self._step(row, obs[row], features)
                continue
            facts = self._facts
            stage = EpisodeStage([_Task(facts.tasks[index], facts.obs_dims[index], facts.action_dims[index])])
            stage.begin(0, obs[row], secrets.randbits(63), features)
            self._stages[row] = stage
        self._plan, self._mode, self._reward = plan, mode, None

    def reward(self, reward: npt.ArrayLike) -> None:
        """Notes what the last actions brought.

        Args:
            reward: A number of one row, or float[N].

        Raises:
            InvalidInputError: Another shape, or not finite.
            PreconditionError: There was no action.
        """
        if self._plan is None:
            raise PreconditionError("there is no action to reward: call act() first")
        rewards = np.atleast_1d(np.asarray(reward, np.float32))
        if rewards.shape != (len(self._stages),) or not np.isfinite(rewards).all():
            raise InvalidInputError(
                "reward",
                f"got {np.asarray(reward).tolist()!r}, expected a finite number for each of {len(self._stages)} rows",
            )
        self._reward = rewards

    def finish(
        self, rows: Sequence[int], obs: Floats, image: Floats | None, terminated: bool, success: float, score: float
    ) -> None:
        """Ends the episodes of some rows; `send` stores them.

        Args:
            rows: Which, R of them.
            obs: float32[R, O], what the last actions led to.
            image: float32[R, X], or None.
            terminated: The task itself ended; False: it was cut off.
            success: Success at the last step; NaN where undefined.
            score: Score at the last step, in [0, 1].

        Raises:
            PreconditionError: The reward of the last action was not told, or a row has no episode.
        """
        if self._reward is None:
            raise PreconditionError("the last action has no reward: call reward() before finish()")
        idle = [row for row in rows if self._stages[row] is None]
        if idle:
            raise PreconditionError(f"row {idle[0]} has no running episode: call act() first")
        for at, row in enumerate(rows):
            stage = self._stages[row]
            assert stage is not None
            self._step(row, obs[at], NO_IMAGE if image is None else image[at])
            self._number += 1
            episode_id = f"{self._prefix}-{self._number}"
            episode = stage.finish(0, episode_id, terminated=terminated, success=success, score=score)
            self._stages[row] = None
            self._unsent.append(episode)

    def send(self) -> None:
        """Stores whole episodes.

        Raises:
            UnavailableError, ExhaustedError: Replay is away or full. What is left is kept for the next call.
            NotFoundError, InvalidInputError, PreconditionError: Replay refuses an episode, which is dropped.
        """
        while self._unsent:
            try:
                self._store(self._unsent[0])
            except (InvalidInputError, NotFoundError, PreconditionError):
                self._unsent.pop(0)
                raise
            self._unsent.pop(0)

    def _step(self, row: int, obs: Floats, image: Floats) -> None:
        stage, plan, reward = self._stages[row], self._plan, self._reward
        assert stage is not None
        assert plan is not None
        assert reward is not None  # checked before the step was planned
        behaviour = _BEHAVIOURS[self._mode]
        stage.step(0, plan.action[row], float(reward[row]), obs, behaviour, plan.weights_version, image)
