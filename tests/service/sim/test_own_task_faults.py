"""Somebody's own environments that misbehave while they are served: each costs its own episodes, and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sim_running import RunningServer

from newt.client import SimClient, SimSession, Step
from newt.client.planner import PlannerClient
from newt.client.replay import ReplayClient
from newt.tasks.registry import Task
from services.learner.demonstrating.experts import _DemoSession
from services.learner.evaluating.plan import EvaluationPlan
from services.learner.evaluating.play import evaluate
from services.learner.playing.actor import Model
from services.learner.waiting import Patience, RunFailedError, StopFlag, Stopped
from services.learner.worker.connections import MANY_CRASHES, Services

SOURCE = """
import os, subprocess, time
import gymnasium, numpy as np
from newt.own import OwnTask

KEPT = []  # as long as the process lives


class Env(gymnasium.Env):
    def __init__(self, order):
        self.observation_space = gymnasium.spaces.Box(-9, 9, (2,))
        self.action_space = gymnasium.spaces.Box(-1, 1)
        self.order = order

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.order == "block":
            time.sleep(1000)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        self.steps += 1
        seen = self.np_random.uniform(-1, 1, 2)
        if self.steps == 3:
            if self.order == "print":
                print("x" * 100_000, flush=True)
                subprocess.run(["echo", "of a child"])
            elif self.order == "fork" and os.fork() == 0:
                print("a child")
            elif self.order == "shape":
                return np.zeros(3), 0.5, False, False, {}
            elif self.order == "exit":
                exit(3)
            elif self.order == "die":
                os._exit(9)
            elif self.order == "leak":
                KEPT.append(np.ones(10 << 17))  # 10 MB
        return seen, 0.5, False, False, {}


