"""Redis and the service die, hang, fill up and forget; no acknowledged episode is lost or doubled."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import redis as redis_py
from replay_episodes import check, make_buffer, numbered, numbers_of, take
from replay_stack import ServiceProcess, serving, wait_ready

from newt.client.buffers import BufferConfig
from newt.client.replay import ReplayClient
from newt.errors import ExhaustedError, NotFoundError, UnavailableError
from newt.local import redis_server
from newt.local.ports import free_port
from newt.local.redis_server import RedisServer
from newt.wire.episodes import Episode
from services.replay import space
from services.replay.service import ReplayService
from services.replay.settings import ReplaySettings


class Writers:
    """Threads that append episodes of different lengths; each id is appended until acknowledged, some of them twice."""

    def __init__(self, address: str, count: int, episodes: int) -> None:
        self.acknowledged: set[str] = set()
        self.failed: list[BaseException] = []
        self._address, self._episodes = address, episodes
        self._threads = [threading.Thread(target=self._write, args=(i,)) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self, writer: int) -> None:
        try:
            with ReplayClient(self._address) as client:
                for i in range(self._episodes):
                    number = writer * self._episodes + i
                    for _ in range(1 + (number % 5 == 0)):
                        client.append(numbered(number, 3 + number % 7), buffer_id="run", timeout_s=60)
                    self.acknowledged.add(f"e{number}")
        except BaseException as error:
            self.failed.append(error)

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(90)
        assert not self.busy
        assert self.failed == []


def assert_exactly_once(client: ReplayClient, expected: set[str]) -> None:
    """In Redis, in the counters and in the mirror."""
    counts = Counter(episode.episode_id for episode in client.read_episodes(buffer_id="run"))
    assert counts == Counter(expected)
    numbers = sorted(int(name[1:]) for name in expected)
    steps = sum(3 + n % 7 for n in numbers)
    buffer = client.get_buffer("run")
    assert (buffer.episodes, buffer.env_steps, buffer.rows) == (len(numbers), steps, steps + len(numbers))
    [batch] = take(client, batch_size=2000)
    check(batch)
    assert numbers_of(batch) <= set(numbers)


def test_killing_the_service_while_it_stores(
    redis: RedisServer, start_process: Callable[[str], ServiceProcess]
) -> None:
    process = start_process(redis.url)
    with ReplayClient(process.address) as client:
        make_buffer(client)
    chance = random.Random(1)
    writers = Writers(process.address, count=3, episodes=150)
    for _ in range(3):
        time.sleep(chance.uniform(0.05, 0.3))
        process.kill()
        process.start()
        wait_ready(process.address)
    writers.finish()
    with ReplayClient(process.address) as client:
        assert_exactly_once(client, writers.acknowledged)
    assert len(writers.acknowledged) == 450
    assert process.terminate() == 0


def test_killing_redis_while_it_stores(tmp_path: Path) -> None:
    redis = redis_server.start(tmp_path)
    try:
        with serving(redis) as service:
            with ReplayClient(service.server.address) as client:
                make_buffer(client)
            chance = random.Random(2)
            writers = Writers(service.server.address, count=3, episodes=200)
            for _ in range(4):
                time.sleep(chance.uniform(0.05, 0.3))
                redis.kill()
                redis = redis_server.start(tmp_path, port=redis.port)
            writers.finish()
            with ReplayClient(service.server.address) as client:
                assert_exactly_once(client, writers.acknowledged)
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            assert_exactly_once(client, writers.acknowledged)
    finally:
        redis.stop()


def test_killing_both_at_once(tmp_path: Path, start_process: Callable[[str], ServiceProcess]) -> None:
    """Without the service's memory only appendfsync always keeps every acknowledged episode."""
    redis = redis_server.start(tmp_path, appendfsync="always")
    try:
        process = start_process(redis.url)
        with ReplayClient(process.address) as client:
            make_buffer(client)
        writers = Writers(process.address, count=2, episodes=100)
        for _ in range(2):
            time.sleep(0.15)
            redis.kill()
            process.kill()
            redis = redis_server.start(tmp_path, port=redis.port, appendfsync="always")
            process.start()
            wait_ready(process.address)
        writers.finish()
        with ReplayClient(process.address) as client:
            assert_exactly_once(client, writers.acknowledged)
    finally:
        redis.stop()


