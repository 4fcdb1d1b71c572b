"""Several replay services, each with a Redis of its own, as one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from replay_shards import SHARDS, TASKS, config, episode
from replay_stack import ServiceProcess, serving
from scipy.stats import chisquare

from newt.client.placement import home
from newt.client.read_ahead import Batch, Sampler
from newt.client.replay import ReplayClient
from newt.client.shards import Away, ReplayShards
from newt.errors import InvalidInputError, NotFoundError, PreconditionError
from newt.local import redis_server


def take(replay: ReplayShards | ReplayClient, count: int = 1, **changes: object) -> list[Batch]:
    values: dict[str, object] = {"batch_size": 64, "horizon": 3, "seed": 1, "demo_fraction": 0.0, "limited": False}
    with replay.batches("run", count=count, **{**values, **changes}) as batches:  # type: ignore[arg-type]
        return list(batches)


def numbers(batch: Batch) -> list[int]:
    found: list[int] = batch.obs[0, :, 0].astype(int).tolist()
    return found


def fill(replay: ReplayShards | ReplayClient, lengths: Sequence[int]) -> None:
    """Episode i of task i modulo 7."""
    for number, length in enumerate(lengths):
        replay.append(episode(number, TASKS[number % len(TASKS)], length), buffer_id="run", timeout_s=10)


@contextlib.contextmanager
def shards(folder: Path, count: int) -> Iterator[list[str]]:
    """Addresses of so many services."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for number in range(count):
            redis = redis_server.start(folder / f"redis-{number}")
            stack.callback(redis.stop)
            addresses.append(stack.enter_context(serving(redis)).server.address)
        yield addresses


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[list[str]]:
    with shards(tmp_path, SHARDS) as addresses:
        yield addresses


@pytest.fixture
def replay(addresses: list[str]) -> Iterator[ReplayShards]:
    with ReplayShards(addresses) as replay:
        yield replay


def held(addresses: Sequence[str]) -> list[set[str]]:
    """Tasks of which each shard holds episodes of the buffer."""
    found = []
    for address in addresses:
        with ReplayClient(address) as shard:
            try:
                found.append({task.task for task in shard.get_buffer("run").tasks if task.held_episodes})
            except NotFoundError:
                found.append(set())
    return found


def test_tasks_are_spread_and_counted_as_one_buffer(addresses: list[str], replay: ReplayShards) -> None:
    assert not replay.create_buffer("run", config(capacity_rows=1001))
    assert replay.create_buffer("run", config(capacity_rows=1001))
    fill(replay, [9] * 14)
    again = replay.append(episode(0, "a"), buffer_id="run", timeout_s=10)
    assert (again.duplicate, again.env_steps, again.task_env_steps) == (True, 14 * 9, 18)
    places = held(addresses)
    assert all(places)
    assert places == [{task for task in TASKS if home(task, SHARDS) == shard} for shard in range(SHARDS)]
    info = replay.get_buffer("run")
    assert (info.env_steps, info.env_steps_taken, info.episodes, info.rows) == (126, 126, 14, 140)
    assert info.config == config(capacity_rows=1001)
    assert [(task.task, task.env_steps, task.held_episodes) for task in info.tasks] == [(t, 18, 2) for t in TASKS]
    assert {e.episode_id for e in replay.read_episodes(buffer_id="run")} == {f"e{i}" for i in range(14)}
    assert {e.episode_id for e in replay.read_episodes(buffer_id="run", task="c")} == {"e2", "e9"}
    with pytest.raises(InvalidInputError, match="expected one of the buffer's 7 tasks"):
        replay.append(episode(99, "unknown"), buffer_id="run", timeout_s=10)
    assert replay.delete_buffer("run") == 14
    with pytest.raises(NotFoundError):
        replay.get_buffer("run")


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_batches_are_distributed_as_if_one_service_drew_them(
    tmp_path: Path, replay: ReplayShards, sampler: Sampler
) -> None:
    """By counting: every episode comes as often as it should, over all shards, and so it does from one service."""
    lengths = [4, 30, 9, 4, 5, 60, 7, 12, 9, 9, 4, 20, 4, 3, 9, 9, 9, 9]
    lengths += [9] * 7 + [2]  # The last one is too short to be drawn.
    starts = {i: length - 2 for i, length in enumerate(lengths) if length > 2}
    per_task = Counter(i % 7 for i in starts)
    weights = {
        "episode_uniform": dict.fromkeys(starts, 1.0),
        "transition_uniform": {i: float(count) for i, count in starts.items()},
        "task_balanced": {i: 1 / per_task[i % 7] for i in starts},
    }[sampler]
    total = sum(weights.values())
    with shards(tmp_path / "one", 1) as [address], ReplayClient(address) as one:
        for client in (replay, one):
            client.create_buffer("run", config())
            fill(client, lengths)
            batches = take(client, 40, batch_size=500, sampler=sampler)
            drawn = Counter(number for batch in batches for number in numbers(batch))
            assert drawn.keys() == starts.keys()
            found = [drawn[i] for i in starts]
            expected = [20_000 * weights[i] / total for i in starts]
            assert chisquare(found, expected).pvalue > 1e-4
            for batch in batches:
                changes = np.flatnonzero(np.diff(batch.task)).tolist()
                assert len(changes) == 6  # Sequences of one task are next to each other.
                np.testing.assert_array_equal(batch.task, batch.obs[0, :, 0] % 7)
                np.testing.assert_array_equal(batch.obs[:, :, 1], batch.obs[0, :, 1] + np.arange(4)[:, None])
            # Numbers of a batch scatter as they should, too: no shard has a fixed share.
            of_one = [numbers(batch).count(1) for batch in batches]
            share = weights[1] / total
            assert 0.4 < np.var(of_one) / (500 * share * (1 - share)) < 2


