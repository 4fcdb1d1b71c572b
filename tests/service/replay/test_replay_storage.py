"""What is stored, once, for how long, and in how many bytes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import redis as redis_py
from replay_episodes import TASKS, make_buffer, numbered, numbers_of, take
from replay_stack import serving

from newt.client.buffers import BufferConfig
from newt.client.replay import ReplayClient
from newt.errors import InvalidInputError, NotFoundError, PreconditionError
from newt.local.redis_server import RedisServer
from newt.wire.episodes import Behaviour, Episode
from newt.wire.v1 import replay_pb2
from services.replay.catalog import Catalog
from services.replay.episode import pack
from services.replay.service import ReplayService
from services.replay.store import Kind, SpaceKey, Store


def held(client: ReplayClient, name: str = "run") -> list[str]:
    return [episode.episode_id for episode in client.read_episodes(buffer_id=name)]


def stored(number: int) -> Episode:
    episode = numbered(number, 9)
    arrays = (episode.obs, episode.action, episode.reward)
    return Episode(episode.episode_id, "reach", *arrays, success=1.0, score=1.0)


def test_staging_episodes_of_different_lengths(client: ReplayClient) -> None:
    """Two environments with T=3 and T=6, stepped 12 times, each episode with its own initial row."""
    make_buffer(client)
    lengths = {"reach": 3, "walk": 6}
    staged: dict[str, list[float]] = {task: [0.0] for task in lengths}
    number = 0
    sent = []
    for step in range(1, 13):
        for task, length in lengths.items():
            staged[task].append(float(step))  # The final observation, at an episode's end.
            if len(staged[task]) == length + 1:
                obs = np.zeros((length + 1, TASKS[task][0]), np.float32)
                obs[:, 1] = staged[task]
                action = np.repeat(obs[:-1, 1:2], TASKS[task][1], axis=1)
                sent.append(Episode(f"{task}/{number}", task, obs, action, obs[1:, 1].copy()))
                client.append(sent[-1], buffer_id="run", timeout_s=10)
                number += 1
                staged[task] = [float(step)]  # The next episode's first observation.
    back = list(client.read_episodes(buffer_id="run"))
    assert [e.episode_id for e in back] == [e.episode_id for e in sent]
    assert len([e for e in back if e.task == "reach"]) == 4
    assert len([e for e in back if e.task == "walk"]) == 2
    for got, want in zip(back, sent, strict=True):
        np.testing.assert_array_equal(got.obs, want.obs)
        np.testing.assert_array_equal(got.reward, want.reward)
        rows = got.obs[:, 1]
        np.testing.assert_array_equal(rows, rows[0] + np.arange(lengths[got.task] + 1))
    second = next(e for e in back if e.episode_id.startswith("walk") and e is not back[0] and e.obs[0, 1] > 0)
    np.testing.assert_array_equal(second.obs[:, 1], [6, 7, 8, 9, 10, 11, 12])


def test_everything_about_an_episode_comes_back(client: ReplayClient) -> None:
    make_buffer(client)
    sent = numbered(
        7,
        9,
        "walk",
        terminated=True,
        success=float("nan"),
        score=0.25,
        weights_versions=(3, 5),
        seed=2**64 - 1,
        behaviour=Behaviour.PLANNER,
    )
    reply = client.append(sent, buffer_id="run", timeout_s=10)
    assert (reply.duplicate, reply.env_steps, reply.task_env_steps, reply.task_episodes) == (False, 9, 9, 1)
    [back] = client.read_episodes(buffer_id="run", task="walk")
    for name in ("obs", "action", "reward"):
        np.testing.assert_array_equal(getattr(back, name), getattr(sent, name))
    assert back.image is None
    assert np.isnan(back.success)
    for name in ("episode_id", "task", "terminated", "score", "weights_versions", "seed", "behaviour"):
        assert getattr(back, name) == getattr(sent, name)
    assert list(client.read_episodes(buffer_id="run", task="reach")) == []


def test_duplicates_change_nothing_also_at_once(client: ReplayClient) -> None:
    make_buffer(client)
    barrier = threading.Barrier(8)

    def append(_: int) -> bool:
        barrier.wait(10)
        return client.append(numbered(1, 5), buffer_id="run", timeout_s=20).duplicate

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(append, range(8))) == [False] + [True] * 7
    buffer = client.get_buffer("run")
    assert (buffer.env_steps, buffer.episodes, buffer.rows) == (5, 1, 6)
    again = client.append(numbered(1, 5), buffer_id="run", timeout_s=10)
    assert (again.duplicate, again.env_steps, again.task_env_steps, again.task_episodes) == (True, 5, 5, 1)


def test_the_same_id_in_two_buffers_is_two_episodes(client: ReplayClient) -> None:
    make_buffer(client, "a")
    make_buffer(client, "b")
    assert not client.append(numbered(1, 5), buffer_id="a", timeout_s=10).duplicate
    assert not client.append(numbered(1, 5), buffer_id="b", timeout_s=10).duplicate


def test_many_writers(client: ReplayClient) -> None:
    make_buffer(client)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.append(numbered(n, 3 + n % 5), buffer_id="run", timeout_s=30), range(100)))
    assert sorted(held(client)) == sorted(f"e{n}" for n in range(100))
    steps = sum(3 + n % 5 for n in range(100))
    buffer = client.get_buffer("run")
    assert (buffer.env_steps, buffer.episodes, buffer.rows) == (steps, 100, steps + 100)


def test_eviction_takes_whole_episodes_oldest_first(client: ReplayClient) -> None:
    make_buffer(client, capacity_rows=30)
    for number in range(3):
        assert client.append(numbered(number, 9), buffer_id="run", timeout_s=10).evicted_episodes == 0
    assert client.get_buffer("run").rows == 30  # Exactly full.
    assert client.append(numbered(3, 4, "walk"), buffer_id="run", timeout_s=10).evicted_episodes == 1
    assert held(client) == ["e1", "e2", "e3"]
    reply = client.append(numbered(4, 28), buffer_id="run", timeout_s=10)
    assert reply.evicted_episodes == 3
    assert (reply.env_steps, reply.task_episodes) == (3 * 9 + 4 + 28, 4)
    assert held(client) == ["e4"]
    buffer = client.get_buffer("run")
    assert (buffer.rows, buffer.env_steps, buffer.episodes) == (29, 59, 5)
    assert [(t.task, t.env_steps, t.episodes, t.held_episodes) for t in buffer.tasks] == [
        ("reach", 55, 4, 1),
        ("walk", 4, 1, 0),
    ]
    assert numbers_of(take(client)[0]) == {4}
    with pytest.raises(InvalidInputError, match="at most 29"):
        client.append(numbered(5, 30), buffer_id="run", timeout_s=10)
    client.append(numbered(6, 29), buffer_id="run", timeout_s=10)
    assert held(client) == ["e6"]


def test_an_evicted_episode_is_still_a_duplicate(redis: RedisServer) -> None:
    with serving(redis, remembered_ids=2) as service, ReplayClient(service.server.address) as client:
        make_buffer(client, capacity_rows=20)
        for number in range(5):  # Two are held, two remembered, one forgotten.
            client.append(numbered(number, 9), buffer_id="run", timeout_s=10)
        assert held(client) == ["e3", "e4"]
        for number in (1, 2, 3, 4):
            assert client.append(numbered(number, 9), buffer_id="run", timeout_s=10).duplicate, number
        assert not client.append(numbered(0, 9), buffer_id="run", timeout_s=10).duplicate


def test_lower_capacity_evicts_at_once(client: ReplayClient) -> None:
    make_buffer(client, capacity_rows=100)
    for number in range(5):
        client.append(numbered(number, 9), buffer_id="run", timeout_s=10)
    assert make_buffer(client, capacity_rows=25, updates_per_env_step=0.5)
    assert held(client) == ["e3", "e4"]
    buffer = client.get_buffer("run")
    assert (buffer.rows, buffer.config.capacity_rows, buffer.config.updates_per_env_step) == (20, 25, 0.5)
    assert numbers_of(take(client)[0]) == {3, 4}


def test_a_buffer_cannot_change_its_contents(client: ReplayClient) -> None:
    assert not make_buffer(client)
    assert make_buffer(client)
    with pytest.raises(PreconditionError, match="image_dim"):
        make_buffer(client, image_dim=3)
    with pytest.raises(PreconditionError, match="tasks"):
        client.create_buffer(
            "run",
            BufferConfig(
                {"walk": (5, 1)},
                capacity_rows=10_000,
                updates_per_env_step=1.0,
                start_env_steps=0,
                max_lead_updates=0,
                demos_in_online=False,
            ),
        )


def test_delete_removes_every_trace(client: ReplayClient, redis: RedisServer) -> None:
    make_buffer(client)
    client.append(numbered(0, 9), demo_set="kept", timeout_s=10)
    before = set(redis_py.Redis.from_url(redis.url).keys("*"))  # type: ignore[arg-type]
    make_buffer(client, "other")
    for number in range(3):
        client.append(numbered(number, 9), buffer_id="other", timeout_s=10)
    assert client.delete_buffer("other") == 3
    assert client.delete_buffer("other") == 0
    assert set(redis_py.Redis.from_url(redis.url).keys("*")) == before  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="other"):
        client.append(numbered(9, 9), buffer_id="other", timeout_s=10)
    assert not make_buffer(client, "other")
    assert not client.append(numbered(0, 9), buffer_id="other", timeout_s=10).duplicate
    assert client.get_buffer("other").env_steps == 9


@pytest.mark.parametrize("episodes", [0, 3])
@pytest.mark.parametrize("kind", list(Kind))
def test_an_append_that_races_with_a_deletion_brings_nothing_back(
    redis: RedisServer, kind: Kind, episodes: int
) -> None:
    """It has found its space, then the space is deleted: that is not a loss to be repaired."""
    store = Store(redis.url, 2.0, 100)
    catalog = Catalog(store)
    key = SpaceKey(kind, "run")
    config = replay_pb2.CreateBufferRequest(
        buffer_id="run",
        tasks=[replay_pb2.TaskDims(task="reach", obs_dim=3, action_dim=2)],
        capacity_rows=100,
        limiter=replay_pb2.Limiter(updates_per_env_step=1),
    )
    store.create(key, config.SerializeToString(), 100 if kind is Kind.BUFFER else 0)
    catalog.refresh()
    (space,) = catalog._spaces()
    for number in range(episodes):
        assert space.append(stored(number), timeout_s=1).status == "stored"
    delete = catalog.delete_buffer if kind is Kind.BUFFER else catalog.delete_demo_set
    assert delete("run") == episodes
    for late in (lambda: space.append(stored(9), timeout_s=1), space.sync):
        with pytest.raises(NotFoundError, match="run was deleted"):
            late()
    assert (store.spaces(), store.meta(key)) == ([], None)
    store.close()


def test_a_deletion_cut_short_is_finished_at_the_next_start(redis: RedisServer) -> None:
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        make_buffer(client)
        client.append(numbered(0, 9), buffer_id="run", timeout_s=10)
    raw = redis_py.Redis.from_url(redis.url)
    raw.hdel("newt:replay:1:buffer:run:meta", "incarnation")
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        with pytest.raises(NotFoundError):
            client.get_buffer("run")
        assert raw.keys("*") == []


def test_demo_sets_are_shared_listed_and_never_evicted(client: ReplayClient) -> None:
    for number in range(4):
        client.append(
            numbered(number, 9, "reach", success=number % 2, score=number / 4), demo_set="experts", timeout_s=10
        )
    client.append(numbered(9, 4, "walk", success=float("nan")), demo_set="experts", timeout_s=10)
    client.append(numbered(9, 4, "walk"), demo_set="others", timeout_s=10)
    make_buffer(client, "a", demo_sets=["experts"], capacity_rows=10)
    make_buffer(client, "b", demo_sets=["others", "experts"], capacity_rows=10)
    for number in range(10, 14):
        client.append(numbered(number, 9), buffer_id="a", timeout_s=10)
    assert client.get_buffer("a").demo_rows == 45
    assert client.get_buffer("b").demo_rows == 50
    assert [t.demo_episodes for t in client.get_buffer("b").tasks] == [4, 2]
    assert [s.name for s in client.list_demo_sets()] == ["experts", "others"]
    [listed] = client.list_demo_sets("experts")
    reach, walk = listed.tasks
    assert (reach.task, reach.episodes, reach.rows, reach.mean_score, reach.mean_success) == (
        "reach",
        4,
        40,
        0.375,
        0.5,
    )
    assert reach.mean_return == pytest.approx(np.mean([1000 * n * 9 + 36 for n in range(4)]))
    assert np.isnan(walk.mean_success)
    assert listed.size_bytes > 45 * 4 * 6
    with pytest.raises(PreconditionError, match="used by buffer a, b"):
        client.delete_demo_set("experts")
    client.delete_buffer("a")
    client.delete_buffer("b")
    assert client.delete_demo_set("experts") == 5
    with pytest.raises(NotFoundError, match="others"):
        client.list_demo_sets("experts")


def test_demos_must_fit_the_runs_that_use_them(client: ReplayClient) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        make_buffer(client, demo_sets=["nowhere"])
    client.append(numbered(0, 9), demo_set="d", timeout_s=10)
    wrong = numbered(1, 9)
    wrong = Episode("e1", "reach", np.zeros((10, 4), np.float32), wrong.action, wrong.reward)
    with pytest.raises(InvalidInputError, match=r"episode\.obs"):
        client.append(wrong, demo_set="d", timeout_s=10)
    with pytest.raises(PreconditionError, match="'d' has obs and action dims"):
        client.create_buffer(
            "run",
            BufferConfig(
                {"reach": (4, 2)},
                capacity_rows=100,
                updates_per_env_step=1,
                start_env_steps=0,
                max_lead_updates=0,
                demo_sets=["d"],
            ),
        )
    make_buffer(client, demo_sets=["d"])
    late = Episode("e2", "walk", np.zeros((10, 6), np.float32), np.zeros((9, 1), np.float32), np.zeros(9, np.float32))
    with pytest.raises(PreconditionError, match="walk"):
        client.append(late, demo_set="d", timeout_s=10)


@pytest.mark.parametrize("transitions", [50, 1000])
def test_bytes_per_transition(client: ReplayClient, redis: RedisServer, transitions: int) -> None:
    """A task with 24 observations and 6 actions costs at most 200 bytes per transition, all overhead included."""
    client.create_buffer(
        "run",
        BufferConfig(
            {"t": (24, 6)}, capacity_rows=10**6, updates_per_env_step=1, start_env_steps=0, max_lead_updates=0
        ),
    )
    raw = redis_py.Redis.from_url(redis.url)
    rng = np.random.default_rng(0)

    def append(number: int) -> None:
        episode = Episode(
            f"0123456789abcdef/collector/{number}",
            "t",
            rng.normal(size=(transitions + 1, 24)).astype(np.float32),
            rng.normal(size=(transitions, 6)).astype(np.float32),
            rng.normal(size=transitions).astype(np.float32),
        )
        client.append(episode, buffer_id="run", timeout_s=10)

    append(0)
    before = raw.info("memory")["used_memory"]  # type: ignore[index]
    count = 40_000 // transitions
    for number in range(1, count + 1):
        append(number)
    used = raw.info("memory")["used_memory"] - before  # type: ignore[index]
    assert used / (count * transitions) < 200
    usage = sum(raw.memory_usage(f"newt:replay:1:buffer:run:e:{n}") for n in range(count + 1))  # type: ignore[misc]
    assert client.get_buffer("run").size_bytes >= usage
    assert client.get_buffer("run").size_bytes == pytest.approx(used * (count + 1) / count, rel=0.1)


def test_restart_restores_everything(redis: RedisServer) -> None:
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        client.append(numbered(50, 9), demo_set="d", timeout_s=10)
        make_buffer(client, capacity_rows=60, demo_sets=["d"], demos_in_online=True)
        for number in range(10):
            client.append(
                numbered(number, 6 + number % 3, "walk" if number % 2 else "reach"), buffer_id="run", timeout_s=10
            )
        take(client, 3, limited=True, first_index=0)
        before, batches = client.get_buffer("run"), take(client, 5, demo_fraction=0.5)
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        after, again = client.get_buffer("run"), take(client, 5, demo_fraction=0.5)
        assert not client.append(numbered(99, 9), buffer_id="run", timeout_s=10).duplicate
        assert client.append(numbered(3, 6), buffer_id="run", timeout_s=10).duplicate
    before = replace(before, updates=after.updates)  # Stored once a second; the trainer's next request tells it anyway.
    assert after == before
    for one, two in zip(batches, again, strict=True):
        np.testing.assert_array_equal(one.obs, two.obs)
        np.testing.assert_array_equal(one.reward, two.reward)


def test_what_another_writer_stored_is_found(client: ReplayClient, service: ReplayService, redis: RedisServer) -> None:
    """A reply that was lost, and another instance during a rolling update: Redis has an episode, the mirror not."""
    make_buffer(client)
    client.append(numbered(0, 9), buffer_id="run", timeout_s=10)
    store = Store(redis.url, 2.0, 100)
    key = SpaceKey(Kind.BUFFER, "run")
    meta = store.meta(key)
    assert meta is not None
    assert store.append(key, meta.incarnation, 1, "e1", pack(stored(1)), 9, "reach").status == "stored"
    reply = client.append(numbered(1, 9), buffer_id="run", timeout_s=10)
    assert (reply.duplicate, reply.env_steps) == (True, 18)
    assert numbers_of(take(client)[0]) == {0, 1}
    assert not client.append(numbered(2, 9), buffer_id="run", timeout_s=10).duplicate
    assert numbers_of(take(client)[0]) == {0, 1, 2}
    store.close()