def test_a_full_redis_refuses_and_loses_nothing(tmp_path: Path) -> None:
    redis = redis_server.start(tmp_path, maxmemory_bytes=6_000_000)
    try:
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            make_buffer(client, capacity_rows=1_000_000)
            make_buffer(client, "old")
            client.append(numbered(0, 500), buffer_id="old", timeout_s=10)
            stored = refused = 0
            while refused < 3 and stored < 1000:  # Redis counts its clients' memory too: later, one more may find room
                try:
                    client.append(numbered(stored, 2000), buffer_id="run", timeout_s=10)
                    stored += 1
                except ExhaustedError as error:
                    assert re.search(r"maxmemory 6000000 bytes.*capacity_rows", str(error))  # noqa: PT017
                    refused += 1
                assert client.get_buffer("run").episodes == stored
            assert 10 < stored < 1000
            assert len(list(client.read_episodes(buffer_id="run"))) == stored
            assert numbers_of(take(client, batch_size=5000)[0]) == set(range(stored))
            assert client.append(numbered(1, 2000), buffer_id="run", timeout_s=10).duplicate
            # Both ways out that the error names work on a full Redis.
            make_buffer(client, capacity_rows=2001 * 5)
            client.append(numbered(stored, 2000), buffer_id="run", timeout_s=10)
            assert numbers_of(take(client, batch_size=500)[0]) == set(range(stored - 4, stored + 1))
            assert client.delete_buffer("old") == 1
    finally:
        redis.stop()


def test_samples_go_on_while_redis_is_down(tmp_path: Path) -> None:
    redis = redis_server.start(tmp_path)
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        make_buffer(client)
        client.append(numbered(0, 20), buffer_id="run", timeout_s=10)
        redis.stop()
        wait_ready(service.server.address, ready=False)
        with pytest.raises(UnavailableError, match="cannot be reached"):
            client.append(numbered(1, 20), buffer_id="run", timeout_s=2)
        with pytest.raises(UnavailableError):
            client.create_buffer(
                "new",
                BufferConfig(
                    {"t": (3, 1)},
                    capacity_rows=9,
                    updates_per_env_step=1,
                    start_env_steps=0,
                    max_lead_updates=0,
                ),
                timeout_s=1,
            )
        assert len(take(client, 5, limited=True)) == 5
        redis = redis_server.start(tmp_path, port=redis.port)
        wait_ready(service.server.address)
        assert not client.append(numbered(1, 20), buffer_id="run", timeout_s=10).duplicate
        assert client.get_buffer("run").episodes == 2
    redis.stop()


def test_a_hanging_redis_holds_a_call_no_longer_than_its_time(redis: RedisServer) -> None:
    with serving(redis, redis_timeout_s=0.2) as service, ReplayClient(service.server.address) as client:
        make_buffer(client)
        client.append(numbered(0, 20), buffer_id="run", timeout_s=10)
        os.kill(redis.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError):
                client.append(numbered(1, 20), buffer_id="run", timeout_s=3)
            wait_ready(service.server.address, ready=False)
            assert len(take(client, 3)) == 3
        finally:
            os.kill(redis.process.pid, signal.SIGCONT)
        wait_ready(service.server.address)
        client.append(numbered(1, 20), buffer_id="run", timeout_s=10)
        assert [e.episode_id for e in client.read_episodes(buffer_id="run")] == ["e0", "e1"]


def rewind(redis: RedisServer, to: Path) -> RedisServer:
    """Kills Redis and starts it with an older append-only file, as after a power cut."""
    redis.kill()
    shutil.copy(to, redis.directory / "appendonly.aof")
    return redis_server.start(redis.directory, port=redis.port)


def test_what_redis_forgot_is_stored_again(tmp_path: Path) -> None:
    """With appendfsync everysec Redis may lose the last acknowledged writes; the service still has them."""
    redis = redis_server.start(tmp_path / "redis", appendfsync="always")
    try:
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            make_buffer(client, capacity_rows=25)
            for number in range(2):
                client.append(numbered(number, 3 + number % 7), buffer_id="run", timeout_s=10)
            old = shutil.copy(tmp_path / "redis" / "appendonly.aof", tmp_path / "old.aof")
            make_buffer(client, "young")
            for number in range(2, 5):
                client.append(numbered(number, 3 + number % 7), buffer_id="run", timeout_s=10)
            client.append(numbered(9, 3 + 9 % 7), buffer_id="young", timeout_s=10)
            before = client.get_buffer("run")
            redis = rewind(redis, old)
            client.append(numbered(5, 3 + 5 % 7), buffer_id="run", timeout_s=20)
            client.append(numbered(10, 3), buffer_id="young", timeout_s=20)
            kept = [e.episode_id for e in client.read_episodes(buffer_id="run")]
            assert kept == ["e3", "e4", "e5"]
            after = client.get_buffer("run")
            assert (after.episodes, after.env_steps) == (before.episodes + 1, before.env_steps + 8)
            assert [e.episode_id for e in client.read_episodes(buffer_id="young")] == ["e9", "e10"]
            assert client.append(numbered(3, 6), buffer_id="run", timeout_s=20).duplicate
    finally:
        redis.stop()