def test_draws_repeat_with_the_seed_whoever_asks_from_wherever(addresses: list[str], replay: ReplayShards) -> None:
    replay.create_buffer("run", config())
    fill(replay, [30] * 10)
    one = take(replay, 4, seed=3)
    with ReplayShards(addresses) as other:
        for a, b in zip(one[2:], take(other, 2, seed=3, first_index=2, in_flight=1), strict=True):
            assert a.index == b.index
            np.testing.assert_array_equal(a.obs, b.obs)
    assert not np.array_equal(one[0].obs, one[1].obs)
    assert not np.array_equal(one[0].obs, take(replay, seed=4)[0].obs)


def test_demonstrations_are_spread_too(addresses: list[str], replay: ReplayShards) -> None:
    for number, task in enumerate(TASKS):
        assert not replay.append(episode(number, task), demo_set="d", timeout_s=10).duplicate
    replay.append(episode(500, "z"), demo_set="other", timeout_s=10)
    with pytest.raises(NotFoundError, match="nowhere"):
        replay.create_buffer("run", config(demo_sets=["d", "nowhere"]))
    assert not replay.create_buffer("run", config(demo_sets=["d"]))
    info = replay.get_buffer("run")
    assert info.demo_rows == 70
    assert [task.demo_episodes for task in info.tasks] == [1] * 7
    fill_from = 100
    for number in range(fill_from, fill_from + 7):
        replay.append(episode(number, TASKS[number % 7]), buffer_id="run", timeout_s=10)
    for fraction, demos in ((0.0, 0), (0.25, 16), (0.5, 32), (1.0, 64)):
        for batch in take(replay, 3, demo_fraction=fraction):
            assert batch.demo.sum() == demos
            np.testing.assert_array_equal(batch.demo, batch.obs[0, :, 0] < 100)
    [held] = replay.list_demo_sets("d")
    assert [(task.task, task.episodes) for task in held.tasks] == [(task, 1) for task in TASKS]
    assert [one.name for one in replay.list_demo_sets()] == ["d", "other"]
    assert len(list(replay.read_episodes(demo_set="d"))) == 7
    with pytest.raises(PreconditionError, match="used by buffer run"):
        replay.delete_demo_set("d")
    assert len(list(replay.read_episodes(demo_set="d"))) == 7
    assert replay.delete_demo_set("other") == 1
    replay.delete_buffer("run")
    assert replay.delete_demo_set("d") == 7
    with pytest.raises(NotFoundError):
        replay.delete_demo_set("d")
    with pytest.raises(NotFoundError):
        list(replay.read_episodes(demo_set="d"))


def test_a_part_with_nothing_leaves_its_share_to_the_other(replay: ReplayShards) -> None:
    replay.append(episode(0, "a"), demo_set="d", timeout_s=10)
    replay.create_buffer("run", config(demo_sets=["d"]))
    [batch] = take(replay, demo_fraction=0.5)
    assert batch.demo.all()


