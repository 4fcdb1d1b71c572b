from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from newt.runs.record import TaskProgress
from newt.wire.episodes import Episode
from newt.wire.v1 import replay_pb2
from services.learner.collecting.pace import LAME_AFTER, CollectionOver, Pace
from services.learner.waiting import StopFlag, Stopped

WAIT_S = 10.0


def _pace(total: int = 1000, lead: int = 5, stop: StopFlag | None = None) -> Pace:
    pace = Pace(0, total, lead, {"a": TaskProgress()}, stop or StopFlag())
    pace.permit(None)
    return pace


def _store(pace: Pace, env_steps: int, score: float = 0.5) -> None:
    episode = Episode("a/0/0", "a", np.zeros((3, 2), "f4"), np.zeros((2, 1), "f4"), np.ones(2, "f4"), score=score)
    pace.stored(0, episode, replay_pb2.AppendResponse(env_steps=env_steps, task_env_steps=env_steps, task_episodes=1))


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


@pytest.mark.parametrize(("told", "times"), [("crashed", LAME_AFTER), ("lost", 1)])
def test_nobody_waits_for_a_group_that_only_breaks_and_it_need_not_catch_up(told: str, times: int) -> None:
    """Its episodes crash, or its simulators do not come back."""
    pace = _pace(lead=5)
    pace.join(0)
    pace.join(1)

    def run(steps: int) -> None:
        for _ in range(steps):
            pace.wait_for_turn(1)
            pace.stepped(1, 1)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, 20)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        for _ in range(times):
            getattr(pace, told)(0)
        waiting.result(WAIT_S)
    # It is well again: it begins where the other is, which waits for it as before.
    pace.stepped(0, 1)
    _store(pace, 2)
    pace.wait_for_turn(0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, 20)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        for _ in range(20):
            pace.stepped(0, 1)
        waiting.result(WAIT_S)


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


def test_collection_is_over_when_replay_has_all_steps() -> None:
    pace = _pace(total=10)
    pace.join(0)
    pace.wait_for_turn(0)
    _store(pace, env_steps=10)
    with pytest.raises(CollectionOver):
        pace.wait_for_turn(0)


def test_taken_steps_are_those_of_kept_episodes() -> None:
    pace = Pace(100, 100_000, 5, {"a": TaskProgress()}, StopFlag())
    pace.join(0)
    pace.join(1)
    for _ in range(3):
        pace.stepped(0, 2, weights_version=4)
        pace.stepped(1, 1)
    assert (pace.counted(), pace.env_steps, pace.acting_version) == (109, 100, 4)
    _store(pace, env_steps=102)  # Two transitions of group 0: they count once.
    assert (pace.counted(), pace.env_steps) == (109, 102)
    pace.gave_up(0, 1)  # An instance crashed at the first step of its episode,
    pace.gave_up(1)  # and the simulators of group 1 were restarted.
    assert pace.counted() == 105  # 100, 2 stored, 3 unfinished
    pace.gave_up(1)
    assert pace.counted() == 105


def test_counted_steps_reach_the_total_when_it_is_stored() -> None:
    pace = _pace(total=10)
    pace.join(0)
    pace.join(1)
    counts = []
    for step in range(1, 10):  # Two instances: episodes of two steps, and one that is not over at the end.
        for group in (0, 1):
            pace.stepped(group, 1)
            counts.append(pace.counted())
        if step % 2 == 0:
            _store(pace, env_steps=step)
            counts.append(pace.counted())
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-1] < 10
    _store(pace, env_steps=10)
    assert pace.counted() == 10


def test_groups_wait_for_permission_and_say_so() -> None:
    pace = Pace(0, 1000, 100, {"a": TaskProgress()}, StopFlag())
    pace.join(0)
    pace.permit(3)  # With 3 taken, another step of 2 instances may follow.
    for expected in (2, 4):
        pace.wait_for_turn(0)
        pace.stepped(0, 2)
        assert pace.counted() == expected
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(pace.wait_for_turn, 0)
        pool.submit(pace.wait_for_news, 4, 1e9, 1e9).result(WAIT_S)  # At once: a group is held back.
        assert not waiting.done()
        pace.permit(3)
        pool.submit(pace.wait_for_news, 4, 1e9, 1e9).result(WAIT_S)  # Still.
        assert not waiting.done()
        pace.permit(4)
        waiting.result(WAIT_S)


def test_news_are_new_steps_or_the_end() -> None:
    pace = _pace(total=2)
    pace.join(0)
    with ThreadPoolExecutor(1) as pool:
        pace.wait_for_news(0, soon_s=1e9, late_s=0.0)  # Nothing new, but late.
        pace.stepped(0, 1)
        pace.wait_for_news(0, soon_s=0.0, late_s=1e9)
        waiting = pool.submit(pace.wait_for_news, 1, 0.05, 1e9)
        assert not waiting.done()
        _store(pace, env_steps=2)
        waiting.result(WAIT_S)


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
    episodes = pace.snapshot()["a"].episodes
    assert pace.take_finished() == {"return/a": 2.0, "score/a": 0.5, "length/a": 2.0, "episodes": episodes}
    assert pace.take_finished() == {}
    assert (pace.env_steps, pace.snapshot()["a"].last_score) == (4, 0.75)


def test_waiting_for_steps_ends_with_them_with_collection_and_with_the_process() -> None:
    stop = StopFlag()
    pace = _pace(total=10, stop=stop)
    with ThreadPoolExecutor(3) as pool:
        early, late, never = (pool.submit(pace.wait_until, steps) for steps in (4, 12, 100))
        _store(pace, env_steps=4)
        early.result(WAIT_S)
        assert not late.done()
        _store(pace, env_steps=10)
        late.result(WAIT_S)
        never.result(WAIT_S)
    endless = _pace(total=10, stop=stop)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(endless.wait_until, 5)
        stop.set()
        with pytest.raises(Stopped):
            waiting.result(WAIT_S)
