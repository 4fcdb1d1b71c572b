"""Prometheus metrics that every service has, and the endpoint that shows them.

A service's own metrics are module constants beside the code that moves them, named newt_<service>_<what>_<unit>.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram, Info, start_http_server

import newt
from newt.wire.addresses import bare_host, host_port

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
STREAM_BUCKETS = (1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

# Public names, so that ready-made gRPC dashboards work.
GRPC_HANDLED = Counter("grpc_server_handled_total", "Calls completed.", ["grpc_service", "grpc_method", "grpc_code"])
GRPC_SECONDS = Histogram(
    "grpc_server_handling_seconds",
    "Duration of calls that are no streams.",
    ["grpc_service", "grpc_method"],
    buckets=LATENCY_BUCKETS,
)
GRPC_STREAM_SECONDS = Histogram(
    "newt_grpc_stream_seconds",
    "How long streams lived.",
    ["grpc_service", "grpc_method"],
    buckets=STREAM_BUCKETS,
)
BUILD = Info("newt_build", "Version of the running service.")


M = TypeVar("M", Counter, Gauge)


def from_zero(metric: M, labels: Iterable[str]) -> M:
    """Shows a metric's series from the start: one that begins with its first event has no rate at that event.

    Args:
        metric: A metric with one label.
        labels: The values that the label can have.

    Returns:
        The metric.
    """
    for label in labels:
        metric.labels(label)
    return metric


def serve(service: str, host: str, port: int) -> int:
    """Serves /metrics from a background thread.

    Args:
        service: Name of the service, put into newt_build_info.
        host: Address to bind; an IPv6 address with or without brackets.
        port: Port to bind; 0 picks a free one.

    Returns:
        The port in use.

    Raises:
        OSError: The address cannot be bound; the message names it.
    """
    BUILD.info({"version": newt.__version__, "service": service})
    try:
        server, _ = start_http_server(port, addr=bare_host(host))
    except OSError as error:
        raise OSError(
            f"metrics: cannot bind {host_port(host, port)}: {error.strerror}; choose another address or port"
        ) from error
    return int(server.server_port)
