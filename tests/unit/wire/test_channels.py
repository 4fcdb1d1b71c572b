"""Channels that stay open."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from newt.wire.channels import Channels


@pytest.fixture
def server() -> Iterator[tuple[grpc.Server, int]]:
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield server, port
    server.stop(None).wait()


def ask(channels: Channels, port: int) -> int:
    stub = health_pb2_grpc.HealthStub(channels.to(f"127.0.0.1:{port}"))
    return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True).status)


def test_a_target_has_one_channel_which_outlives_a_restart_of_its_service(server: tuple[grpc.Server, int]) -> None:
    channels, (first, port) = Channels(), server
    assert ask(channels, port) == health_pb2.HealthCheckResponse.SERVING
    kept = channels.to(f"127.0.0.1:{port}")
    first.stop(None).wait()
    again = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), again)
    assert again.add_insecure_port(f"127.0.0.1:{port}") == port
    again.start()
    try:
        assert ask(channels, port) == health_pb2.HealthCheckResponse.SERVING
        assert channels.to(f"127.0.0.1:{port}") is kept
        assert channels.to("127.0.0.1:1") is not kept
    finally:
        again.stop(None).wait()
