"""Whatever is stored under the keys of one space, the other spaces are served, and the broken one can be deleted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_client
from replay_episodes import make_buffer, numbered, numbers_of, take
from replay_stack import serving

from newt.client.replay import ReplayClient
from newt.errors import CorruptDataError, NotFoundError, PreconditionError
from newt.local import redis_server
from newt.local.redis_server import RedisServer

ROOT = "newt:replay:1"
FIELDS = ("incarnation", "config", "next", "head", "rows", "bytes", "env_steps", "updates", "capacity", "steps:reach")
VALUES = (b"abc", b"\xff\xfe", b"9" * 400, b"4000000000")
Break = Callable[["redis_client.Redis[bytes]", str], object]


def _field(field: str, value: bytes) -> Break:
    return lambda redis, space: redis.hset(f"{ROOT}:{space}:meta", field, value)


def _replaced(part: str, kind: str) -> Break:
    def replace(redis: redis_client.Redis[bytes], space: str) -> None:
        key = f"{ROOT}:{space}:{part}"
        redis.delete(key)
        if kind == "string":
            redis.set(key, b"\xffnonsense")
        elif kind == "list":
            redis.rpush(key, b"nonsense")
        elif kind == "hash":
            redis.hset(key, "nonsense", b"1")

    return replace


def _changed(change: Callable[[bytes], bytes]) -> Break:
    """The first episode's bytes, changed."""

    def work(redis: redis_client.Redis[bytes], space: str) -> None:
        key = f"{ROOT}:{space}:e:0"
        redis.set(key, change(redis.get(key) or b""))

    return work


BREAKS: dict[str, Break] = {
    **{f"{field} is {value[:8]!r}": _field(field, value) for field, value in itertools.product(FIELDS, VALUES)},
    **{
        f"{part} is {kind}": _replaced(part, kind)
        for part, kind in itertools.product(("meta", "ids", "order", "e:0"), ("string", "list", "hash", "nothing"))
    },
    "no field is left": lambda redis, space: redis.hdel(f"{ROOT}:{space}:meta", *FIELDS[1:]),
    "an episode is cut": _changed(lambda data: data[:-5]),
    "an episode has a changed bit": _changed(lambda data: data[:80] + bytes([data[80] ^ 4]) + data[81:]),
    "an episode claims 4 billion steps": _changed(lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:]),
    "an episode has no columns": _changed(lambda data: data[:8] + b"\0\0\0\0" + data[12:]),
    "a strange space is registered": lambda redis, space: redis.sadd(f"{ROOT}:spaces", b"\xff", "tables:x", "buffer"),
}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    home: Path = tmp_path_factory.mktemp("redis")
    server = redis_server.start(home)
    yield server
    server.stop()


def _store_both(client: ReplayClient) -> None:
    """A whole buffer and demo set, and those that are to be broken."""
    for name in ("run", "bad"):
        if not make_buffer(client, name, capacity_rows=25):
            for number in range(2):
                client.append(numbered(number, 9), buffer_id=name, timeout_s=10)
        client.append(numbered(5, 9), demo_set=name, timeout_s=10)


def _whole_ones_are_served(client: ReplayClient, number: int) -> None:
    client.append(numbered(number, 9), buffer_id="run", timeout_s=10)
    assert number in numbers_of(take(client, 1, batch_size=256)[0])
    assert [episode.episode_id for episode in client.read_episodes(demo_set="run")] == ["e5"]
    assert "run" in [held.name for held in client.list_demo_sets()]


def _shown_or_whole(client: ReplayClient) -> None:
    """The broken ones say what is wrong, or have lost no more than single episodes."""
    for look in (
        lambda: client.get_buffer("bad"),
        lambda: list(client.read_episodes(demo_set="bad")),
        lambda: client.list_demo_sets("bad"),
        lambda: take(client, 1, "bad", batch_size=4),
    ):
        try:
            look()
        except CorruptDataError as error:
            assert ":bad" in str(error)  # noqa: PT017 - not every damage can be seen
        except NotFoundError:
            pass  # without an incarnation it is a space whose deletion was cut short, and is gone


@pytest.mark.parametrize("number", range(4))
def test_one_broken_space_stops_no_other(redis: RedisServer, number: int) -> None:
    """Every fourth damage, each found by a service that starts and by one that runs."""
    with redis_client.Redis.from_url(redis.url) as raw:
        for count, (name, damage) in enumerate(list(BREAKS.items())[number::4]):
            for space, live in itertools.product(("buffer:bad", "demos:bad"), (True, False)):
                if live == bool(count % 2):
                    continue
                raw.flushall()
                with serving(redis, redis_check_s=0.02) as service, ReplayClient(service.server.address) as client:
                    _store_both(client)
                    if live:
                        damage(raw, space)
                        time.sleep(0.1)
                        _check(client, name)
                if not live:
                    damage(raw, space)
                    with serving(redis) as service, ReplayClient(service.server.address) as client:
                        _check(client, name)


