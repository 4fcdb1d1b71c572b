"""The embedded Redis."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from newt.local import redis_server
from newt.local.ports import free_port


def test_data_survive_stop_and_kill(tmp_path: Path) -> None:
    server = redis_server.start(tmp_path)
    redis.Redis.from_url(server.url).set("a", 1)
    server.stop()
    server = redis_server.start(tmp_path, port=server.port, appendfsync="always")
    client = redis.Redis.from_url(server.url)
    client.set("b", 2)
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    server.kill()
    server = redis_server.start(tmp_path)
    try:
        assert redis.Redis.from_url(server.url).mget("a", "b") == [b"1", b"2"]
    finally:
        server.stop()
    assert server.process.returncode == 0


def test_password_is_required_and_private(tmp_path: Path) -> None:
    server = redis_server.start(tmp_path, password="open sesame".replace(" ", "-"))
    try:
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)).ping()
        assert redis.Redis.from_url(server.url).ping()
        assert stat.S_IMODE((tmp_path / "users.acl").stat().st_mode) == 0o600
        assert "sesame" not in " ".join(map(str, server.process.args))  # type: ignore[arg-type]
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    finally:
        server.stop()


def test_the_user_of_the_services_has_its_keys_and_no_others(tmp_path: Path) -> None:
    server = redis_server.start(tmp_path, password="s3/cr#t@:%")
    try:
        client = redis.Redis.from_url(server.url)
        client.hset("newt:learner:run:1", "state", "queued")
        assert client.eval("return redis.call('HGET', KEYS[1], 'state')", 1, "newt:learner:run:1") == b"queued"
        assert (
            client.register_script("return redis.call('HGET', KEYS[1], 'state')")(["newt:learner:run:1"]) == b"queued"
        )
        assert client.info("memory")["used_memory"] > 0  # type: ignore[index]
        for command in (
            ["SET", "other", "1"],
            ["GET", "other"],
            ["EVAL", "return redis.call('GET', 'other')", "0"],
            ["FLUSHALL"],
            ["SCRIPT", "FLUSH"],
            ["KEYS", "newt:*"],
            ["CONFIG", "GET", "*"],
            ["ACL", "LIST"],
            ["SHUTDOWN", "NOSAVE"],
            ["PUBLISH", "channel", "1"],
        ):
            with pytest.raises(redis.ResponseError, match=r"no permissions|can't"):
                client.execute_command(*command)
        probe = redis.Redis(port=server.port, username="health", password="any")
        assert probe.ping()
        with pytest.raises(redis.ResponseError, match="no permissions"):
            probe.get("newt:learner:run:1")
    finally:
        server.stop()


def test_one_server_per_folder(tmp_path: Path) -> None:
    server = redis_server.start(tmp_path)
    try:
        with pytest.raises(redis_server.RedisServerError, match="another Redis uses"):
            redis_server.start(tmp_path)
    finally:
        server.stop()
    redis_server.start(tmp_path).stop()


def test_port_in_use_is_named(tmp_path: Path) -> None:
    server = redis_server.start(tmp_path / "one")
    try:
        with pytest.raises(redis_server.RedisServerError, match=str(server.port)):
            redis_server.start(tmp_path / "two", port=server.port)
    finally:
        server.stop()


def test_foreground_process_is_redis_itself(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "newt.local.redis_server", str(tmp_path), str(port)])
    try:
        for _ in range(200):
            try:
                info = redis.Redis(port=port).info("server")
                break
            except redis.ConnectionError:
                assert process.poll() is None
        else:
            info = redis.Redis(port=port, retry_on_timeout=True).info("server")
        assert info["process_id"] == process.pid  # type: ignore[index]
    finally:
        process.terminate()
        assert process.wait(20) == 0
