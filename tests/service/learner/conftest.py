from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from learner_stack import LearnerStack

from newt.local import redis_server
from newt.local.redis_server import RedisServer
from services.learner.records.store import Records


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = redis_server.start(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def records(shared_redis: RedisServer) -> Records:
    return Records.connect(shared_redis.url)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    home: Path = tmp_path_factory.mktemp("stack")
    stack = LearnerStack(home, ("sim", "replay", "planner"))
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()
