"""Clients and several replicas behind one name."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.wire.channels import connect
from newt.wire.server import Server

pytestmark = pytest.mark.timeout(60)
SERVICE = "newt.v1.PlannerService"


class Counting(grpc.ServerInterceptor):  # type: ignore[misc]
    """Counts calls by the port of the client's connection."""


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    started = [Server(SERVICE, "127.0.0.1", 0, max_threads=4) for _ in range(3)]
    for number, server in enumerate(started):
        server.start()
        server.set_ready(number != 2)  # tells the third from the others
    yield started
    for server in started:
        server.stop(0)


def statuses(channel: grpc.Channel, calls: int) -> Counter[int]:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    return Counter(stub.Check(request, timeout=10, wait_for_ready=True).status for _ in range(calls))


def target(servers: list[Server]) -> str:
    return "ipv4:" + ",".join(server.address for server in servers)


def test_calls_go_round_all_replicas(servers: list[Server]) -> None:
    with connect(target(servers)) as channel:
        statuses(channel, 50)  # until all three are connected
        counts = statuses(channel, 30)
    assert counts == {health_pb2.HealthCheckResponse.SERVING: 20, health_pb2.HealthCheckResponse.NOT_SERVING: 10}


def test_one_replica_gets_all_calls(servers: list[Server]) -> None:
    chosen = set()
    for _ in range(30):
        with connect(target(servers), one_replica=True) as channel:
            (status,) = statuses(channel, 5)
            chosen.add(status)
    assert len(chosen) == 2  # not always the same one


def test_names_are_resolved(servers: list[Server]) -> None:
    with connect(f"dns:///localhost:{servers[0].port}") as channel:
        assert statuses(channel, 1) == {health_pb2.HealthCheckResponse.SERVING: 1}


def test_old_connections_are_renewed_between_calls() -> None:
    server = Server(SERVICE, "127.0.0.1", 0, max_threads=4, max_connection_age_s=0.5)
    peers = set()

    class Peers(health_pb2_grpc.HealthServicer):
        def Check(  # noqa: N802
            self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
        ) -> health_pb2.HealthCheckResponse:
            peers.add(context.peer())
            return health_pb2.HealthCheckResponse()

    handlers = {
        "Peer": grpc.unary_unary_rpc_method_handler(
            Peers().Check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
    }
    server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Peers", handlers),))
    server.start()
    try:
        with connect(server.address) as channel:
            call = channel.unary_unary(
                "/test.Peers/Peer",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            deadline = time.monotonic() + 20
            while len(peers) < 3 and time.monotonic() < deadline:
                call(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
    finally:
        server.stop(0)
    assert len(peers) >= 3
