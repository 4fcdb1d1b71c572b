from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from newt.client.episodes import Episode
from newt.runs.record import TaskProgress
from newt.wire.v1 import replay_pb2
from services.learner.child import StopFlag, Stopped
from services.learner.pace import CollectionOver, Pace

WAIT_S = 10.0


def _pace(total: int = 1000, lead: int = 5, stop: StopFlag | None = None) -> Pace:
    return Pace(0, total, lead, {"a": TaskProgress()}, stop or StopFlag())


def _store(pace: Pace, env_steps: int, score: float = 0.5) -> None:
    episode = Episode("a/0/0", "a", np.zeros((3, 2), "f4"), np.zeros((2, 1), "f4"), np.ones(2, "f4"), score=score)
    pace.stored(episode, replay_pb2.AppendResponse(env_steps=env_steps, task_env_steps=env_steps, task_episodes=1))


def test_nobody_leads_by_more_than_the_limit() -> None:
    pace = _pace(lead=5)
    pace.join(0)
    pace.join(1)
    taken = [0, 0]
    widest = 0

    def run(group: int, steps: int) -> None:
        nonlocal widest
        for _ in range(steps):
            pace.wait_for_turn(group)
            pace.stepped(group, 1)
            taken[group] += 1
            widest = max(widest, abs(taken[0] - taken[1]))
        pace.leave(group)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(run, 0, 200), pool.submit(run, 1, 200)]:
            future.result(WAIT_S)
    assert taken == [200, 200]
    assert widest <= 6  # the limit, and the step under way


def test_many_groups_that_wait_for_one_cost_nothing() -> None:
    pace, groups, steps = _pace(lead=1), range(20), 3
    for group in range(len(groups) + 1):
        pace.join(group)

    def run(group: int) -> None:
        for _ in range(steps):
            pace.wait_for_turn(group)
            pace.stepped(group, 1)
        pace.leave(group)

    with ThreadPoolExecutor(len(groups)) as pool:
        waiting = [pool.submit(run, group) for group in groups]
        before = time.process_time()
        time.sleep(1.0)
        assert (
            time.process_time() - before < 0.3
        )  # Seconds of processor; as many as a core has if waiters wake waiters.
        for _ in range(steps):
            pace.wait_for_turn(len(groups))
            pace.stepped(len(groups), 1)
        pace.leave(len(groups))
        for future in waiting:
            future.result(WAIT_S)


def test_a_group_that_left_holds_nobody_back() -> None:
    pace = _pace(lead=1)
    pace.join(0)
    pace.join(1)
    pace.leave(1)
    for _ in range(10):
        pace.wait_for_turn(0)
        pace.stepped(0, 1)


def test_a_pause_holds_all_groups_until_it_ends() -> None:
    pace = _pace()
    pace.join(0)
    steps, running = 0, threading.Event()

    def run() -> None:
        nonlocal steps
        while True:
            try:
                pace.wait_for_turn(0)
            except CollectionOver:
                return
            steps += 1
            running.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert running.wait(WAIT_S)
    with pace.paused():
        before = steps
        threading.Event().wait(0.3)
        assert steps == before
    running.clear()
    assert running.wait(WAIT_S)
    _store(pace, env_steps=1000)
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_collection_is_over_when_replay_has_all_steps() -> None:
    pace = _pace(total=10)
    pace.join(0)
    pace.wait_for_turn(0)
    _store(pace, env_steps=10)
    with pytest.raises(CollectionOver):
        pace.wait_for_turn(0)


def test_a_failed_group_ends_the_others() -> None:
    pace = _pace()
    pace.join(0)
    pace.join(1)
    pace.leave(1, ValueError("broken"))
    with pytest.raises(CollectionOver):
        pace.wait_for_turn(0)
    with pytest.raises(ValueError, match="broken"):
        pace.raise_failure()


def test_a_stop_reaches_waiting_groups() -> None:
    stop = StopFlag()
    pace = _pace(lead=1, stop=stop)
    pace.join(0)
    pace.join(1)
    pace.stepped(0, 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pace.wait_for_turn, 0)
        stop.set()
        with pytest.raises(Stopped):
            waiting.result(WAIT_S)


def test_finished_episodes_become_means() -> None:
    pace = _pace()
    _store(pace, 2, score=0.25)
    _store(pace, 4, score=0.75)
    assert pace.take_finished() == {"return/a": 2.0, "score/a": 0.5, "length/a": 2.0}
    assert pace.take_finished() == {}
    assert (pace.env_steps, pace.snapshot()["a"].last_score) == (4, 0.75)
