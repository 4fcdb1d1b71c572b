"""Backups of several replay services: all of them or none, and back into as many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from replay_shards import SHARDS, TASKS, config, episode
from replay_stack import serving
from typer.testing import CliRunner

from newt.backup import making, manifest, redis_side, restoring
from newt.cli.main import app
from newt.client.read_ahead import Batch
from newt.client.shards import ReplayShards
from newt.errors import InvalidInputError, NewtError, PreconditionError
from newt.local import redis_server, stack
from newt.local.redis_server import RedisServer

EPISODES = 3 * len(TASKS)


@contextmanager
def started(home: Path, count: int) -> Iterator[list[RedisServer]]:
    """So many Redis, where a local stack has them."""
    with ExitStack() as opened:
        servers = []
        for shard in range(count):
            server = redis_server.start(home / stack.shard_name("redis", shard))
            opened.callback(server.stop)
            servers.append(server)
        yield servers


@contextmanager
def replaying(servers: list[RedisServer]) -> Iterator[ReplayShards]:
    with ExitStack() as opened:
        addresses = [opened.enter_context(serving(server)).server.address for server in servers]
        yield opened.enter_context(ReplayShards(addresses))


def batch(replay: ReplayShards) -> Batch:
    with replay.batches("run", batch_size=64, horizon=3, seed=1, demo_fraction=0.5, limited=False, count=1) as batches:
        return next(iter(batches))


def contents(servers: list[RedisServer]) -> list[dict[bytes, Any]]:
    """Lists of spaces, ids and episodes of each."""
    found = []
    for server in servers:
        client: Any = redis.Redis.from_url(server.url)
        values = {}
        for key in client.scan_iter(match="newt:replay:*"):
            match client.type(key):
                case b"string":
                    values[key] = client.get(key)
                case b"set":
                    values[key] = client.smembers(key)
                case b"list":
                    values[key] = client.lrange(key, 0, -1)
        found.append(values)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a stopped stack with a buffer and a demo set, both spread."""
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    with started(home, SHARDS) as servers, replaying(servers) as replay:
        for number, task in enumerate(TASKS):
            replay.append(episode(100 + number, task), demo_set="experts")
        replay.create_buffer("run", config(demo_sets=("experts",)))
        for number in range(EPISODES):
            replay.append(episode(number, TASKS[number % len(TASKS)]), buffer_id="run", timeout_s=10)
    return home


def urls(servers: list[RedisServer]) -> list[str]:
    return [server.url for server in servers]


def test_all_of_them_come_back(home: Path, tmp_path: Path) -> None:
    for words in (
        ["backup", str(tmp_path / "backup"), "--home", str(home)],
        ["restore", str(tmp_path / "backup"), "--home", str(tmp_path / "other")],
    ):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        counts = f"{EPISODES + len(TASKS)} episodes in 1 buffers and 1 demonstration sets of {SHARDS} replay services"
        assert counts in done.output
    assert stack.stored_shards(tmp_path / "other") == SHARDS  # which `newt up` then starts
    with started(home, SHARDS) as old, started(tmp_path / "other", SHARDS) as new:
        assert contents(new) == contents(old)
        with replaying(old) as before, replaying(new) as after:
            assert after.get_buffer("run") == before.get_buffer("run")
            assert np.array_equal(batch(after).obs, batch(before).obs)
            assert after.append(episode(0, TASKS[0]), buffer_id="run").duplicate


@pytest.mark.parametrize("count", [1, SHARDS - 1, SHARDS + 1])
def test_another_number_is_refused(home: Path, tmp_path: Path, count: int) -> None:
    with started(home, SHARDS) as servers:
        making.make(tmp_path / "backup", urls(servers), home / "data")
    other = tmp_path / "other"
    refused = pytest.raises(PreconditionError, match=rf"is of 3 replay services.* got {count} Redis, expected 3")
    with started(other, count) as servers, refused:
        restoring.restore(tmp_path / "backup", urls(servers), other / "data")
    with pytest.raises(PreconditionError, match=rf"is of 3 replay services, .* is of {count}; .*--replay-shards 3"):
        CliRunner().invoke(app, ["restore", str(tmp_path / "backup"), "--home", str(other)], catch_exceptions=False)
    assert not (other / "data").exists()


def test_a_part_is_not_backed_up_as_the_whole(home: Path, tmp_path: Path) -> None:
    with started(home, SHARDS) as servers:
        first, second, third = urls(servers)
        for wrong in ([first], [first, second], [second, first, third], [first, second, second]):
            with pytest.raises(InvalidInputError, match=r"buffer:run is part .* of 3 in Redis"):
                making.make(tmp_path / "backup", wrong, home / "data")
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("when", ["deleted", "made"])
def test_a_buffer_is_there_on_all_shards_or_on_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """It goes, or comes, when one shard's part has been copied, or looked for."""
    (tmp_path / "data").mkdir()
    copy = redis_side._Space.copy
    with started(tmp_path, SHARDS) as servers, replaying(servers) as replay:

        def make(name: str) -> None:
            replay.create_buffer(name, config())
            for number, task in enumerate(TASKS):
                replay.append(episode(number, task), buffer_id=name)

        def with_news(part: Any) -> int | None:
            episodes = copy(part)
            if part._name == "buffer:goes" and when == "deleted":
                replay.delete_buffer("goes")
            elif when == "made":
                make("young")
            monkeypatch.setattr(redis_side._Space, "copy", copy)
            return episodes

        make("goes")
        make("stays")
        monkeypatch.setattr(redis_side._Space, "copy", with_news)
        made = making.make(tmp_path / "backup", urls(servers), tmp_path / "data")
    kept = {"stays"} if when == "deleted" else {"goes", "stays"}
    assert (made.buffers, made.episodes) == (len(kept), len(kept) * len(TASKS))
    with started(tmp_path / "other", SHARDS) as servers:
        restoring.restore(tmp_path / "backup", urls(servers), tmp_path / "other" / "data")
        for server in servers:
            keys = redis.Redis.from_url(server.url).keys("newt:replay:*")
            assert {key.split(b":")[4].decode() for key in keys if key.count(b":") > 3} == kept  # type: ignore[union-attr]


def test_a_restore_that_fails_leaves_a_home_as_it_was(home: Path, tmp_path: Path) -> None:
    with started(home, SHARDS) as servers:
        making.make(tmp_path / "backup", urls(servers), home / "data")
    (tmp_path / "backup" / manifest.redis_file(2)).write_bytes(b"*1")
    with pytest.raises(NewtError, match=r"shards/2.resp is damaged"):
        CliRunner().invoke(
            app, ["restore", str(tmp_path / "backup"), "--home", str(tmp_path / "new")], catch_exceptions=False
        )
    assert stack.stored_shards(tmp_path / "new") == 1
    assert not (tmp_path / "new" / "redis").exists()