def _check(client: ReplayClient, name: str) -> None:
    try:
        _whole_ones_are_served(client, 9)
        _shown_or_whole(client)
        client.delete_buffer("bad")
        try:
            client.delete_demo_set("bad")
        except NotFoundError:
            assert name.startswith(("incarnation", "meta is"))
        _store_both(client)
        assert [episode.episode_id for episode in client.read_episodes(buffer_id="bad")] == ["e0", "e1"]
        assert [held.error for held in client.list_demo_sets()] == ["", ""]
        _whole_ones_are_served(client, 10)
    except BaseException as error:
        error.add_note(f"after {name}")
        raise


def test_a_broken_space_is_named_with_its_reason(redis: RedisServer) -> None:
    with redis_client.Redis.from_url(redis.url) as raw:
        raw.flushall()
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            _store_both(client)
        _field("next", b"abc")(raw, "demos:bad")
        _field("config", b"\xff\xff")(raw, "buffer:bad")
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            with pytest.raises(CorruptDataError, match=r"demos:bad.*'next'.*b'abc'.*DeleteDemoSet"):
                client.list_demo_sets("bad")
            with pytest.raises(CorruptDataError, match=r"buffer:bad.*CreateBufferRequest.*DeleteBuffer"):
                make_buffer(client, "bad")
            errors = {held.name: held.error for held in client.list_demo_sets()}
            assert errors["run"] == ""
            assert "'next'" in errors["bad"]
            client.append(numbered(7, 9), buffer_id="run", timeout_s=10)


def _stored(raw: redis_client.Redis[bytes], pattern: str) -> dict[bytes, object]:
    # The bytes of a hash depend on where it is in its growth.
    return {key: raw.hgetall(key) if raw.type(key) == b"hash" else raw.dump(key) for key in raw.keys(pattern)}


def test_a_space_that_a_later_version_wrote_is_left_alone(redis: RedisServer) -> None:
    with redis_client.Redis.from_url(redis.url) as raw:
        raw.flushall()
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            _store_both(client)
        assert raw.hget(f"{ROOT}:buffer:bad:meta", "schema") == b"1"
        for space in ("buffer:bad", "demos:bad"):
            raw.hset(f"{ROOT}:{space}:meta", "schema", 3)
            raw.hdel(f"{ROOT}:{space}:meta", "incarnation")  # which means something else by then
        stored = _stored(raw, "*bad*")
        assert len(stored) > 6
        with serving(redis, redis_check_s=0.02) as service, ReplayClient(service.server.address) as client:
            later = r":bad was stored by a later version of Newt \(schema 3, .* up to 2\): update Newt"
            for use in (
                lambda: client.get_buffer("bad"),
                lambda: make_buffer(client, "bad"),
                lambda: client.append(numbered(8, 9), buffer_id="bad", timeout_s=10),
                lambda: client.append(numbered(8, 9), demo_set="bad", timeout_s=10),
                lambda: list(client.read_episodes(demo_set="bad")),
            ):
                with pytest.raises(PreconditionError, match=later):
                    use()
            frames = []
            for _ in range(2):
                with pytest.raises(PreconditionError) as refused:
                    service._catalog.buffer("bad")
                frames.append(len(refused.traceback))
            assert frames[0] == frames[1]  # what is kept of the error does not grow with those who ask
            _whole_ones_are_served(client, 9)
            time.sleep(0.1)  # several looks
            assert _stored(raw, "*bad*") == stored
            client.delete_buffer("bad")  # when somebody asks for it
            client.delete_demo_set("bad")
            assert not raw.keys("*bad*")


def test_fields_that_a_later_version_adds_to_a_buffer_stay(redis: RedisServer) -> None:
    place = f"{ROOT}:buffer:run:meta"
    unknown = bytes([0xF8, 0x07, 0x05])  # field 127, varint 5
    with redis_client.Redis.from_url(redis.url) as raw:
        raw.flushall()
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            make_buffer(client)
            client.append(numbered(1, 9), buffer_id="run", timeout_s=10)
        raw.hset(place, mapping={"config": (raw.hget(place, "config") or b"") + unknown, "later": b"x"})
        with serving(redis) as service, ReplayClient(service.server.address) as client:
            assert make_buffer(client)
            assert make_buffer(client, capacity_rows=500)
            client.append(numbered(2, 9), buffer_id="run", timeout_s=10)
            with pytest.raises(PreconditionError, match="demos_in_online"):
                make_buffer(client, demos_in_online=True)
        assert unknown in (raw.hget(place, "config") or b"")
        assert raw.hmget(place, "later", "capacity") == [b"x", b"500"]
