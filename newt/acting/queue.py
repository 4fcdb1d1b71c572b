"""Acting in time: when a plan is late, the next steps of an earlier plan are executed, and counted.

    step            0      1      2      3
    asked for       P0     P1     P2     P3
    there in time   P0     -      -      P2
    executed        P0[0]  P0[1]  P0[2]  P2[1]

A plan that comes late is of use all the same: its later steps are acted on, and the next plan begins where it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Unpack

import numpy as np
import numpy.typing as npt

from newt.acting.plans import Floats, Plan, PlanOptions, Plans, draw_seeds
from newt.errors import ExhaustedError, UnavailableError

MAX_IN_FLIGHT = 2
"""Requests under way at once: a service that is slow gets no more of them."""


@dataclass
class ActingCounts:
    """What became of the steps of an agent with a deadline.

    Attributes:
        steps: Actions in all.
        late: Those whose plan was not there in time: they are later steps of an earlier plan.
        held: Of the late ones, those for which no plan had a step left: the last one was repeated.
        failed: Plans that failed; the service was away or full.
    """

    steps: int = 0
    late: int = 0
    held: int = 0
    failed: int = 0


class Pace:
    """The clock of one program, and the threads that wait for its plans.

    Args:
        deadline_s: How long an action may take from the call of `act`.
    """

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.counts = ActingCounts()
        self._pool = ThreadPoolExecutor(MAX_IN_FLIGHT, thread_name_prefix="plan")

    def begin(self, plan: Callable[[], Plan]) -> Future[Plan]:
        """Plans in a thread."""
        return self._pool.submit(plan)

    def close(self) -> None:
        """Waits for nothing: plans under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Asked:
    """A plan under way for the observation of a step."""

    step: int
    future: Future[Plan] = field(compare=False)


@dataclass(frozen=True)
class _Made:
    step: int
    plan: Plan

    def at(self, step: int) -> tuple[Floats, bool]:
        """Actions float32[N, A] for a later step, and whether the plan reaches so far."""
        age = step - self.step
        sequence = self.plan.sequence
        if age == 0 or sequence is None:
            return self.plan.action, age == 0
        last = sequence.shape[1] - 1
        return sequence[:, min(age, last)], age <= last

    def warm_start(self, step: int) -> Floats | None:
        """`prev_mean` for the plan of a later step: as if the plan were of the step just before."""
        mean, past = self.plan.next_mean, step - self.step - 1
        if mean is None or past <= 0:
            return mean
        rest = np.zeros_like(mean)
        rest[:, : max(0, mean.shape[1] - past)] = mean[:, past:]
        return rest


class QueueCarry:
    """As PlanCarry, within a deadline.

    At the first step of an episode, of any row, the plan is waited for, however long it takes.

    Args:
        plans: What plans; it is asked from other threads.
        random: Source of the seeds.
        pace: The deadline.
    """

    def __init__(self, plans: Plans, random: np.random.Generator, pace: Pace) -> None:
        self._plans, self._random, self._pace = plans, random, pace
        self._step = 0
        self._asked: list[_Asked] = []
        self._made: _Made | None = None
        self._trouble: Exception | None = None

    @property
    def under_way(self) -> int:
        """Requests that have no answer yet."""
        return sum(not asked.future.done() for asked in self._asked)

    def step(
        self,
        obs: Floats,
        task: npt.NDArray[np.int32],
        first: npt.NDArray[np.bool_],
        image: Floats | None,
        **options: Unpack[PlanOptions],
    ) -> Plan:
        """The next actions of all rows, as PlanCarry.

        Raises:
            UnavailableError, ExhaustedError: No plan has a step left, and the service is the cause.
            NewtError: The service refuses the request.
        """
        until = time.monotonic() + self._pace.deadline_s
        step, begins = self._step, self._made is None or bool(first.any())
        if begins:
            self._asked.clear()  # answers that belong to what was before
        self._collect()
        if len(self._asked) < MAX_IN_FLIGHT:
            self._ask(obs, task, first, image, options)
        newest = self._asked[-1].future
        if begins:
            self._made = _Made(step, newest.result())
            self._asked.clear()
        else:
            wait([newest], max(0.0, until - time.monotonic()))
            self._collect()
        return self._act(step)

    def _act(self, step: int) -> Plan:
        made, counts = self._made, self._pace.counts
        assert made is not None  # the first step of an episode waits for it
        action, reaches = made.at(step)
        late = made.step != step
        if not reaches and self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        self._step = step + 1
        counts.steps += 1
        counts.late += late
        counts.held += not reaches
        value = np.full_like(made.plan.value, np.nan) if late else made.plan.value
        return replace(made.plan, action=action, value=value)

    def _ask(
        self,
        obs: Floats,
        task: npt.NDArray[np.int32],
        first: npt.NDArray[np.bool_],
        image: Floats | None,
        options: PlanOptions,
    ) -> None:
        planned = options.get("mode", "planner") == "planner"
        prev_mean = self._made.warm_start(self._step) if planned and self._made is not None else None
        seeds = draw_seeds(self._random, len(obs))
        wanted: PlanOptions = {**options, "want_sequence": planned}
        future = self._pace.begin(
            lambda: self._plans.plan(obs, task, seeds, prev_mean=prev_mean, first=first, image=image, **wanted)
        )
        self._asked.append(_Asked(self._step, future))

    def _collect(self) -> None:
        """Takes the answers that are there; the newest counts."""
        for asked in [asked for asked in self._asked if asked.future.done()]:
            self._asked.remove(asked)
            try:
                plan = asked.future.result()
            except (UnavailableError, ExhaustedError) as error:
                self._pace.counts.failed += 1
                self._trouble = error
                continue
            self._trouble = None
            if self._made is None or asked.step > self._made.step:
                self._made = _Made(asked.step, plan)
