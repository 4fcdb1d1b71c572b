"""Asks a gRPC server's health service once: `python -m newt.wire.probe HOST:PORT SERVICE`.

The health check of our container images, where no other client of the protocol is installed.
"""

from __future__ import annotations

import argparse
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.security import SecurityError
from newt.wire.channels import connect
from newt.wire.status import rpc_code


def check(target: str, service: str, timeout_s: float) -> str | None:
    """Whether a service is ready.

    Args:
        target: host:port of its server.
        service: Full name of the gRPC service; "liveness" asks whether the process answers, ready or not.
        timeout_s: How long to wait for the answer.

    Returns:
        What is wrong, or None if the service is serving.
    """
    try:
        opened = connect(target)
    except SecurityError as error:
        return str(error)
    with opened as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as error:
            code = rpc_code(error)
            return code.name if code else repr(error)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))
    return None


def main() -> int:
    """Returns 0 if the service is serving; otherwise says why not and returns 1."""
    parser = argparse.ArgumentParser(prog="python -m newt.wire.probe", description="Is a gRPC service ready?")
    parser.add_argument("target", help="host:port")
    parser.add_argument("service", help="for example newt.v1.SimService, or liveness")
    parser.add_argument("--timeout-s", type=float, default=3.0)
    arguments = parser.parse_args()
    problem = check(arguments.target, arguments.service, arguments.timeout_s)
    if problem is None:
        return 0
    print(f"{arguments.service} at {arguments.target}: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
