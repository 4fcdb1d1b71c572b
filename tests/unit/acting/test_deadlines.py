"""Acting in time: later steps of earlier plans, when a plan is late."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from agent_files import ACTION_DIMS, OBS_DIMS, PLAN, TASKS, small_model

from newt.acting.facts import AgentFacts
from newt.acting.local import LocalPlans
from newt.acting.plans import Plan, PlanCarry, Plans
from newt.acting.queue import MAX_IN_FLIGHT, ActingCounts, Pace, QueueCarry
from newt.acting.session import ActingSession
from newt.agent.constraint import Guidance
from newt.agent.planning import Planner
from newt.errors import UnavailableError

FACTS = AgentFacts(TASKS, ACTION_DIMS, OBS_DIMS)
OBS = np.linspace(-1, 1, 24)
GENEROUS_S, NONE_S = 60.0, 0.001


class Gate:
    """An agent in this process behind a gate: closed, nothing passes; broken, calls fail."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.broken = False
        self.prev_means: list[np.ndarray | None] = []
        self._plans = LocalPlans(Planner(small_model(), PLAN), Guidance())
        self._one = threading.Lock()

    def plan(self, *arguments: Any, **options: Any) -> Plan:
        with self._one:
            self.prev_means.append(options["prev_mean"])
        assert self.open.wait(GENEROUS_S)
        if self.broken:
            raise UnavailableError("away")
        with self._one:
            return self._plans.plan(*arguments, **options)


class Robot:
    """A session with a deadline."""

    def __init__(self) -> None:
        self.gate, self.pace = Gate(), Pace(GENEROUS_S)
        self.carries: list[QueueCarry] = []
        self.session = ActingSession(self.gate, FACTS, seed=1, carry=self._carry)

    def _carry(self, plans: Plans, random: np.random.Generator) -> QueueCarry:
        self.carries.append(QueueCarry(plans, random, self.pace))
        return self.carries[-1]

    def act(self) -> np.ndarray:
        return self.session.act(OBS, "walk")

    def plan(self) -> Plan:
        assert self.session.last_plan is not None
        return self.session.last_plan

    def settle(self) -> None:
        """Waits until every request has its answer."""
        until = time.monotonic() + GENEROUS_S
        while self.carries[-1].under_way:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.fixture
def robot() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.gate.open.set()
    robot.pace.close()


def test_in_time_it_acts_as_without_a_deadline(robot: Robot) -> None:
    plain = ActingSession(Gate(), FACTS, seed=1, carry=PlanCarry)
    for _ in range(4):
        np.testing.assert_array_equal(robot.act(), plain.act(OBS, "walk"))
    assert robot.pace.counts == ActingCounts(steps=4)


def test_late_plans_are_bridged_by_the_steps_of_earlier_ones(robot: Robot) -> None:
    first = robot.act()
    sequence, mean = robot.plan().sequence, robot.plan().next_mean
    assert sequence is not None
    assert mean is not None
    np.testing.assert_array_equal(first, sequence[0, 0, :6])
    robot.gate.open.clear()
    robot.pace.deadline_s = NONE_S
    for step in (1, 2, 2, 2):  # behind its end, the last one is repeated
        np.testing.assert_array_equal(robot.act(), sequence[0, step, :6])
    assert np.isnan(robot.plan().value).all()
    assert robot.pace.counts == ActingCounts(steps=5, late=4, held=2)
    assert robot.carries[-1].under_way == MAX_IN_FLIGHT
    # The plans of steps 1 and 2 come at step 5, when the three steps of the newer one are over.
    robot.gate.open.set()
    robot.settle()
    robot.pace.deadline_s = GENEROUS_S
    robot.act()
    assert robot.pace.counts == ActingCounts(steps=6, late=4, held=2)
    started = [None if prev is None else prev[0] for prev in robot.gate.prev_means]
    assert started[0] is None
    np.testing.assert_array_equal(started[1], mean[0])
    shifted = np.concatenate([mean[0, 1:], np.zeros((1, 16), np.float32)])  # as if it were of step 1
    np.testing.assert_array_equal(started[2], shifted)
    assert started[3] is not None
    assert started[3][0].any()  # step 4 of a plan that began at 2
    assert not started[3][1:].any()


def test_a_service_that_is_away_is_bridged_and_then_told(robot: Robot) -> None:
    robot.act()
    robot.gate.broken = True
    for _ in range(2):
        robot.act()
        robot.settle()
    with pytest.raises(UnavailableError, match="away"):
        robot.act()
    robot.gate.broken = False
    robot.act()
    assert (robot.pace.counts.late, robot.pace.counts.failed) == (2, 3)


def test_what_was_asked_before_a_reset_is_not_acted_on(robot: Robot) -> None:
    robot.act()
    robot.gate.open.clear()
    robot.pace.deadline_s = NONE_S
    robot.act()
    robot.session.reset(seed=1)
    robot.gate.open.set()
    fresh = robot.act()  # waits
    again = Robot()
    np.testing.assert_allclose(fresh, again.act(), atol=1e-6)
    again.pace.close()
    assert robot.pace.counts.late == 1