def test_the_ratio_holds_over_all_shards(replay: ReplayShards) -> None:
    """0.5 updates per step from step 10 on: 14 episodes of 9 steps on three shards allow 58 updates, and no more."""
    replay.create_buffer("run", config(updates_per_env_step=0.5, start_env_steps=10, max_lead_updates=20))
    fill(replay, [9] * 14)
    assert not replay.await_insert("run", 0.5).granted  # It leads by 58.
    with replay.batches("run", batch_size=8, horizon=3, seed=1, demo_fraction=0.0) as batches:
        assert [next(batches).index for _ in range(58)] == list(range(58))
        assert batches.take(3.0) is None
        assert replay.get_buffer("run").updates == 59
        permit = replay.await_insert("run", 5.0, env_steps_taken=130, acting_weights_version=3)
        assert permit.granted
        # 59 were asked for, 60 are allowed: 0.5 (c - 10) - 59 <= 20.
        assert permit.permitted_env_steps == 168
        batch = next(batches)
        assert (batch.index, batch.env_steps, batch.env_steps_taken, batch.acting_weights_version) == (58, 126, 130, 3)
        assert batch.blocked_seconds > 0
        # Nobody reports any more: what is stored counts, on whichever shard.
        for number in range(20, 24):
            replay.append(episode(number, TASKS[number % 7]), buffer_id="run", timeout_s=10)
        assert [next(batches).index for _ in range(17)] == list(range(59, 76))
        assert batches.take(0.5) is None
        assert not replay.await_insert("run", 0.5, env_steps_taken=300).granted


def test_updates_begin_with_first_episodes_on_every_shard(replay: ReplayShards) -> None:
    replay.create_buffer("run", config(all_tasks_until_env_steps=1_000, max_lead_updates=1))
    with replay.batches("run", batch_size=64, horizon=3, seed=1, demo_fraction=0.0) as batches:
        for number, task in enumerate(TASKS):
            assert batches.take(0.3) is None
            # The collector must go on, however far it leads.
            assert replay.await_insert("run", 5.0, env_steps_taken=9 * number).granted
            replay.append(episode(number, task), buffer_id="run", timeout_s=10)
        assert set(numbers(next(batches))) == set(range(7))


def test_nothing_to_sample_waits_and_lets_the_collector_go_on(replay: ReplayShards) -> None:
    replay.create_buffer("run", config(max_lead_updates=1))
    fill(replay, [2] * 7)
    assert not replay.await_insert("run", 0.5).granted
    with replay.batches("run", batch_size=8, horizon=3, seed=1, demo_fraction=0.0) as batches:
        assert batches.take(0.5) is None
        assert replay.await_insert("run", 5.0, env_steps_taken=30).granted
        replay.append(episode(7, "a"), buffer_id="run", timeout_s=10)
        assert set(numbers(next(batches))) == {7}


def test_an_added_shard_moves_nothing_that_is_stored(tmp_path: Path) -> None:
    with shards(tmp_path, 4) as addresses:
        with ReplayClient(addresses[0]) as one:
            one.create_buffer("run", config())
            fill(one, [9] * 7)
            one.append(episode(900, "b"), demo_set="d", timeout_s=10)
        for count in (3, 4):
            with ReplayShards(addresses[:count]) as replay:
                # From one to three, and to four: the buffer stays where it is, and goes on there.
                assert replay.create_buffer("run", config())
                assert replay.append(episode(7 + count, "b"), buffer_id="run", timeout_s=10).task_episodes == count - 1
                assert held(addresses) == [set(TASKS), set(), set(), set()]
                assert set(numbers(take(replay)[0])) >= {1}
        with ReplayShards(addresses[:3]) as replay:
            replay.delete_buffer("run")
            replay.create_buffer("run", config(demo_sets=["d"]))
            fill(replay, [9] * 7)
            # What has demonstrations goes to them, all else is spread.
            before = held(addresses)
            assert "b" in before[0]
            assert all(before[:3])
        with ReplayShards(addresses) as replay:
            for number, task in enumerate(TASKS):
                replay.append(episode(100 + number, task), buffer_id="run", timeout_s=10)
                replay.append(episode(200 + number, task), demo_set="later", timeout_s=10)
            assert held(addresses) == before
            assert replay.get_buffer("run").episodes == 14
            replay.append(episode(300, "b"), demo_set="d", timeout_s=10)
            assert replay.get_buffer("run").demo_rows == 20
            # First demonstrations of a task, for a buffer that keeps it elsewhere: it could not draw them.
            with pytest.raises(PreconditionError, match="use a new set"):
                replay.append(episode(301, "e"), demo_set="d", timeout_s=10)
            replay.create_buffer("new", config())
            assert replay.get_buffer("new").config == config()
        wrong = ReplayShards([addresses[1], addresses[0], addresses[2]])
        with wrong, pytest.raises(PreconditionError, match="in the order in which they were"):
            wrong.get_buffer("run")
        fewer = ReplayShards(addresses[:2])
        with fewer, pytest.raises(PreconditionError, match="spread over 3 replay services, 2 are named"):
            fewer.get_buffer("run")


