"""All simulator instances of a run as one vector, over however many simulator services."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
import structlog

from newt.client.sim_session import SimSession
from newt.client.steps import Step
from newt.errors import NotFoundError, PreconditionError
from newt.tasks.registry import Task
from newt.wire.limits import PADDED_OBS_DIM
from services.learner.playing.leaving import Bools, Leaving
from services.learner.playing.sight import Floats
from services.learner.worker.connections import Services

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class FleetStep:
    """One step of N instances.

    Attributes:
        obs: float32[N, O] that is to be acted on next; of a new episode where one has ended.
        reached: float32[N, O], what the transition led to.
        reward: float32[N]; NaN where not valid.
        terminated: bool[N].
        truncated: bool[N].
        valid: bool[N]; false where a simulator, or its service, broke: the episode is lost; and where no episode is
            played, because a simulator that drains waits for the others.
        success: float32[N], NaN where undefined.
        score: float32[N], the corrected score so far.
    """

    obs: Floats
    reached: Floats
    reward: Floats
    terminated: Bools
    truncated: Bools
    valid: Bools
    success: Floats
    score: Floats

    @property
    def ended(self) -> Bools:
        """bool[N], the next observation belongs to another episode."""
        return self.terminated | self.truncated | ~self.valid


class _Wing:
    """The instances of one domain."""

    def __init__(self, services: Services, rows: list[int], tasks: list[Task], seed: Callable[[int], int]) -> None:
        self.rows, self._services, self._tasks, self._seed = rows, services, tasks, seed
        self._session: SimSession | None = None
        self._obs: Floats = np.zeros((len(rows), PADDED_OBS_DIM), np.float32)
        self._leaving, self.draining = Leaving(len(rows)), False

    @property
    def away(self) -> bool:
        """Whether there is no session: it was lost, or given back."""
        return self._session is None

    def open(self) -> Floats:
        """Leases fresh instances; their first observations."""
        self.close()
        self._session = self._services.open(self._tasks[0].domain, self._tasks, [self._seed(row) for row in self.rows])
        self._obs = self._session.reset().obs
        self._leaving = Leaving(len(self.rows))
        return self._obs

    def send(self, action: Floats) -> None:
        """Starts a step; a session that is lost is noticed by `receive`, as one that was given back."""
        try:
            if self._session is not None:
                self._session.send(action)
        except (NotFoundError, PreconditionError) as error:
            self._lost(error)

    def receive(self) -> FleetStep:
        """The step, or one that is not valid in any row where there is no session."""
        try:
            if self._session is not None:
                step = self._session.receive()
                self._obs = step.observation.obs
                told = _told(step, self._leaving.present)
                self._leaving.saw(step.draining, step.ended)
                self.draining = step.draining
                if self._leaving.over:
                    log.info("simulator_left", domain=self._tasks[0].domain, instances=len(self.rows))
                    self.close()
                return told
        except (NotFoundError, PreconditionError) as error:
            self._lost(error)
        no, undefined = np.zeros(len(self.rows), np.bool_), np.full(len(self.rows), np.nan, np.float32)
        return FleetStep(self._obs, self._obs, undefined, no, no, no, undefined, undefined)

    def _lost(self, error: Exception) -> None:
        # The simulator service was restarted, or our lease ended: running episodes are gone.
        log.warning("session_lost", domain=self._tasks[0].domain, error=str(error))
        self.close()

    def close(self) -> None:
        """Gives the instances back."""
        session, self._session, self.draining = self._session, None, False
        if session is not None:
            session.close()


class Fleet:
    """Steps all instances together: a step lasts as long as the slowest domain's.

        with Fleet(services, tasks, seed) as fleet:
            obs = fleet.start()
            step = fleet.step(action)

    Args:
        services: Connections to the simulators.
        tasks: The task of every instance, N.
        seed: Gives the seed of an instance's next episodes; asked again where a session was lost.
    """

    def __init__(self, services: Services, tasks: Sequence[Task], seed: Callable[[int], int]) -> None:
        by_domain: dict[str, list[int]] = {}
        for row, task in enumerate(tasks):
            by_domain.setdefault(task.domain, []).append(row)
        self._wings = [_Wing(services, rows, [tasks[row] for row in rows], seed) for rows in by_domain.values()]
        self._order = np.argsort(np.concatenate([wing.rows for wing in self._wings]))

    def start(self) -> Floats:
        """Starts an episode of every instance; float32[N, O]."""
        return np.concatenate([wing.open() for wing in self._wings])[self._order]

    def step(self, action: Floats) -> FleetStep:
        """Steps all instances with float32[N, A].

        Instances whose session is gone have another one after a further step, when whoever counts episodes has counted:
        seeds depend on it. They wait for it while others still play in a simulator that drains: that one waits for
        them, and may be the one that is wanted.
        """
        away = [wing.away for wing in self._wings]
        for wing in self._wings:
            wing.send(action[wing.rows])
        steps = [wing.receive() for wing in self._wings]
        if not any(wing.draining for wing in self._wings):
            steps = [
                replace(step, obs=wing.open()) if was_away else step
                for wing, step, was_away in zip(self._wings, steps, away, strict=True)
            ]
        return FleetStep(
            **{
                name: np.concatenate([getattr(step, name) for step in steps])[self._order]
                for name in FleetStep.__dataclass_fields__
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as all_:
            for wing in self._wings:
                all_.callback(wing.close)


def _told(step: Step, present: Bools) -> FleetStep:
    valid = present & ~step.crashed
    return FleetStep(
        step.observation.obs,
        step.reached_obs,
        np.where(valid, step.reward, np.float32(np.nan)),
        step.terminated & present,
        step.truncated & valid,
        valid,
        step.success,
        step.corrected_score,
    )
