"""Somebody's own environments that misbehave while they are served: each costs its own episodes, and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sim_running import RunningServer

from newt.client import SimClient, SimSession, Step
from newt.client.planner import PlannerClient
from newt.client.replay import ReplayClient
from services.learner.evaluating.plan import EvaluationPlan
from services.learner.evaluating.play import evaluate
from services.learner.playing.actor import Model
from services.learner.waiting import Patience, RunFailedError, StopFlag
from services.learner.worker.connections import MANY_CRASHES, Services

SOURCE = """
import os, subprocess
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
    OwnTask(name=name, make=lambda name=name: Env(name), goal="Do something or other.", episode_length=10)
    for name in ("good", "print", "fork", "shape", "exit", "die", "leak")
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
