"""Is a service of the local stack ready?"""

from __future__ import annotations

import urllib.error
import urllib.request

import grpc
import redis
from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.local.stack import ServiceSpec
from newt.wire.channels import connect


def is_ready(spec: ServiceSpec, timeout_s: float = 1.0) -> bool:
    """Asks the service once, by the protocol it has."""
    if spec.health == "redis":
        return _redis(spec, timeout_s)
    if spec.health == "http":
        return _http(spec, timeout_s)
    return _grpc(spec, timeout_s)


def _redis(spec: ServiceSpec, timeout_s: float) -> bool:
    client = redis.Redis(port=spec.port, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _http(spec: ServiceSpec, timeout_s: float) -> bool:
    try:
        with urllib.request.urlopen(f"http://{spec.address}/healthz", timeout=timeout_s) as reply:
            return int(reply.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def _grpc(spec: ServiceSpec, timeout_s: float) -> bool:
    with connect(spec.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=spec.health), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
