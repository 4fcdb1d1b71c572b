from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_server import Api, build, serving
from learner_stack import LearnerStack

from newt.local.redis_server import RedisServer


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    """A learner that has Redis, but no simulators, planner or replay."""
    settings = {"DEPENDENCY_TIMEOUT_S": 2, "SIMS": '{"mujoco": "127.0.0.1:9"}'}
    stack = LearnerStack(tmp_path_factory.mktemp("alone"), (), settings)
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def api(shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    limits = {"allowed_hosts": ["learner", ".example.org"], "max_checkpoint_bytes": 1 << 21}
    with serving(build(shared_redis.url, tmp_path_factory.mktemp("api"), **limits)) as served:
        yield served
