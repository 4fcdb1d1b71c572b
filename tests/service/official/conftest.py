"""One replay service for all commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.local import redis_server
from newt.wire.channels import connect
from services.replay.service import NAME, ReplayService
from services.replay.settings import ReplaySettings


@pytest.fixture(scope="package")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a replay service on a Redis of its own."""
    redis = redis_server.start(tmp_path_factory.mktemp("redis"))
    service = ReplayService(ReplaySettings(port=0, redis_url=redis.url, redis_check_s=0.1, stop_grace_s=0.2))
    service.server.start()
    service.start()
    try:
        with connect(service.server.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(service=NAME), timeout=30, wait_for_ready=True
            )
            next(reply for reply in watch if reply.status == health_pb2.HealthCheckResponse.SERVING)
        yield service.server.address
    finally:
        service.server.stop(0.2)
        service.close()
        redis.stop()