TASKS = [
    OwnTask(name=name, make=lambda name=name: Env(name), goal="Do something or other.", episode_length=10,
            expert=lambda env, seen: np.ones(1))
    for name in ("good", "print", "fork", "shape", "exit", "die", "leak", "block")
]
"""
HARMLESS = ("print", "fork")
LIMIT_MB = 400


@pytest.fixture
def server(start: Callable[..., RunningServer], tmp_path: Path) -> RunningServer:
    (tmp_path / "env.py").write_text(SOURCE)
    crashes = str(tmp_path / "crashes")
    # A worker for each of two rows: what ends a worker takes along what is in it.
    return start(domains=("own",), sources=(str(tmp_path),), workers=2, max_worker_mb=LIMIT_MB, crash_dir=crashes)


def walk(session: SimSession, steps: int) -> list[Step]:
    return [session.step(np.zeros((2, 16), np.float32)) for _ in range(steps)]


@pytest.mark.parametrize("task", ["print", "fork", "shape", "exit", "die"])
def test_it_costs_its_own_episode(server: RunningServer, tmp_path: Path, task: str) -> None:
    with SimClient(server.address, 30) as client, client.open(["good", task], [1, 2]) as session:
        session.reset()
        steps = walk(session, 20)
        crashed = np.array([step.crashed for step in steps])
        assert not crashed[:, 0].any()
        assert [step.truncated[0] for step in steps] == [number in (9, 19) for number in range(20)]
        assert np.isfinite([step.reward[0] for step in steps]).all()
        # Episodes of it end at their third step, and the next one begins.
        wrong = [] if task in HARMLESS else [2, 5, 8, 11, 14, 17]
        assert np.flatnonzero(crashed[:, 1]).tolist() == wrong
    assert (server.service.pool.pids[0] == server.pids[0]) or task == "die"
    assert bool(list(tmp_path.glob("crashes/*.npz"))) == (task in ("shape", "exit"))


def test_a_worker_that_grows_begins_anew(server: RunningServer) -> None:
    with SimClient(server.address, 30) as client, client.open(["good", "leak"], [1, 2]) as session:
        session.reset()
        crashed = np.zeros(2, bool)
        for _ in range(20_000):
            crashed |= session.step(np.zeros((2, 16), np.float32)).crashed
            if crashed.any():
                break
        assert crashed.tolist() == [False, True]
        assert not session.step(np.zeros((2, 16), np.float32)).crashed.any()
    assert len(set(server.service.pool.pids) & set(server.pids)) == 1


def test_a_run_is_told_of_a_task_whose_episodes_only_crash(server: RunningServer) -> None:
    patience, still = Patience(StopFlag()), np.zeros((2, 16), np.float32)
    nobody = "127.0.0.1:9"
    with Services(
        {"own": SimClient(server.address, 30)}, PlannerClient(nobody), ReplayClient(nobody), patience
    ) as services:
        described = {task.name: task for task in services.sims["own"].describe()}
        good, bad = described["good"], described["exit"]
        with services.open("own", [good, bad], [1, 2]) as session:
            session.reset()
            told = []
            for _ in range(3 * MANY_CRASHES):
                services.saw([good, bad], session.step(still))
                told.append(patience.waiting_on)
            assert told[-2] is None
            assert "whole episodes of exit: the last 20 have crashed" in (told[-1] or "")
            for _ in range(10):
                services.saw([bad, good], session.step(still))  # as if it had been mended
        assert patience.waiting_on is None


def test_an_evaluation_spares_the_other_tasks(server: RunningServer) -> None:
    nobody = "127.0.0.1:9"
    patience = Patience(StopFlag())
    with Services(
        {"own": SimClient(server.address, 30)}, PlannerClient(nobody), ReplayClient(nobody), patience
    ) as services:
        described = {task.name: task for task in services.sims["own"].describe()}
        both = [described["good"], described["exit"]]
        plan = EvaluationPlan(both, 3, "random", Model("nobody", ("good", "exit")), seed=1, spares_others=True)
        outcome = evaluate(services, plan)
        assert outcome.tasks.keys() == {"good"}
        assert (outcome.tasks["good"].episodes, outcome.tasks["good"].return_) == (3, 5.0)
        with pytest.raises(RunFailedError, match=r"of exit broke 4 times in one episode; its log says why"):
            evaluate(services, replace(plan, spares_others=False))
        with pytest.raises(RunFailedError, match=r"all tasks .*\(exit\)"):
            evaluate(services, replace(plan, tasks=both[1:]))


@pytest.fixture
def beside_blocking(
    start: Callable[..., RunningServer], tmp_path: Path
) -> Iterator[tuple[Services, list[Task], StopFlag]]:
    """Services of two simulators; a task of one, and a task of the other whose reset blocks for good."""
    (tmp_path / "env.py").write_text(SOURCE)
    own = {"domains": ("own",), "sources": (str(tmp_path),), "workers": 1, "step_timeout_s": 1.0}
    stop, nobody = StopFlag(), "127.0.0.1:9"
    patience = Patience(stop)
    sims = {name: SimClient(start(**own).address, 30, patience=patience) for name in ("good", "block")}
    with Services(sims, PlannerClient(nobody), ReplayClient(nobody), patience) as services:
        described = {task.name: task for task in sims["good"].describe()}
        yield services, [replace(described[name], domain=name) for name in ("good", "block")], stop


def test_an_evaluation_leaves_out_what_blocks(beside_blocking: tuple[Services, list[Task], StopFlag]) -> None:
    services, both, _ = beside_blocking
    plan = EvaluationPlan(both, 2, "random", Model("nobody", ("good", "block")), seed=1, spares_others=True)
    assert evaluate(services, plan).tasks.keys() == {"good"}


def test_demonstrations_of_what_blocks_are_given_up(beside_blocking: tuple[Services, list[Task], StopFlag]) -> None:
    services, both, _ = beside_blocking
    demos = _DemoSession(services, "set", "block", both[1:], {"block": 2}, 2, 0.0, lambda missing: None)
    assert demos.play() == {"block": 2}


def test_a_session_tells_that_its_simulators_do_not_come_back(
    beside_blocking: tuple[Services, list[Task], StopFlag],
) -> None:
    """Each time before they are asked for again, for as long as it takes."""
    services, both, stop = beside_blocking
    waits: list[str | None] = []

    def lost() -> None:
        waits.append(services.patience.waiting_on)
        if len(waits) == 2:
            stop.set()

    with services.open("block", both[1:], [1]) as session, pytest.raises(Stopped):
        session.reset(lost=lost)
    assert waits[0] is None
    assert "the simulators died at every attempt to reset them" in (waits[1] or "")
