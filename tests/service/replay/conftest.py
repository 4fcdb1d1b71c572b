"""Real Redis servers and real replay services."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from replay_shards import SHARDS
from replay_stack import ServiceProcess, serving, wait_ready

from newt.client.replay import ReplayClient
from newt.local import redis_server
from newt.local.redis_server import RedisServer
from services.replay.service import ReplayService


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = redis_server.start(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def service(redis: RedisServer) -> Iterator[ReplayService]:
    with serving(redis) as service:
        yield service


@pytest.fixture
def client(service: ReplayService) -> Iterator[ReplayClient]:
    with ReplayClient(service.server.address) as client:
        yield client


@pytest.fixture
def start_process() -> Iterator[Callable[[str], ServiceProcess]]:
    started: list[ServiceProcess] = []

    def start(redis_url: str) -> ServiceProcess:
        process = ServiceProcess(redis_url)
        started.append(process)
        process.start()
        wait_ready(process.address)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[ServiceProcess]]:
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(SHARDS):
            redis = redis_server.start(tmp_path / f"redis-{number}")
            stack.callback(redis.stop)
            process = ServiceProcess(redis.url)
            stack.callback(process.kill)
            process.start()
            started.append(process)
        for process in started:
            wait_ready(process.address)
        yield started