def test_a_loss_beyond_repair_leaves_redis_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "JOURNAL_SECONDS", 0.0)
    redis = redis_server.start(tmp_path / "redis", appendfsync="always")
    try:
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            make_buffer(client)
            client.append(numbered(0, 3), buffer_id="run", timeout_s=10)
            old = shutil.copy(tmp_path / "redis" / "appendonly.aof", tmp_path / "old.aof")
            make_buffer(client, "young")
            for number in range(1, 4):
                client.append(numbered(number, 3 + number), buffer_id="run", timeout_s=10)
                client.append(numbered(number, 3 + number), buffer_id="young", timeout_s=10)
            redis = rewind(redis, old)
            client.append(numbered(4, 7), buffer_id="run", timeout_s=20)
            assert_exactly_once(client, {"e0", "e4"})
            with pytest.raises(NotFoundError, match="young"):
                client.append(numbered(8, 3), buffer_id="young", timeout_s=20)
    finally:
        redis.stop()


def test_a_damaged_episode_is_left_out_and_reported(redis: RedisServer) -> None:
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        make_buffer(client)
        for number in range(3):
            client.append(numbered(number, 9), buffer_id="run", timeout_s=10)
    redis_py.Redis.from_url(redis.url).setrange("newt:replay:1:buffer:run:e:1", 100, b"\xff\xff")
    with serving(redis) as service, ReplayClient(service.server.address) as client:
        assert numbers_of(take(client, batch_size=200)[0]) == {0, 2}
        client.append(numbered(3, 9), buffer_id="run", timeout_s=10)
        assert client.get_buffer("run").episodes == 4


def test_the_service_may_start_before_redis(tmp_path: Path) -> None:
    port = free_port()
    server = None
    service = ReplayService(ReplaySettings(port=0, redis_url=f"redis://127.0.0.1:{port}/0", redis_check_s=0.1))
    service.server.start()
    service.start()
    try:
        wait_ready(service.server.address, ready=False)
        with ReplayClient(service.server.address) as client:
            with pytest.raises(UnavailableError, match="being rebuilt"):
                client.get_buffer("run", timeout_s=1)
            server = redis_server.start(tmp_path, port=port)
            assert not make_buffer(client)
            wait_ready(service.server.address)
    finally:
        service.drain()
        service.server.stop(0.2)
        service.close()
        if server:
            server.stop()


def test_an_iterator_survives_a_restart_of_the_service(
    redis: RedisServer, start_process: Callable[[str], ServiceProcess]
) -> None:
    """It goes on at the same update, with the batches that an undisturbed one would give."""
    process = start_process(redis.url)
    with ReplayClient(process.address) as client:
        make_buffer(client)
        client.append(numbered(0, 200), buffer_id="run", timeout_s=10)
        undisturbed = take(client, 40, limited=True)
        with client.batches("run", batch_size=64, horizon=3, seed=1, demo_fraction=0.0, count=40) as batches:
            got = [next(batches) for _ in range(10)]
            process.kill()
            process.start()
            got += list(batches)
    assert [batch.index for batch in got] == list(range(40))
    for one, two in zip(got, undisturbed, strict=True):
        np.testing.assert_array_equal(one.obs, two.obs)


def test_an_oversized_message_is_refused(client: ReplayClient) -> None:
    make_buffer(client)
    rows = 10_000_001
    obs, action, reward = (np.zeros(shape, np.float32) for shape in ((rows + 1, 3), (rows, 2), rows))
    huge = Episode("huge", "reach", obs, action, reward)
    with pytest.raises(ExhaustedError, match="larger than max"):
        client.append(huge, buffer_id="run", timeout_s=30)
    assert not client.append(numbered(0, 5), buffer_id="run", timeout_s=10).duplicate