def test_who_knows_one_shard_is_told_that_there_are_more(addresses: list[str], replay: ReplayShards) -> None:
    replay.create_buffer("run", config())
    elsewhere = next(task for task in TASKS if home(task, SHARDS) != 0)
    with ReplayClient(addresses[0]) as one:
        with pytest.raises(PreconditionError, match=r"is kept on shard \d, this is shard 0; name all"):
            one.append(episode(0, elsewhere), buffer_id="run", timeout_s=10)
        with pytest.raises(InvalidInputError, match="spread over 3 replay services; name all"):
            take(one)
        with pytest.raises(PreconditionError, match="exists with other placement"):
            one.create_buffer("run", config())


def test_a_creation_that_was_cut_short_begins_again(addresses: list[str], replay: ReplayShards) -> None:
    with ReplayShards(addresses[1:]) as others:  # What a client with other addresses left on two shards.
        others.create_buffer("run", config())
    with pytest.raises(NotFoundError):
        replay.get_buffer("run")
    assert not replay.create_buffer("run", config())
    fill(replay, [9] * 7)
    assert replay.get_buffer("run").episodes == 7


def later(seconds: float, action: Callable[[], None]) -> threading.Thread:
    def act() -> None:
        time.sleep(seconds)
        action()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


@pytest.mark.parametrize("victim", range(SHARDS))
def test_a_killed_shard_costs_a_wait_and_nothing_else(processes: list[ServiceProcess], victim: int) -> None:
    """The batches are those that would have come, none is left out or comes twice, and appends are stored once."""
    with ReplayShards([process.address for process in processes]) as replay:
        replay.create_buffer("run", config())
        fill(replay, [9] * 21)
        expected = take(replay, 60, limited=True)
        with replay.batches("run", batch_size=64, horizon=3, seed=1, demo_fraction=0.0, count=60) as batches:
            got = [next(batches) for _ in range(20)]
            processes[victim].kill()
            back = later(1.0, processes[victim].start)
            got += list(batches)
        back.join()
        for a, b in zip(expected, got, strict=True):
            np.testing.assert_array_equal(a.obs, b.obs)
            assert a.index == b.index
        processes[victim].kill()
        back = later(1.0, processes[victim].start)
        for number, task in enumerate(TASKS):
            assert not replay.append(episode(100 + number, task), buffer_id="run", timeout_s=30).duplicate
        back.join()
        assert replay.get_buffer("run", timeout_s=30).episodes == 28


@pytest.mark.parametrize("away", get_args(Away))
def test_tasks_of_a_shard_that_is_away_are_waited_for_or_left_out(processes: list[ServiceProcess], away: Away) -> None:
    with ReplayShards([process.address for process in processes], away=away) as replay:
        replay.create_buffer("run", config(updates_per_env_step=100.0))
        fill(replay, [9] * 21)
        gone = {task for task in TASKS if home(task, SHARDS) == 1}
        with replay.batches("run", batch_size=64, horizon=3, seed=1, demo_fraction=0.0, in_flight=1) as batches:
            assert {TASKS[i] for i in next(batches).task} == set(TASKS)
            processes[1].kill()
            if away == "wait":
                while batches.take(3.0) is not None:  # What was on its way may still come.
                    pass
                assert batches.take(1.0) is None
            else:
                while {TASKS[i] for i in next(batches).task} & gone:
                    pass
                for _ in range(20):
                    assert {TASKS[i] for i in next(batches).task} == set(TASKS) - gone
                assert batches.left_out is not None
                assert processes[1].address in batches.left_out
                assert replay.await_insert("run", 1.0, env_steps_taken=200).granted
            processes[1].start()
            deadline = time.monotonic() + 60
            while {TASKS[i] for i in next(batches).task} != set(TASKS):
                assert time.monotonic() < deadline
            assert batches.left_out is None
