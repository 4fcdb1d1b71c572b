"""What a collector does with episodes of a shard that is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from replay_shards import TASKS, config, episode
from replay_stack import ServiceProcess, wait_ready

from newt.client.placement import home
from newt.client.shards import ReplayShards
from newt.runs.record import TaskProgress
from services.learner.collecting.outbox import Outbox
from services.learner.collecting.pace import Pace
from services.learner.waiting import Patience, StopFlag


@contextmanager
def collecting(
    processes: list[ServiceProcess], room_bytes: int, total: int = 10_000
) -> Iterator[tuple[ReplayShards, Outbox, Pace]]:
    stop = StopFlag()
    addresses = [process.address for process in processes]
    with ReplayShards(addresses, patience=Patience(stop), away="leave_out") as replay:
        replay.create_buffer("run", config())
        pace = Pace(0, total, 100, {task: TaskProgress() for task in TASKS}, stop)
        pace.join(0)
        with Outbox(replay, "run", pace, room_bytes) as outbox:
            yield replay, outbox, pace
            stop.set()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def live(outbox: Outbox, pace: Pace, number: int, task: str) -> None:
    pace.stepped(0, 9)
    outbox.put(0, episode(number, task))


@pytest.fixture
def away() -> list[str]:
    return [task for task in TASKS if home(task, 3) == 1]


def test_episodes_of_a_shard_that_is_away_wait_for_it_and_hold_up_nobody(
    processes: list[ServiceProcess], away: list[str]
) -> None:
    with collecting(processes, 1 << 20) as (replay, outbox, pace):
        for number, task in enumerate(TASKS):
            live(outbox, pace, number, task)
        until(lambda: pace.env_steps == 63)
        processes[1].kill()
        start = time.monotonic()
        for number, task in enumerate(TASKS, 100):
            live(outbox, pace, number, task)
        assert time.monotonic() - start < 5
        until(lambda: pace.env_steps == 126 - 9 * len(away))
        assert pace.counted() == 126  # They were taken, and will be stored.
        processes[1].start()
        wait_ready(processes[1].address)
        until(lambda: pace.env_steps == 126)
        assert replay.get_buffer("run", timeout_s=30).episodes == 14


def test_without_room_they_are_given_up_and_others_go_on(processes: list[ServiceProcess], away: list[str]) -> None:
    size = sum(array.nbytes for array in (episode(0, "a").obs, episode(0, "a").action, episode(0, "a").reward))
    with collecting(processes, 2 * size) as (replay, outbox, pace):
        live(outbox, pace, 0, away[0])
        until(lambda: pace.env_steps == 9)
        processes[1].kill()
        for number in range(1, 6):
            live(outbox, pace, number, away[0])
        other = next(task for task in TASKS if task not in away)
        for number in range(10, 15):
            live(outbox, pace, number, other)
            until(lambda stored=9 * (number - 8): pace.env_steps == stored)  # type: ignore[misc]
        assert pace.counted() == 9 * (1 + 2 + 5)  # Two wait; three are as if they had never been.
        processes[1].start()
        wait_ready(processes[1].address)
        until(lambda: pace.env_steps == 9 * 8)
        live(outbox, pace, 20, away[0])
        until(lambda: pace.env_steps == 9 * 9)
        assert replay.get_buffer("run", timeout_s=30).episodes == 9
